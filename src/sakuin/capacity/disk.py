"""How much disk a context will take, from its model's shape and its number of tokens.

docs/format.md has the tensors that are counted here. Called before documents are read or a conversation
begins. What is then written is checked once more, file by file.
"""

from __future__ import annotations

import torch

from sakuin.backends.shape import ModelShape
from sakuin.cache.sequence import QUERY_STEP
from sakuin.config import RetrievalConfig
from sakuin.index.choice import stored_as
from sakuin.index.kind import kind_of
from sakuin.snapshot.parts import checkpoint_step

_TENSOR = 256
"""Of a tensor's name in the header and the gap before its data."""
_FILE = 3 * 4096


def stored_bytes(
    shape: ModelShape, dtype: torch.dtype, config: RetrievalConfig, n_tokens: int, done: int = 0
) -> int:
    """Bytes of the files of a context of `n_tokens` tokens, from above by a few percent, of which the parts
    up to `done` are there already. dtype : of the model's keys and values.

    States of linear attention are left out: their size is not known here.
    """
    heads, size = shape.heads, dtype.itemsize
    d, n_kv, pair = heads.head_dim, heads.n_kv_heads, heads.head_dim + heads.value_dim
    tail = min(n_tokens, config.recent + QUERY_STEP)
    sink = 0 if done else min(n_tokens, config.sink)
    rows = n_kv * pair * size * (tail + sink)
    queries = heads.group_size * n_kv * (tail // QUERY_STEP + 1) * d * size
    moment = 8 * n_kv * d * d
    total = shape.full_layers * (rows + queries + moment + 16 * _TENSOR) + 2 * _FILE
    total += _sealed(shape, dtype, config, n_tokens, done)
    if shape.has_windows:
        windows = (n_tokens - done) // checkpoint_step(config, d) + 1
        window = n_kv * pair * size * min(n_tokens, shape.sliding_window) + 2 * _TENSOR
        total += windows * (shape.sliding_layers * window + _FILE)
    # The manifest: 16 bytes a token and the text, while the unfinished one is there too.
    return total + 40 * n_tokens


def _sealed(shape: ModelShape, dtype: torch.dtype, config: RetrievalConfig, n_tokens: int, done: int) -> int:
    """Bytes of the files of the segments."""
    sealed = max(n_tokens - max(done, config.sink) - config.recent, 0)
    if not sealed:
        return 0
    heads, stored = shape.heads, stored_as(config, dtype)
    offloaded = n_tokens - config.sink - config.recent
    kind = kind_of(config.index).chosen_for(heads, offloaded, config, stored)
    held = kind.bytes_for(heads, sealed, config, stored)
    # What was sealed at the end of a pass may lie in a segment or two of its own.
    held += kind.bytes_for(heads, 1, config, stored) * 2
    return shape.full_layers * (held.total + held.tensors * _TENSOR) + held.segments * _FILE
