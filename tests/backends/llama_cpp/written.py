"""GGUF files of a header and a few small tensors, for tests of what is read before the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFValueType, GGUFWriter

SIZES = {
    "block_count": 2,
    "context_length": 4096,
    "embedding_length": 64,
    "feed_forward_length": 128,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
}
"""What every file states of its architecture unless a test says otherwise; None leaves a key out."""

TENSORS = ("token_embd.weight", "blk.0.attn_norm.weight", "blk.1.attn_norm.weight")


def written(
    path: Path,
    architecture: str = "llama",
    tensors: Sequence[str] = TENSORS,
    general: dict[str, Any] | None = None,
    **own: Any,
) -> Path:
    """Write a file.

    general : metadata by whole keys. own : metadata of the architecture, `__` for a dot.
    """
    writer = GGUFWriter(path, architecture)
    values = dict(general or {})
    stated = SIZES | {key.replace("__", "."): value for key, value in own.items()}
    values |= {f"{architecture}.{key}": value for key, value in stated.items()}
    for key, value in values.items():
        if value is not None:
            _add(writer, key, value)
    tokens = len(values.get("tokenizer.ggml.tokens") or range(96))
    for name in tensors:
        shape = (tokens, 64) if name == "token_embd.weight" else (64,)
        writer.add_tensor(name, np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, np.generic):
        writer.add_key_value(key, value.item(), GGUFValueType.UINT16)
    else:
        writer.add_array(key, value)
