"""How fast this machine multiplies matrices, and how many multiplications a prefill takes."""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import Any

import torch

from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.shape import ModelShape
from sakuin.machine.devices import resolve_dtype

SIZES = ((2048, 1024, 4096), (2048, 4096, 1024), (2048, 2048, 2048), (4096, 4096, 4096))
"""Rows, depth and columns of products, as prefill has them."""
REPEATS = 5
_OUTPUT = ("output.weight", "token_embd.weight")
"""Of logits, which prefill computes for one token of a pass."""


class Rate:
    """The runner of the child that measures the rate."""

    def __init__(self, threads: int | None = None) -> None:
        if threads:
            torch.set_num_threads(threads)

    def measure(self) -> dict[str, Any]:
        """The dtype that attention and prefill compute in, and floating-point operations a second: of the
        size that is fastest, the median of five."""
        dtype = resolve_dtype("auto", "cpu")
        rates = [_rate(dtype, *size) for size in SIZES]
        return {"dtype": str(dtype).removeprefix("torch."), "flops_per_s": max(rates)}


def _rate(dtype: torch.dtype, rows: int, depth: int, columns: int) -> float:
    left, right = torch.randn(rows, depth).to(dtype), torch.randn(columns, depth).to(dtype)
    times = []
    for _ in range(REPEATS + 2):
        start = perf_counter()
        torch.nn.functional.linear(left, right)
        times.append(perf_counter() - start)
    return 2 * rows * depth * columns / median(times[2:])


def flops(header: Header, shape: ModelShape, tokens: int) -> dict[str, float]:
    """Floating-point operations of reading a text: `products` with the weights, and `attention` of the layers
    that attend to everything, where a position sees itself and those before it."""
    weights = sum(
        tensor.n_elements
        for tensor in header.tensors
        if tensor.name.endswith(".weight") and len(tensor.shape) > 1 and tensor.name not in _OUTPUT
    )
    pairs = tokens * (tokens + 1) / 2
    of_a_layer = 4 * shape.n_query_heads * shape.head_dim * pairs
    return {"products": 2.0 * weights * tokens, "attention": shape.full_layers * of_a_layer}
