"""How much memory a context will take: stated before the work starts, not found out by being killed.

The estimate needs the model's shape and a number of tokens, nothing loaded. Called by `sakuin.context`,
`sakuin.capacity.doctor` and the command line.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sakuin.backends.shape import ModelShape
from sakuin.config import RetrievalConfig
from sakuin.errors import SakuinError
from sakuin.index.choice import stored_as
from sakuin.index.kind import kind_of
from sakuin.machine.memory import Available, available
from sakuin.quantities import size_of


@dataclass(frozen=True)
class Need:
    """Bytes that a context takes: the model's weights, keys and values, their index, and what a chunk of
    prefill works with."""

    weights: int
    kv: int
    index: int
    working: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.index + self.working


def estimate(
    shape: ModelShape,
    n_tokens: int,
    dtype: torch.dtype,
    retrieval: RetrievalConfig | None = None,
    *,
    weights: int,
    chunk: int = 2048,
) -> Need:
    """What a context of `n_tokens` takes.

    dtype : of the model's states. retrieval : the settings of its cache; None is full attention with the
        ordinary cache.
    weights : bytes of the model's weights that are still to be loaded; 0 where they are loaded.
    """
    size = dtype.itemsize
    if retrieval is None:
        kv, index = _full(shape, n_tokens, size), 0
    else:
        kv, index = _held(shape, n_tokens, dtype, retrieval)
    rows = min(chunk, n_tokens)
    heads = 2 * shape.n_query_heads * (shape.head_dim + shape.value_dim)
    wide = 6 * shape.hidden + 3 * shape.intermediate + heads
    working = rows * wide * max(size, 4) + shape.vocabulary * 8 + (128 << 20)
    return Need(weights, kv, index, working)


def _full(shape: ModelShape, n_tokens: int, size: int) -> int:
    """Keys and values of the ordinary cache, which copies those of a layer to append to them."""
    pair = shape.n_kv_heads * (shape.head_dim + shape.value_dim) * size
    rows = (shape.full_layers + 1) * n_tokens + shape.sliding_layers * min(n_tokens, shape.sliding_window)
    return pair * rows


def _held(
    shape: ModelShape, n_tokens: int, dtype: torch.dtype, retrieval: RetrievalConfig
) -> tuple[int, int]:
    """Keys and values of a retrieval cache, and its indexes."""
    heads, stored = shape.heads, stored_as(retrieval, dtype)
    offloaded = n_tokens - retrieval.sink - retrieval.recent
    kind = kind_of(retrieval.index).chosen_for(heads, offloaded, retrieval, stored)
    indexed = kind.bytes_for(heads, n_tokens, retrieval, stored) * shape.full_layers
    # Tokens that are not sealed yet lie in buffers with space to grow.
    waiting = retrieval.sink + 2 * (retrieval.recent + retrieval.segment_tokens(heads.head_dim))
    rows = shape.full_layers * min(n_tokens, waiting)
    rows += shape.sliding_layers * min(n_tokens, shape.sliding_window)
    kv = heads.n_kv_heads * (heads.head_dim + heads.value_dim) * dtype.itemsize * rows
    if retrieval.offload == "disk":
        return kv + indexed.kv_in_memory, indexed.index_in_memory
    return kv + indexed.kv, indexed.index


def check(need: Need, what: str, have: Available | None = None) -> None:
    """Raise `SakuinError` where `need` is more than there is; `what` names the work ("a context of 7,412
    tokens")."""
    have = have or available()
    if need.total <= have.bytes:
        return
    parts = [
        f"{size_of(size)} {name}"
        for name, size in (
            ("for weights", need.weights),
            ("for keys and values", need.kv),
            ("for the index", need.index),
        )
        if size
    ]
    raise SakuinError(
        f"{what} needs about {size_of(need.total)} of memory ({', '.join(parts)}), and {size_of(have.bytes)} "
        f"{have.bound}; take a smaller model or document, or give it more memory."
    )


def tokens_that_fit(
    shape: ModelShape, dtype: torch.dtype, retrieval: RetrievalConfig | None, have: int, weights: int
) -> int:
    """The longest context, in tokens, that takes at most `have` bytes with its model; the model's window is
    not considered. weights : bytes of its weights."""
    low, high = 0, 1 << 30
    while low < high:
        middle = (low + high + 1) // 2
        if estimate(shape, middle, dtype, retrieval, weights=weights).total <= have:
            low = middle
        else:
            high = middle - 1
    return low
