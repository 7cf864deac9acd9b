"""One decode step of `sketch` against `flat`: one KV head for its whole query group, 128K keys, d = 64, group
of 7.

Keys, values and queries are smollm2's own over real text with a planted fact, of four layers, resampled to
128K offloaded tokens (`sakuin.evaluate.longer`). A group of 7 is made of the query heads of one KV head at
three neighbouring positions, once where the model answers the question about the fact and once in running
text. Beside medians stand the shortest times, which a busy neighbour touches least, and those of steps with
nothing between them (*warm*). The error is that of the whole attention output, sink and recent window
included.

Run: python -m benchmarks.speed.sketch_step [--isa avx2]
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from benchmarks.common import argument_parser, cold, load, median_ms, show, write
from sakuin import build_index, merge
from sakuin.attention.partial import PartialAttention
from sakuin.evaluate import Layer, capture, longer
from sakuin.index import _native
from sakuin.index.large_pages import in_large_pages

KEYS, GROUP, LENGTH, HEAD = 131072, 7, 7600, 1
SMALL = 4096
LAYERS = (3, 12, 17, 26)
POSITIONS = {"retrieval": (-4, -3, -2), "running text": (100, 101, 102)}


Step = Callable[[], Any]


def one_group(x: torch.Tensor, positions: tuple[int, ...]) -> torch.Tensor:
    """`(heads, t, ...)` at some positions as the heads of one group at one position, `(GROUP, 1, ...)`."""
    return torch.cat([x[:, p] for p in positions])[:GROUP, None].contiguous()


class OneHead:
    """One KV head of a layer with its indexes, whose steps are timed."""

    def __init__(self, layer: Layer, isa: str) -> None:
        self.layer, self.isa, self.threads = layer, isa, torch.get_num_threads()
        heads = torch.cat([layer.queries] * 3)[:GROUP]
        self.index = build_index(
            "sketch", layer.keys, layer.values, queries=heads, query_positions=layer.query_positions
        )
        self.static = layer.static()
        self.truth = merge([self.static, layer.exact()]).out
        # As the segments of `sketch`: `flat` is to read from pages as large.
        shapes = dict.fromkeys(("keys", "values"), (layer.keys.shape, layer.keys.dtype))
        keys, values = in_large_pages(shapes).values()
        keys.copy_(layer.keys)
        values.copy_(layer.values)
        self.rows = (keys, values)
        # What runs the same code over little.
        self.few = (layer.keys[:, :SMALL].clone(), layer.values[:, :SMALL].clone())
        self.small = build_index("sketch", *self.few, queries=heads[:, :SMALL]).segments

    def steps(self, positions: tuple[int, ...]) -> list[tuple[Step, Step]]:
        """A step of `sketch` and one of `flat`, each with what runs the same code over little."""
        q, beside = one_group(self.layer.asked, positions), one_group(self.static.lse, positions)
        scaling, threads, isa = self.layer.scaling, self.threads, self.isa
        settings, segments = self.index._settings(1.0), self.index.segments

        def sketch() -> Any:
            return _native.sketch_attend(q, segments, scaling, threads, settings, static_lse=beside, isa=isa)

        def sketch_code() -> Any:
            return _native.sketch_attend(q, self.small, scaling, threads, settings, isa=isa)

        def flat() -> Any:
            return _native.flat_attend(q, [self.rows], scaling, threads, isa=isa)

        def flat_code() -> Any:
            return _native.flat_attend(q, [self.few], scaling, threads, isa=isa)

        return [(sketch, sketch_code), (flat, flat_code)]

    def measured(self, positions: tuple[int, ...]) -> dict[str, float]:
        """Times of steps at some positions in milliseconds, and what a step of `sketch` gives."""
        steps = self.steps(positions)
        # In turns, so that what else the machine does falls on both; and each after more memory was read
        # than a cache holds, since a model comes back to a layer only after all its others.
        turns = [[median_ms(step, 10, between=cold(code))[:2] for step, code in steps] for _ in range(5)]
        warm = [[median_ms(step, 10)[0] for step, _ in steps] for _ in range(5)]
        found: dict[str, float] = {}
        for name, cold_times, warm_times in zip(
            ("sketch", "flat"), zip(*turns, strict=True), zip(*warm, strict=True), strict=True
        ):
            found[f"{name}_ms"] = median(middle for middle, _ in cold_times)
            found[f"{name}_best_ms"] = min(best for _, best in cold_times)
            found[f"{name}_warm_ms"] = median(warm_times)
        q, beside = one_group(self.layer.asked, positions), one_group(self.static.lse, positions)
        part = self.index.attend(q, scaling=self.layer.scaling, static_lse=beside)
        out = merge([PartialAttention(one_group(self.static.out, positions), beside), part]).out
        want = one_group(self.truth, positions)
        found["touched_share"] = part.stats.touched_share
        found["error"] = ((out - want).norm(dim=-1) / want.norm(dim=-1)).mean().item()
        return found


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--isa", default=_native.isa(), choices=_native.isas())
    isa = parser.parse_args().isa
    trace = longer(capture(*load("smollm2", "fp32"), LENGTH, LAYERS), KEYS)
    rows: list[dict[str, Any]] = []
    for number, whole in trace.layers.items():
        head = OneHead(whole.head(HEAD), isa)
        for name, positions in POSITIONS.items():
            rows.append({"layer": number, "queries": name, **head.measured(positions)})
    show(
        f"One step, 128K keys, d = 64, group of 7, {isa}, {torch.get_num_threads()} threads",
        rows[0],
        [r.values() for r in rows],
    )
    ratio, best, warm_ratio = (
        sum(r[f"flat_{what}"] for r in rows) / sum(r[f"sketch_{what}"] for r in rows)
        for what in ("ms", "best_ms", "warm_ms")
    )
    print(f"flat / sketch over all: {ratio:.2f}, by the shortest times {best:.2f}, warm {warm_ratio:.2f}")
    write(
        f"sketch_step-{isa}",
        {
            "command": f"python -m benchmarks.speed.sketch_step --isa {isa}",
            "flat_over_sketch": ratio,
            "flat_over_sketch_best": best,
            "flat_over_sketch_warm": warm_ratio,
            "results": rows,
        },
    )


if __name__ == "__main__":
    main()
