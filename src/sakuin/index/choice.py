"""`index="auto"`: which index suits so many offloaded tokens, by a small model of what one step costs.

Two kinds are weighed. `flat` reads every key and value: its time is that of reading and multiplying them.
`sketch` reads a few bits of each and what matters in full, and sets up its coordinates once for each segment.
A step of either also attends to the sink and the recent window and has a cost of its own. The constants
(`sakuin.index.costs`) were measured by benchmarks.speed.choice for each instruction set, not on the machine
that runs this: only the ratio of two times decides, from which a machine's speed cancels as far as it scales
both; a choice that a busy neighbour cannot sway gives the same output every time; and nothing has to be
measured before the first token.

`sketch` is chosen where it saves a fifth of the time (`WORTH`): short of that, being exact, building nothing
and holding nothing beside keys and values is worth more.

Called by `sakuin.index.auto`, `sakuin.capacity.need` and `sakuin.capacity.doctor`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sakuin.config import RetrievalConfig
from sakuin.dtypes import name_of
from sakuin.index import _native
from sakuin.index.costs import COSTS, StepCosts

if TYPE_CHECKING:
    import torch

WORTH = 1.25
"""`sketch` is chosen where `flat` takes at least so many times as long."""
LONGEST = 1 << 30
"""Offloaded tokens beyond which nothing is weighed."""
SEGMENT_TERMS = 2


def sketch_terms(n_tokens: float, shape: HeadShape, segment: int) -> list[float]:
    """What each field of `SketchCosts` (but `power`) is multiplied with: the call, the segments, the keys."""
    d, g, heads = shape.head_dim, shape.group_size, shape.n_kv_heads
    segments = heads * max(1.0, n_tokens / segment)
    keys, mean = heads * n_tokens / 1e3, shape.mean_dim
    return [1.0, segments, segments * d * d * g / 1e6, keys, keys * mean, keys * g, keys * mean * g]


def costs_here() -> StepCosts:
    """The constants for the kernels that run in this process; those of `avx2` where there are none."""
    return COSTS.get(_native.isa(), COSTS["avx2"])


@dataclass(frozen=True)
class HeadShape:
    """One layer of a model: dimensions of a key, query heads of a group, KV heads, dimensions of a value
    (without them those of a key)."""

    head_dim: int
    group_size: int
    n_kv_heads: int
    value_dim: int = 0

    def __post_init__(self) -> None:
        if not self.value_dim:
            object.__setattr__(self, "value_dim", self.head_dim)

    @property
    def mean_dim(self) -> float:
        """What a step takes follows from the numbers of keys and values together; it was measured where they
        are as many."""
        return (self.head_dim + self.value_dim) / 2

    def flat_us(
        self, n_tokens: float, config: RetrievalConfig, costs: StepCosts, stored: str = "bf16"
    ) -> float:
        """Microseconds of one `flat` step of all KV heads, as the model has it."""
        key = costs.flat[stored].key(self.mean_dim, self.group_size)
        static = costs.flat["bf16" if stored == "int8" else stored].key(self.mean_dim, self.group_size)
        keys = n_tokens * key + (config.sink + config.recent) * static
        return costs.flat[stored].call + self.n_kv_heads * keys / 1e3

    def sketch_us(
        self, n_tokens: float, config: RetrievalConfig, costs: StepCosts, stored: str = "bf16"
    ) -> float:
        """Microseconds of one `sketch` step of all KV heads, as the model has it."""
        g, heads = self.group_size, self.n_kv_heads
        terms = sketch_terms(n_tokens, self, config.segment_tokens(self.head_dim))
        spent = [cost * term for cost, term in zip(costs.sketch.terms, terms, strict=True)]
        fixed, keys = sum(spent[: 1 + SEGMENT_TERMS]), sum(spent[1 + SEGMENT_TERMS :])
        # The finer the tolerance, the more keys are looked at closely.
        keys *= math.pow(config.tolerance, -costs.sketch.power)
        static = costs.flat["bf16" if stored == "int8" else stored].key(self.mean_dim, g)
        return fixed + keys + heads * (config.sink + config.recent) * static / 1e3

    def kind(self, n_tokens: int, config: RetrievalConfig, stored: str = "bf16") -> str:
        """`"flat"` or `"sketch"`: what is chosen for so many offloaded tokens."""
        start = self.sketch_from(config, stored)
        return "flat" if start is None or n_tokens < start else "sketch"

    def sketch_from(
        self, config: RetrievalConfig, stored: str = "bf16", costs: StepCosts | None = None
    ) -> int | None:
        """The number of offloaded tokens from which on `sketch` is chosen; None where it never is, with a
        tolerance of 0 for one, which means to attend to everything exactly."""
        if config.tolerance == 0:
            return None
        costs = costs or costs_here()

        def pays(n: int) -> bool:
            flat, sketch = (f(n, config, costs, stored) for f in (self.flat_us, self.sketch_us))
            return flat >= WORTH * sketch

        if not pays(LONGEST):
            return None
        low, high = 0, LONGEST  # `pays` does not stop once it has begun: both times grow linearly
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if pays(middle) else (middle, high)
        return high


def stored_as(config: RetrievalConfig, dtype: torch.dtype) -> str:
    """The name of the dtype in which keys and values of `dtype` are stored."""
    if config.kv_dtype != "auto":
        return config.kv_dtype
    name = name_of(dtype)
    assert name is not None, f"keys and values are never {dtype}"
    return name
