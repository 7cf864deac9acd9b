"""Keys and values in 8 bits: which way of rounding costs least, and what `kv_dtype="int8"` costs an index
and a model.

Three tables. Ways of rounding, by exact attention over the rounded keys or values of a real trace of smollm2;
the last of them with 100 added to two channels of every key, which changes no softmax. `flat` and `sketch`
with and without int8, on the trace and on a longer one resampled from it (one KV head a layer). The next
token of smollm2 (as `sakuin eval fidelity` measures it).

Run: python -m benchmarks.method.kv_int8 [--trace T] [--length 7600] [--tokens 131072] [--context 3000]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import argument_parser, command, console, load, show, write
from sakuin import RetrievalConfig, build_index, merge
from sakuin.attention.partial import PartialAttention
from sakuin.config import SEGMENT_PER_DIM
from sakuin.evaluate import Layer, Method, PlantedText, Trace, capture, compare, longer
from sakuin.evaluate.prefilled import Prefilled

METHODS = [
    Method(f"{kind}{' in int8' if dtype == 'int8' else ''}", kind, {"kv_dtype": dtype})
    for kind in ("flat", "sketch")
    for dtype in ("auto", "int8")
]
EVERY = 8
MOVED = 100.0
DECODED = 200
"""Tokens of the next-token table: the last of the text, the question and its answer among them."""
Round = Callable[[Tensor], Tensor]


def rounded(x: Tensor, dim: int, zero: str) -> Tensor:
    """`x` to the nearest of 255 steps, whose size is set for each index of the other dimensions."""
    low, high = x.amin(dim, keepdim=True), x.amax(dim, keepdim=True)
    middle = {"none": torch.zeros_like(low), "middle": (low + high) / 2, "mean": x.mean(dim, keepdim=True)}[
        zero
    ]
    step = ((x - middle).abs().amax(dim, keepdim=True) / 127).clamp(min=1e-30)
    return ((x - middle) / step).round() * step + middle


def by_segment(step: int, way: Round, grown_by: int | None = None) -> Round:
    """`way` for each segment of `step` tokens, which may have grown from runs of `grown_by`."""

    def apply(x: Tensor) -> Tensor:
        done: list[Tensor] = []
        for run in x.split(grown_by or step, 1):
            while done and done[-1].shape[1] <= run.shape[1] and done[-1].shape[1] + run.shape[1] <= step:
                run = torch.cat([done.pop(), run], 1)
            done.append(way(run))
        return torch.cat(done, 1)

    return apply


def ways(head_dim: int) -> Iterator[tuple[str, Round, Round]]:
    """Name, what is done to keys, what is done to values."""
    segment = SEGMENT_PER_DIM * head_dim

    def same(x: Tensor) -> Tensor:
        return x

    def token(x: Tensor) -> Tensor:
        return rounded(x, 2, "none")

    zeros = {"none": "no zero", "middle": "zero in the middle", "mean": "zero at the mean"}
    channel = {zero: by_segment(segment, lambda x, z=zero: rounded(x, 1, z)) for zero in zeros}
    for zero, words in zeros.items():
        yield f"keys by channel, {words}", channel[zero], same
    yield "keys by token", token, same
    for zero in ("none", "middle"):
        yield f"values by channel, {zeros[zero]}", same, channel[zero]
    yield "values by token", same, token
    yield "values by token, zero in the middle", same, lambda x: rounded(x, 2, "middle")
    yield "both, as kv_dtype='int8' does", channel["middle"], token
    for n in (256, 8):
        middle = by_segment(segment, lambda x: rounded(x, 1, "middle"), n)
        yield f"both, grown by {n} tokens", middle, by_segment(segment, token, n)
    yield "both in 8-bit floats (e4m3)", *[lambda x: x.to(torch.float8_e4m3fn).float()] * 2


def rounding_errors(trace: Trace) -> list[dict[str, Any]]:
    cases = []
    for layer in trace.layers.values():
        kept = torch.tensor(layer.some_asked(EVERY))
        whole = layer.static()
        static = PartialAttention(whole.out[:, kept], whole.lse[:, kept])
        layer = replace(
            layer, asked=layer.asked[:, kept], keys=layer.keys.float(), values=layer.values.float()
        )
        cases.append((layer, static, merge([static, layer.exact()]).out))
    d = cases[0][0].keys.shape[2]
    rows = [measured(cases, name, keys, values) for name, keys, values in ways(d)]
    for layer, static, _ in cases:
        layer.keys[:, :, [d // 2 - 1, d - 1]] += MOVED
        static.lse += layer.scaling * MOVED * (layer.asked[:, :, d // 2 - 1] + layer.asked[:, :, d - 1])
    for name, keys, values in list(ways(d))[:4]:
        rows.append(measured(cases, f"{name}; two channels moved", keys, values))
    return [
        *rows,
        measured(cases, "keys in bf16; two channels moved", lambda x: x.bfloat16().float(), lambda x: x),
    ]


def measured(
    cases: list[tuple[Layer, PartialAttention, Tensor]], name: str, keys: Round, values: Round
) -> dict[str, Any]:
    found = []
    for layer, static, truth in cases:
        changed = replace(layer, keys=keys(layer.keys), values=values(layer.values))
        out = merge([static, changed.exact()]).out
        found.append((out - truth).norm(dim=-1) / truth.norm(dim=-1))
    steps = cases[0][0].retrieval
    return {
        "way": name,
        "running": torch.stack([e[:, :-steps].mean() for e in found]).mean().item(),
        "retrieval": torch.stack([e[:, -steps:].mean() for e in found]).mean().item(),
        "worst_head": max(e.mean(1).max().item() for e in found),
    }


def index_rows(trace: Trace) -> list[dict[str, Any]]:
    layer = next(iter(trace.layers.values()))
    rows = []
    for method, row in zip(METHODS, compare(trace, METHODS), strict=True):
        index = build_index(method.kind, layer.keys, layer.values, queries=layer.queries, **method.knobs)
        in_bf16 = 4 * layer.keys.numel()
        figures = asdict(row)
        for name in ("step_ms", "floor_ms", "build_s", "memory_share"):
            del figures[name]
        bytes_ = {"kv_bytes": index.kv_bytes / in_bf16, "nbytes": index.nbytes / in_bf16}
        rows.append({"tokens": index.n_tokens, **figures, **bytes_})
    return rows


def next_token(context: int) -> list[dict[str, Any]]:
    model, tokenizer = load("smollm2", "fp32")
    ids = PlantedText.make(tokenizer, context).ids
    read, last = Prefilled.read(model, ids[:-DECODED]), ids[-DECODED:]
    truth = read.log_probabilities(read.full_cache(), last)
    rows = []
    for method in METHODS:
        cache = read.retrieval_cache(RetrievalConfig(index=method.kind, **method.knobs))
        kl = (truth.exp() * (truth - read.log_probabilities(cache, last))).sum(-1)
        figures = {"kl_mean": kl.mean().item(), "kl_worst": kl.max().item()}
        figures["touched"] = cache.stats()["touched_share"]
        rows.append({"method": method.name, "context": context, **figures})
        console.print(rows[-1])
    return rows


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--trace", help="a trace file instead of one that is captured now")
    parser.add_argument("--length", type=int, default=7600)
    parser.add_argument("--tokens", type=int, default=131072, help="offloaded tokens of the resampled trace")
    parser.add_argument(
        "--context", type=int, default=3000, help="tokens for the next-token table; 0: leave it out"
    )
    chosen = parser.parse_args()
    trace = Trace.load(chosen.trace) if chosen.trace else capture(*load("smollm2", "fp32"), chosen.length)
    one_head = Trace({number: layer.head(0) for number, layer in trace.layers.items()}, trace.about)
    tables = {
        "rounding": rounding_errors(trace),
        "indexes": index_rows(trace) + index_rows(longer(one_head, chosen.tokens)),
        "next_token": next_token(chosen.context) if chosen.context else [],
    }
    for title, rows in tables.items():
        if rows:
            show(title, rows[0], [row.values() for row in rows])
    write("kv_int8", {"command": command(), **tables})


if __name__ == "__main__":
    main()
