"""How much memory there is, and how much a context will take: stated before the work starts, not found out by
being killed.

Limits of containers (cgroups, both versions) and of the process count, not only the machine's memory. The
estimate needs the model's configuration and a number of tokens, nothing loaded. Called by
`sakuin.context.context`, `sakuin.capacity.doctor` and the command line.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sakuin.backends.shape import ModelShape
from sakuin.config import RetrievalConfig
from sakuin.errors import SakuinError
from sakuin.index import choice
from sakuin.index.graph import COORDINATES, RUN
from sakuin.index.int8 import bytes_per_number
from sakuin.index.ivf import LARGEST
from sakuin.machine.memory import Available, available
from sakuin.quantities import size_of

_KV_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_VALUE_BITS = 4.0
_SUMMARY_BITS = 1.0
"""Bits per dimension of a token's code for its value, and its share of a segment's basis and value
summaries."""


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

    retrieval : the settings of its cache; None is full attention with the ordinary cache. weights : bytes of
    the model's weights that are still to be loaded; 0 where they are loaded.
    """
    size = dtype.itemsize
    stored: float = size
    if retrieval is not None and retrieval.kv_dtype == "int8":
        stored = bytes_per_number(shape.head_dim, retrieval.segment_tokens(shape.head_dim))
    elif retrieval is not None:
        stored = _KV_BYTES.get(retrieval.kv_dtype, size)
    per_layer = shape.n_kv_heads * shape.head_dim
    kv = (
        int(shape.full_layers * n_tokens * stored)
        + shape.sliding_layers * min(n_tokens, shape.sliding_window) * size
    )
    if retrieval is not None:
        # Tokens that are not sealed yet lie in buffers with room to grow.
        waiting = retrieval.sink + 2 * (retrieval.recent + retrieval.segment_tokens(shape.head_dim))
        kv += shape.full_layers * min(n_tokens, waiting) * size
    kv *= 2 * per_layer
    index = 0
    kind = None if retrieval is None else retrieval.index
    if retrieval is not None and kind == "auto":
        offloaded = n_tokens - retrieval.sink - retrieval.recent
        kind = shape.heads.kind(offloaded, retrieval, choice.stored_as(retrieval, dtype))
    if retrieval is None:
        kv += (
            2 * per_layer * n_tokens * size
        )  # the ordinary cache copies a layer's keys and values to append to them
    elif kind == "sketch":
        bits = (
            retrieval.sketch_bits_for(shape.head_dim)
            + retrieval.code_bits_for(shape.head_dim)
            + _VALUE_BITS
            + _SUMMARY_BITS
        )
        index = int(shape.full_layers * n_tokens * per_layer * bits / 8)
    elif kind == "ivf":
        # Of a token: its position; of a list: its start, centroid and mean value; of a segment: where its
        # last list ends, mean and spread.
        d, longest = shape.head_dim, max(retrieval.segment_tokens(shape.head_dim), LARGEST)
        lists, segments = -(-n_tokens // retrieval.list_size), -(-n_tokens // longest)
        head = 4 * n_tokens + (4 + 4 * d) * lists + (4 + 4 * d + 2 * d * d) * segments
        index = shape.full_layers * shape.n_kv_heads * head
    elif kind == "graph":
        # Of a token: links and how many there are, coordinates, a share of its run's mean key and value.
        token = 4 * retrieval.graph_degree + 2 + 2 * COORDINATES + 2 * shape.head_dim * stored / RUN
        index = int(shape.full_layers * n_tokens * shape.n_kv_heads * token)
    if retrieval is not None and retrieval.offload == "disk":
        # In memory stay what every step reads and what waits to be sealed.
        waiting = retrieval.sink + 2 * (retrieval.recent + retrieval.segment_tokens(shape.head_dim))
        kept = shape.full_layers * min(n_tokens, waiting) + shape.sliding_layers * shape.sliding_window
        kv = 2 * per_layer * kept * size
        if kind == "sketch":
            every = retrieval.sketch_bits_for(shape.head_dim) + _SUMMARY_BITS
            index = int(shape.full_layers * n_tokens * per_layer * every / 8)
    rows = min(chunk, n_tokens)
    wide = 6 * shape.hidden + 3 * shape.intermediate + 4 * shape.n_query_heads * shape.head_dim
    working = rows * wide * max(size, 4) + shape.vocabulary * 8 + (128 << 20)
    return Need(weights, kv, index, working)


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
