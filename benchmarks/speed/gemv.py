"""How fast are products of a quantized weight with a few rows, as a step of decode needs them?

sakuin's kernels run beside llama.cpp's own on the same memory, and beside what reading that memory takes.

A weight of 96 million numbers, as long as a model's larger ones, lies in memory once for each type, with any
codes; it is read from memory each time, since the others were read between. Rows are 1, as one sequence
decodes, 4, 8 and 16. llama.cpp computes a graph of one node on as many threads.

Run: python -m benchmarks.speed.gemv
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import argument_parser, bandwidth, command, console, median_ms, others, show, write
from sakuin.backends.llama_cpp.layouts import ArenaParams
from sakuin.backends.llama_cpp.library import library
from sakuin.index import _native

TYPES = {"q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "q4_K": 12, "q5_K": 13, "q6_K": 14}
NUMBERS, ROWS, REPEATS = 96 << 20, (1, 4, 8, 16), 9
_POINTER = ctypes.c_void_p


class Traits(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("interleave", ctypes.c_int64),
        ("block_bytes", ctypes.c_size_t),
        ("quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float", ctypes.c_void_p),
    )


def main() -> None:
    argument_parser(__doc__).parse_args()
    if not _native.gemv_kernels():
        console.print("sakuin has no products in 8 bits for this CPU: AVX-512 with VNNI is needed")
        return
    rate = bandwidth()
    results = [row for name in TYPES for row in measured(name, rate)]
    show("Products of a few rows", results[0], [row.values() for row in results])
    kernels = _native.gemv_kernels()[0]
    found = {
        "command": command(),
        "kernels": kernels,
        "library": str(library().found),
        "bytes_per_s": rate,
        "rows": results,
    }
    write(f"gemv-{kernels}", found)


def measured(name: str, rate: float) -> list[dict[str, Any]]:
    """A row of the result for each number of rows of x."""
    kind = TYPES[name]
    traits = library().bind("ggml_get_type_traits", ctypes.POINTER(Traits), (ctypes.c_int,))(kind).contents
    depth = 896 if traits.block == 32 else 4864
    width = NUMBERS // depth
    # Small scales, wherever they lie in a block: sums stay numbers.
    codes = torch.randint(0, 256, (width * depth // traits.block * traits.block_bytes,), dtype=torch.uint8)
    codes &= 0x3B
    shape = (kind, traits.block, traits.block_bytes, traits.to_float or 0)
    gemv, threads, rows = _native.GgmlGemv(), torch.get_num_threads(), []
    for n in ROWS:
        x, out = torch.randn(n, depth), torch.empty(n, width)

        def ours(x: Tensor = x, out: Tensor = out) -> None:
            gemv.multiply(x, codes.data_ptr(), shape, out, n_threads=threads)

        theirs, free = _graph(kind, codes, x, width, threads)
        ours_ms, theirs_ms = _in_turn(ours, theirs)
        free()
        rows.append(
            {
                "type": name,
                "rows": n,
                "ours_ms": ours_ms,
                "llama_cpp_ms": theirs_ms,
                "ratio": theirs_ms / ours_ms,
                "of_reading": codes.numel() / rate / ours_ms * 1e3,
            }
        )
    return rows


def _in_turn(ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[float, float]:
    return tuple(median_ms(run, REPEATS, 2, others)[0] for run in (ours, theirs))  # type: ignore[return-value]


def _graph(
    kind: int, codes: Tensor, x: Tensor, width: int, threads: int
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """What computes the product by llama.cpp, and what frees its memory."""
    size = codes.numel() + x.nbytes + 4 * width * len(x) + (64 << 20)
    arena = _call("ggml_init", ArenaParams(size, None, False))
    w = _tensor(arena, kind, x.shape[1], width)
    given = _tensor(arena, 0, x.shape[1], len(x))
    for node, data in ((w, codes), (given, x)):
        ctypes.memmove(_native.ggml_node(node)["data"], data.data_ptr(), data.nbytes)
    graph = _call("ggml_new_graph", arena)
    _call("ggml_build_forward_expand", graph, _call("ggml_mul_mat", arena, w, given))
    compute = library().bind("ggml_graph_compute_with_ctx", ctypes.c_int, (_POINTER, _POINTER, ctypes.c_int))
    return lambda: compute(arena, graph, threads), lambda: _call("ggml_free", arena)


def _tensor(arena: int, kind: int, *sizes: int) -> int:
    return _call("ggml_new_tensor_2d", arena, ctypes.c_int(kind), *[ctypes.c_int64(n) for n in sizes])


def _call(name: str, *arguments: Any) -> int:
    kinds = tuple(
        type(each) if isinstance(each, ctypes.Structure | ctypes._SimpleCData) else _POINTER
        for each in arguments
    )
    return int(library().bind(name, _POINTER, kinds)(*arguments) or 0)


if __name__ == "__main__":
    main()
