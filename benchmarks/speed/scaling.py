"""One attention step as the context grows: 128K, 512K and 1M offloaded tokens, one KV head for its whole
query group, `sketch` against `flat` and against the floor, the time to read keys and values once in bf16 at
the bandwidth measured in the same run. No full attention can be faster than that.

Keys, values and queries are those of real models (benchmarks/shapes.py), resampled; head_dim 128 is made of
two KV heads of smollm2. `fact_mass` is what the planted fact's tokens get of the attention at the retrieval
steps as captured. Each step comes after 256 MiB of other memory were read and a step over a few thousand
other tokens was done: where a model comes back to a layer its data are cold and its code is warm. Running
text and retrieval steps stand apart. Errors are those of the whole attention output, sink and recent window
included.

Run: python -m benchmarks.speed.scaling [--shapes d64 d128 d256] [--tokens 131072 524288 1048576]
     [--traces FOLDER]
SAKUIN_ISA=avx2 forces lower kernels. Takes 5 GiB at 1M tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any

import torch

from benchmarks.common import argument_parser, bandwidth, cold, command, show, write
from benchmarks.shapes import HEADS_128, Steps, fact_mass, paired, traced
from sakuin import build_index
from sakuin.evaluate import Layer, Trace, longer
from sakuin.index import _native

TOKENS = (131072, 524288, 1048576)
ROUNDS, TIMED = 3, 8
FEW = 4096
SDPA_UP_TO = 131072


Heads = tuple[tuple[int, int], ...]
"""Layer and KV head; two of them that stand side by side for head_dim 128."""


@dataclass(frozen=True)
class Shape:
    """A group of query heads, and the KV heads of a model's trace that are measured."""

    model: str
    length: int
    group: int
    heads: tuple[Heads, ...]


SHAPES = {
    "d64": Shape("smollm2", 7600, 7, tuple(((number, 1),) for number in (2, 12, 17, 27))),
    "d128": Shape("smollm2", 7600, 4, HEADS_128),
    "d256": Shape("gemma3-270m", 32768, 4, tuple(((number, 0),) for number in (5, 11, 17))),
}


def layer_of(trace: Trace, heads: Heads) -> Layer:
    if len(heads) == 2:
        return paired(trace, heads)
    ((number, head),) = heads
    return trace.layers[number].head(head)


def step_ms(run: Any, t: int, code: Any) -> list[float]:
    """Times of some of t steps in milliseconds, each with cold data; `code` runs the same over a few other
    tokens."""
    times, between = [], cold(code)
    for i in range(TIMED):
        at = (t - 1 - i * 7) % t  # retrieval steps, which are the last, and running text
        between()
        started = perf_counter()
        run(at)
        times.append((perf_counter() - started) * 1e3)
    return times


def measured(steps: Steps, with_sdpa: bool) -> dict[str, Any]:
    """Errors, share and times of one layer's head."""
    layer, threads = steps.layer, torch.get_num_threads()
    started = perf_counter()
    index = layer.index("sketch")
    build_s = perf_counter() - started
    part = index.attend(layer.asked, scaling=layer.scaling, static_lse=steps.static.lse)
    errors, t = steps.errors(part), layer.asked.shape[1]
    assert part.stats is not None

    queries, besides = (
        [x[:, at : at + 1].contiguous() for at in range(t)] for x in (layer.asked, steps.static.lse)
    )

    # By the number of tokens: all, or a few.
    few = tuple(x[:, :FEW].clone() for x in (layer.keys, layer.values))
    kv = {False: (layer.keys, layer.values), True: few}
    indexes = {False: index, True: build_index("sketch", *few, queries=layer.queries[:, :FEW])}

    def sketch(at: int, small: bool = False) -> None:
        indexes[small].attend(queries[at], scaling=layer.scaling, static_lse=besides[at])

    def flat(at: int, small: bool = False) -> None:
        _native.flat_attend(queries[at], [kv[small]], layer.scaling, threads)

    methods: dict[str, Callable[..., None]] = {"sketch": sketch, "flat": flat}
    if with_sdpa:
        in_f32 = {small: tuple(x[None].float() for x in pair) for small, pair in kv.items()}

        def sdpa(as_heads: bool, at: int, small: bool = False) -> None:
            q, group = queries[at], len(queries[at])
            q = q.view((1, group, 1, -1) if as_heads else (1, 1, group, -1))
            k, v = (x.expand(-1, q.shape[1], -1, -1) for x in in_f32[small])
            torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=layer.scaling)

        methods["sdpa_heads"] = partial(sdpa, True)
        methods["sdpa_positions"] = partial(sdpa, False)
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(ROUNDS):  # in turns, so that what else the machine does falls on all
        for name, run in methods.items():
            times[name] += step_ms(run, t, partial(run, 0, small=True))
    running, retrieval = errors[:, : t - steps.retrieval], errors[:, t - steps.retrieval :]
    row = {
        "running": running.mean().item(),
        "retrieval": retrieval.mean().item(),
        "worst_head": errors.mean(1).max().item(),
        "worst_step": retrieval.mean(0).max().item(),
        "touched_share": part.stats.touched_share,
        "build_s": build_s,
    }
    for name, found in times.items():
        row[f"{name}_ms"], row[f"{name}_best_ms"] = median(found), min(found)
    return row


