"""How many bytes tokens take in an index, from the tensors that its segments are made of.

A kind says which tensors a segment of n tokens has (`Index.layout`). It makes its segments by that, and all
sizes follow from it: what a context takes in memory and on disk is known before it is read.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from sakuin.dtypes import torch_dtype

Layout = Mapping[str, tuple[Sequence[int], torch.dtype]]
"""Shape and dtype of each tensor of a segment, by name."""

KV = ("keys", "values", "value_scale", "key_scale", "key_zero")
"""Names of the tensors that hold keys and values, scales included; all others are the index."""


@dataclass(frozen=True)
class Size:
    """Bytes that tokens take in one layer.

    kv : keys and values as they are stored, scales included. index : all else that is stored with them.
    kv_in_memory, index_in_memory : of these, what stays in memory with `offload="disk"`.
    segments : in how many segments the tokens lie. tensors : of all of these.
    """

    kv: int = 0
    index: int = 0
    kv_in_memory: int = 0
    index_in_memory: int = 0
    segments: int = 0
    tensors: int = 0

    @property
    def total(self) -> int:
        """Keys, values and index."""
        return self.kv + self.index

    def __add__(self, other: Size) -> Size:
        return Size(*(mine + theirs for mine, theirs in zip(_numbers(self), _numbers(other), strict=True)))

    def __mul__(self, times: int) -> Size:
        return Size(*(number * times for number in _numbers(self)))


def size_of(layout: Layout, rows: Collection[str]) -> Size:
    """The size of one segment. rows : the tensors that lie on disk with `offload="disk"`."""
    bytes_of = {name: math.prod(shape) * dtype.itemsize for name, (shape, dtype) in layout.items()}

    def total(of_kv: bool, in_memory: bool) -> int:
        return sum(
            size
            for name, size in bytes_of.items()
            if (name in KV) == of_kv and not (in_memory and name in rows)
        )

    return Size(
        total(True, False), total(False, False), total(True, True), total(False, True), 1, len(bytes_of)
    )


def pair_layout(
    n_kv_heads: int, n_tokens: int, head_dim: int, stored: str, value_dim: int | None = None
) -> Layout:
    """Keys and values of a segment as `sakuin.index.int8` or another dtype stores them, scales included.

    stored : `"bf16"`, `"fp16"`, `"fp32"` or `"int8"`. value_dim : dimensions of a value; None: as of a key.
    """
    keys = n_kv_heads, n_tokens, head_dim
    values = n_kv_heads, n_tokens, head_dim if value_dim is None else value_dim
    if (dtype := torch_dtype(stored)) is not None:
        return {"keys": (keys, dtype), "values": (values, dtype)}
    fp32 = torch.float32
    return {
        "keys": (keys, torch.int8),
        "values": (values, torch.int8),
        "key_scale": ((n_kv_heads, head_dim), fp32),
        "key_zero": ((n_kv_heads, head_dim), fp32),
        "value_scale": ((n_kv_heads, n_tokens), fp32),
    }


def _numbers(size: Size) -> tuple[int, ...]:
    return size.kv, size.index, size.kv_in_memory, size.index_in_memory, size.segments, size.tensors
