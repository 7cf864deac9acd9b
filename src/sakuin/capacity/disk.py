"""How much disk a context will take, from its model's configuration and its number of tokens.

docs/format.md has the tensors that are counted here. Called before documents are read or a
conversation begins; what is then written is checked once more, file by file.
"""

from __future__ import annotations

import torch

from sakuin.backends.shape import ModelShape
from sakuin.cache.sequence import QUERY_STEP
from sakuin.config import RetrievalConfig
from sakuin.index import choice
from sakuin.snapshot.parts import checkpoint_step

_TENSOR = 256
"""Of a tensor's name in the header and the gap before its data."""
_FILE = 3 * 4096
_TENSORS = {"sketch": 24, "ivf": 12, "flat": 5}
_LIST = 64
_STORED = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}


def stored_bytes(
    shape: ModelShape, dtype: torch.dtype, config: RetrievalConfig, n_tokens: int, done: int = 0
) -> int:
    """Bytes of the files of a context of `n_tokens` tokens, from above by a few percent, of which the parts
    up to `done` are there already. States of linear attention are left out: their size is not known here."""
    layers, heads = shape.full_layers, shape.heads
    d, n_kv, size = heads.head_dim, heads.n_kv_heads, dtype.itemsize
    tail = min(n_tokens, config.recent + QUERY_STEP)
    sink = 0 if done else min(n_tokens, config.sink)
    sealed = max(n_tokens - max(done, config.sink) - config.recent, 0)
    pair = 2 * n_kv * d
    total = layers * pair * size * (tail + sink)
    queries = heads.group_size * n_kv * (tail // QUERY_STEP + 1) * d * size
    total += layers * (queries + 8 * n_kv * d * d + 16 * _TENSOR) + 2 * _FILE
    if sealed:
        kind = config.index
        if kind == "auto":
            kind = heads.kind(n_tokens - config.sink - config.recent, config, choice.stored_as(config, dtype))
        segments = sealed // config.segment_tokens(d) + 2
        numbers = pair * _STORED.get(config.kv_dtype, size)
        once = 0
        if config.kv_dtype == "int8":
            numbers += 4 * n_kv
            once += 8 * d
        token, more = _of_index(kind, d, config)
        once += more
        total += layers * (sealed * (numbers + int(n_kv * token)) + segments * n_kv * once)
        total += segments * (layers * _TENSORS.get(kind, 24) * _TENSOR + _FILE)
    if shape.has_windows:
        windows = (n_tokens - done) // checkpoint_step(config, d) + 1
        kept = shape.sliding_layers * (pair * size * min(n_tokens, shape.sliding_window) + 2 * _TENSOR)
        total += windows * (kept + _FILE)
    # The manifest: 16 bytes a token and the text, while the unfinished one is there too.
    return total + 40 * n_tokens


def _of_index(kind: str, d: int, config: RetrievalConfig) -> tuple[float, int]:
    """Bytes that an index takes for a token and for a segment, of a KV head."""
    if kind == "sketch":
        chunks = -(-d // 16)
        subs = 4 * -(-int(config.sketch_bits_for(d) * d) // 16)
        codes = 4 * -(-int(config.code_bits_for(d) * d) // 32)
        each_list = 32 * subs + 32 + 8 * chunks + 4
        token = 2 + codes + 8 * chunks + 4 + each_list / _LIST
        # One list may not be full.
        return token, each_list + 12 * subs + 20 * d + 24 + 96 * chunks + 2 * min(d, 16) * d + 6 * d * d
    if kind == "ivf":
        each_list = 4 + 4 * d
        return 4 + each_list / config.list_size, 8 * each_list + 4 * d + 6 * d * d
    return 0.0, 0
