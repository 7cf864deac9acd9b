"""What the decode steps of a layer spent, kept cheaply: steps are noted as they are, and reduced in batches
or when asked.

Called by `sakuin.cache.layer`; `WholeCache.stats` makes its answer of these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from sakuin.attention.partial import Stats
from sakuin.copies import twin

BATCH = 64


class StepLog:
    """Sums over the decode steps of one layer. A step is one pass through an index that holds tokens, of one
    sequence or a batch of them; where other layers share the layer's keys and attend too, it is still one.

    steps, tokens : so many steps, of so many tokens of all sequences. positions : as `tokens`, those of
    layers that share the keys counted again: over them the means are taken.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.tokens = 0
        self.seconds = 0.0
        self.touched_bytes = 0
        self.offloaded_bytes = 0
        self.positions = 0
        self._shares = torch.zeros(4, dtype=torch.float64)  # exact, codes, coverage, error, over positions
        self._waiting: list[Stats] = []

    def copy(self) -> StepLog:
        """The same sums, which this one's next steps do not change."""
        # That of every layer is copied at every pass: `copy.copy` takes five times as long.
        other = twin(self)
        other._waiting = list(self._waiting) if self._waiting else []
        return other

    def add(self, stats: Stats | None, seconds: float) -> None:
        """Note what attention of one sequence spent; over an empty index it is no step of retrieval and is
        left out. Who has noted all sequences of a pass counts the step."""
        if stats is None or not stats.offloaded_bytes:
            return
        self.positions += stats.coverage.shape[1]
        self.seconds += seconds
        self.touched_bytes += stats.touched_bytes
        self.offloaded_bytes += stats.offloaded_bytes
        self._waiting.append(stats)
        if len(self._waiting) >= BATCH:
            self._reduce()

    def count(self, tokens: int) -> None:
        """Count a step of so many tokens of all sequences; of none it is none."""
        self.steps += tokens > 0
        self.tokens += tokens

    def add_sums(self, sums: tuple[float, ...]) -> None:
        """Note steps that were added up already, as `_native.SketchSteps.sums` gives them."""
        steps, positions, touched, offloaded, exact, codes, coverage, error, seconds = sums
        self.steps += int(steps)
        self.tokens += int(positions)
        self.seconds += seconds
        self.touched_bytes += int(touched)
        self.offloaded_bytes += int(offloaded)
        self.positions += int(positions)
        self._shares = self._shares + torch.tensor([exact, codes, coverage, error], dtype=torch.float64)

    def _reduce(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        columns = [
            torch.cat([getattr(stats, name) for stats in waiting], 1)
            for name in ("exact", "codes", "coverage")
        ]
        known = [
            torch.full_like(stats.coverage, torch.nan) if stats.error is None else stats.error
            for stats in waiting
        ]
        columns.append(torch.cat(known, 1))
        # Never in place: the batch may have been a step in inference mode, and what reads it need not be.
        self._shares = self._shares + torch.stack([column.double().mean(0).sum() for column in columns])

    def shares(self) -> torch.Tensor:
        """Exact, codes, coverage and error (NaN if an index does not know it), each summed over positions,
        fp64 `(4,)`."""
        self._reduce()
        return self._shares


def summarize(logs: Sequence[StepLog]) -> dict[str, Any]:
    """Means over the decode steps of one or more layers. Bytes are those of one token, seconds those of a
    step, which may be of several; both are summed over the layers."""
    shares = sum((log.shares() for log in logs), torch.zeros(4, dtype=torch.float64))
    positions = sum(log.positions for log in logs)
    steps = max((log.steps for log in logs), default=0)
    tokens = max((log.tokens for log in logs), default=0)
    touched = sum(log.touched_bytes for log in logs)
    offloaded = sum(log.offloaded_bytes for log in logs)
    exact, codes, coverage, error = (shares / positions).tolist() if positions else (0.0, 0.0, 1.0, 0.0)
    return {
        "steps": steps,
        "exact": exact,
        "codes": codes,
        "coverage": coverage,
        "error": None if math.isnan(error) else error,
        "touched_bytes": touched / tokens if tokens else 0.0,
        "touched_share": touched / offloaded if offloaded else 0.0,
        "seconds": sum(log.seconds for log in logs) / steps if steps else 0.0,
    }
