"""How close `flat` comes to the machine's roofs.

For each dtype, head_dim and query group: the time of one decode step of one KV head over 128K tokens, beside
two roofs of the same run, on the same memory and threads: reading the keys and values once, and the
multiply-adds in registers at the instruction set's fp32 rate. The slower roof is the bound, and `share` is
bound / time. Roofs and kernel take turns, round by round, so that a busy neighbour slows both; medians are
reported, and beside them the shortest times, which say what the kernel can do where the machine is not quiet.

Run: python -m benchmarks.speed.kernels [--isa ISA] [--threads N] [--tokens N] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from benchmarks.common import argument_parser, command, console, show, write
from sakuin.index import _native

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}


def measure(dtype: torch.dtype, head_dim: int, group: int, args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of `flat`, of reading its keys and values, and of its multiply-adds."""
    # One buffer for keys and values, so that the read roof covers the same memory.
    memory = torch.randn(2 * args.tokens * head_dim, dtype=torch.float32).to(dtype)
    keys, values = memory.view(2, 1, args.tokens, head_dim)
    span = _native.Span(keys, values)
    q = torch.randn(group, 1, head_dim).to(dtype)
    multiply_adds = 2 * args.tokens * head_dim * group

    def step() -> float:
        start = time.perf_counter()
        _native.flat_attend(q, [span], head_dim**-0.5, args.threads, isa=args.isa)
        return time.perf_counter() - start

    step()
    rounds = []
    for _ in range(args.rounds):
        read = memory.nbytes / _native.read_rate(memory, args.threads, args.isa)
        compute = multiply_adds / _native.multiply_add_rate(args.threads, args.isa)
        rounds.append((1e3 * step(), 1e3 * read, 1e3 * compute))
    flat, read, compute = (statistics.median(column) for column in zip(*rounds, strict=True))
    best, best_read, best_compute = (min(column) for column in zip(*rounds, strict=True))
    return {
        "flat_ms": flat,
        "read_ms": read,
        "multiply_add_ms": compute,
        "share": max(read, compute) / flat,
        "best_ms": best,
        "best_share": max(best_read, best_compute) / best,
    }


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--isa", default=_native.isa(), choices=_native.isas())
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--head-dims", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--groups", nargs="+", type=int, default=[1, 3, 4, 7])
    args = parser.parse_args()

    rows = [
        {
            "dtype": dtype,
            "head_dim": head_dim,
            "group": group,
            **measure(DTYPES[dtype], head_dim, group, args),
        }
        for dtype in args.dtypes
        for head_dim in args.head_dims
        for group in args.groups
    ]
    title = f"flat, {args.tokens} tokens of one KV head, {args.isa}, {args.threads} threads"
    show(title, rows[0], [row.values() for row in rows])
    console.print()
    write(
        f"kernels-{args.isa}",
        {
            "command": command(),
            "isa": args.isa,
            "threads": args.threads,
            "tokens": args.tokens,
            "rounds": args.rounds,
            "flat": rows,
        },
    )


if __name__ == "__main__":
    main()