def summary(rows: list[dict[str, Any]], rate: float) -> dict[str, Any]:
    """Means over the layers, the worst of the worst, and the ratios."""
    worst = {"worst_head", "worst_step"}
    names = [name for name in rows[0] if name not in ("heads", "tokens", "head_dim", "fact_mass")]
    found = {name: (max if name in worst else fmean)(row[name] for row in rows) for name in names}
    floor = 4e3 * rows[0]["tokens"] * rows[0]["head_dim"] / rate
    found["floor_ms"] = floor
    found["floor_over_sketch"] = floor / found["sketch_ms"]
    found["flat_over_sketch"] = found["flat_ms"] / found["sketch_ms"]
    if "sdpa_heads_ms" in found:
        sdpa = min(found["sdpa_heads_ms"], found["sdpa_positions_ms"])  # whichever way is faster
        found |= {"sdpa_ms": sdpa, "sdpa_over_sketch": sdpa / found["sketch_ms"]}
    return found


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--tokens", nargs="+", type=int, default=list(TOKENS))
    parser.add_argument("--traces", type=Path, help="keep captured traces in this folder")
    chosen = parser.parse_args()
    results = []
    for name in chosen.shapes:
        shape = SHAPES[name]
        trace = traced(shape.model, shape.length, chosen.traces)
        for tokens in chosen.tokens:
            rows, rate = [], 0.0
            for heads in shape.heads:
                captured = layer_of(trace, heads)
                number, d = heads[0][0], captured.keys.shape[2]
                layer = longer(Trace({number: captured}, trace.about), tokens).layers[number]
                steps = Steps.of(layer, shape.group)
                rate = max(rate, bandwidth())
                row = measured(steps, tokens <= SDPA_UP_TO)
                mass = fact_mass(captured, trace.about)
                rows.append({"heads": heads, "tokens": tokens, "head_dim": d, "fact_mass": mass, **row})
                print(f"{name}, {tokens:,} tokens, {heads}", flush=True)
                del layer, steps  # before the next is made
            results.append(
                {
                    "shape": name,
                    "head_dim": rows[0]["head_dim"],
                    "group": shape.group,
                    "tokens": tokens,
                    "bytes_per_s": rate,
                    **summary(rows, rate),
                    "heads": rows,
                }
            )
    columns = ("shape", "tokens", "running", "retrieval", "worst_step", "touched_share", "floor_ms")
    columns += ("flat_ms", "sketch_ms", "floor_over_sketch", "flat_over_sketch")
    show("One step of one KV head", columns, ([row[c] for c in columns] for row in results))
    write(
        f"scaling-{_native.isa()}",
        {
            "command": command(),
            "d128": "keys, values and queries of two KV heads of smollm2 side by side (benchmarks/shapes.py)",
            "results": results,
        },
    )


if __name__ == "__main__":
    main()
