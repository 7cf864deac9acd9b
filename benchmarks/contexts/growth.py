"""What growing costs: a context grown from 8K to 32K by appends, against an index built at once.

Three layers of smollm2, all KV heads with groups of 3, resampled to 32K offloaded tokens. They grow by 512
tokens, by 256, which is what decoding seals at a time, and by 48. Errors are those of the whole attention
output, sink and recent window included. *Share* is the time of all appends over the time of as many decode
steps as tokens were appended, where a step is one layer's attention over its offloaded tokens, all KV
heads, and nothing else of the model; both on all threads, each step and append after more memory was read
than a cache holds. In decoding, appends run on a thread of their own beside the model.

Run: python -m benchmarks.contexts.growth [--kinds sketch flat ivf graph] [--layers 2 12 27] [--traces FOLDER]
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any

import torch

from benchmarks.common import argument_parser, command, others, show, write
from benchmarks.shapes import traced
from sakuin import merge
from sakuin.attention.partial import PartialAttention
from sakuin.config import RetrievalConfig
from sakuin.evaluate import Layer, Trace, longer
from sakuin.index import Index, new_index

LENGTH, LAYERS = 7600, (2, 12, 27)
START, TOKENS, STEPS = 8192, 32768, (512, 256, 48)
BETWEEN, TIMED = 1024, 4
"""Every so many tokens so many decode steps are timed."""


class Asked:
    """What is asked of one layer, and the truth."""

    def __init__(self, layer: Layer) -> None:
        kept = torch.tensor(layer.some_asked(16))
        static = layer.static()
        self.layer = replace(layer, asked=layer.asked[:, kept].contiguous())
        self.q = self.layer.asked
        self.static = PartialAttention(static.out[:, kept], static.lse[:, kept].contiguous())
        self.truth = merge([self.static, self.layer.exact()]).out

    def error(self, index: Index) -> tuple[float, float]:
        """Mean error in running text and at the retrieval steps."""
        part = index.attend(self.q, scaling=self.layer.scaling, static_lse=self.static.lse)
        out = merge([self.static, part]).out
        error = (out - self.truth).norm(dim=-1) / self.truth.norm(dim=-1)
        running, retrieval = error.split([error.shape[1] - self.layer.retrieval, self.layer.retrieval], 1)
        return running.mean().item(), retrieval.mean().item()

    def step_s(self, index: Index) -> float:
        """Median time of a step of all KV heads; the positions take turns."""
        times = []
        for i in range(TIMED):
            at = -1 - i * 7 % self.q.shape[1]
            q, beside = (x[:, at, None].contiguous() for x in (self.q, self.static.lse))
            others()
            started = perf_counter()
            index.attend(q, scaling=self.layer.scaling, static_lse=beside)
            times.append(perf_counter() - started)
        return median(times)


def append(index: Index, layer: Layer, start: int, end: int) -> float:
    """Append tokens `start` to `end` with their queries; seconds."""
    first, last = torch.searchsorted(layer.query_positions, torch.tensor([start, end])).tolist()
    queries = layer.queries[:, first:last] if last > first else None
    started = perf_counter()
    index.append(layer.keys[:, start:end], layer.values[:, start:end], queries)
    return perf_counter() - started


def grown(asked: Asked, kind: str, by: int) -> tuple[Index, list[float], list[float]]:
    """An index that grew by appends of `by` tokens, the appends' seconds, and those of steps meanwhile."""
    layer = asked.layer
    heads, _, d = layer.keys.shape
    index = new_index(heads, d, layer.group_size, RetrievalConfig(index=kind))
    segment = index.config.segment_tokens(d)
    for start in range(0, START, segment):
        append(index, layer, start, min(start + segment, START))
    appends, steps, due = [], [], START
    for start in range(START, TOKENS, by):
        if start >= due:
            steps.append(asked.step_s(index))
            due += BETWEEN
        others()
        appends.append(append(index, layer, start, min(start + by, TOKENS)))
    return index, appends, steps


def rows_of(number: int, asked: Asked, kind: str) -> list[dict[str, Any]]:
    once = asked.error(asked.layer.index(kind))
    rows = []
    for by in STEPS:
        index, appends, steps = grown(asked, kind, by)
        error = asked.error(index)
        rows.append(
            {
                "kind": kind,
                "layer": number,
                "by": by,
                "once": once[0],
                "grown": error[0],
                "once_retrieval": once[1],
                "grown_retrieval": error[1],
                "append_ms": 1e3 * fmean(appends),
                "append_median_ms": 1e3 * median(appends),
                "step_ms": 1e3 * fmean(steps),
                "share": math.fsum(appends) / ((TOKENS - START) * fmean(steps)),
            }
        )
    return rows


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--kinds", nargs="+", default=["sketch", "flat", "ivf", "graph"])
    parser.add_argument("--traces", type=Path, help="keep captured traces in this folder")
    parser.add_argument("--layers", nargs="+", type=int, default=list(LAYERS))
    chosen = parser.parse_args()
    trace = traced("smollm2", LENGTH, chosen.traces)
    trace = longer(Trace({number: trace.layers[number] for number in chosen.layers}, trace.about), TOKENS)
    rows = []
    for number, layer in trace.layers.items():
        asked = Asked(layer)
        for kind in chosen.kinds:
            rows += rows_of(number, asked, kind)
            print(f"layer {number}, {kind}", flush=True)
    show(f"Grown from {START:,} to {TOKENS:,} tokens", rows[0], [row.values() for row in rows])
    write("growth", {"command": command(), "start": START, "tokens": TOKENS, "rows": rows})


if __name__ == "__main__":
    main()
