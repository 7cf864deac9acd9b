"""Numbers in ggml's types, and nodes that the library makes, for tests of products."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor

from sakuin.backends.llama_cpp.layouts import ArenaParams
from sakuin.backends.llama_cpp.library import Library, library
from sakuin.index import _native

F32, F16, BF16, Q8_0, Q4_K = 0, 1, 30, 8, 12
TYPES = {
    "f32": F32,
    "f16": F16,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": Q8_0,
    "q2_K": 10,
    "q3_K": 11,
    "q4_K": Q4_K,
    "q5_K": 13,
    "q6_K": 14,
    "iq4_nl": 20,
    "iq4_xs": 23,
    "bf16": BF16,
    "mxfp4": 39,
}
Format = tuple[int, int, int, int]


class _Traits(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("interleave", ctypes.c_int64),
        ("block_bytes", ctypes.c_size_t),
        ("quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float", ctypes.c_void_p),
    )


def format_of(kind: int) -> Format:
    traits = library().bind("ggml_get_type_traits", ctypes.POINTER(_Traits), (ctypes.c_int,))(kind).contents
    return kind, traits.block, traits.block_bytes, traits.to_float or 0


def quantized(weight: Tensor, kind: int) -> Tensor:
    """The rows of a weight, fp32 `(width, depth)`, in a type of ggml, as bytes."""
    if kind == F32:
        return weight.contiguous().view(torch.uint8).flatten().clone()
    _, block, block_bytes, _ = format_of(kind)
    width, depth = weight.shape
    packed = torch.zeros(width * depth // block * block_bytes, dtype=torch.uint8)
    quantize = library().bind(
        "ggml_quantize_chunk",
        ctypes.c_size_t,
        (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p),
    )
    assert quantize(kind, weight.data_ptr(), packed.data_ptr(), 0, width, depth, None) == packed.numel()
    return packed


def unpacked(packed: Tensor, kind: int, n: int) -> Tensor:
    """By ggml's own function, fp32."""
    if kind == F32:
        return packed.view(torch.float32)[:n]
    out = torch.empty(n)
    to_float = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(format_of(kind)[3])
    to_float(packed.data_ptr(), out.data_ptr(), n)
    return out


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(out: Tensor, wanted: Tensor) -> float:
    return ((out - wanted).norm() / wanted.norm()).item()


class Arena:
    """Nodes that the library makes, with memory for their numbers."""

    def __init__(self, given: Library) -> None:
        self.given = given
        self.address = self.call("ggml_init", ArenaParams(64 << 20, None, False))

    def call(self, name: str, *arguments: Any) -> int:
        kinds = tuple(type(a) if isinstance(a, ctypes.Structure | ctypes._SimpleCData) else ctypes.c_void_p
                      for a in arguments)  # fmt: skip
        return int(self.given.bind(name, ctypes.c_void_p, kinds)(*arguments) or 0)

    def tensor(self, kind: int, *ne: int) -> int:
        sizes = (*ne, 1, 1, 1)[:4]
        return self.call(
            "ggml_new_tensor_4d", self.address, ctypes.c_int(kind), *[ctypes.c_int64(n) for n in sizes]
        )

    def holding(self, data: Tensor, kind: int, *ne: int) -> int:
        node = self.tensor(kind, *ne)
        ctypes.memmove(_native.ggml_node(node)["data"], data.data_ptr(), data.nbytes)
        return node

    def numbers(self, node: int) -> Tensor:
        """Of a contiguous fp32 node, slowest dimension first."""
        read = _native.ggml_node(node)
        shape = tuple(reversed(read["ne"]))
        size = functools.reduce(int.__mul__, shape) * 4
        memory = (ctypes.c_char * size).from_address(read["data"])
        return torch.frombuffer(memory, dtype=torch.float32).view(shape).clone()
