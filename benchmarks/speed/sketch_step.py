"""One decode step of `sketch` against `flat`: one KV head for its whole query group, 128K keys, d = 64, group
of 7.

Keys, values and queries are smollm2's own over real text with a planted fact, of four layers, resampled to
128K offloaded tokens (`sakuin.evaluate.longer`). A group of 7 is made of the query heads of one KV head at
three neighbouring positions, once where the model answers the question about the fact and once in running
text. Beside medians stand the shortest times, which a busy neighbour touches least, and those of steps with
nothing between them (*warm*). The error is that of
the whole attention output, sink and recent window included.

Run: python -m benchmarks.speed.sketch_step [--isa avx2]
"""

from __future__ import annotations

from statistics import median
from typing import Any

import torch

from benchmarks.common import argument_parser, cold, load, median_ms, show, write
from sakuin import build_index, merge
from sakuin.attention.partial import PartialAttention
from sakuin.evaluate import capture, longer
from sakuin.index import _native
from sakuin.index.large_pages import in_large_pages

KEYS, GROUP, LENGTH, HEAD = 131072, 7, 7600, 1
SMALL = 4096
LAYERS = (3, 12, 17, 26)
POSITIONS = {"retrieval": (-4, -3, -2), "running text": (100, 101, 102)}


def one_group(x: torch.Tensor, positions: tuple[int, ...]) -> torch.Tensor:
    """`(heads, t, ...)` at some positions as the heads of one group at one position, `(GROUP, 1, ...)`."""
    return torch.cat([x[:, p] for p in positions])[:GROUP, None].contiguous()


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--isa", default=_native.isa(), choices=_native.isas())
    isa = parser.parse_args().isa
    trace = longer(capture(*load("smollm2", "fp32"), LENGTH, LAYERS), KEYS)
    threads, rows = torch.get_num_threads(), []
    for number, whole in trace.layers.items():
        layer = whole.head(HEAD)
        heads = torch.cat([layer.queries] * 3)[:GROUP]
        index = build_index(
            "sketch", layer.keys, layer.values, queries=heads, query_positions=layer.query_positions
        )
        static, exact = layer.static(), layer.exact()
        # As the segments of `sketch`: `flat` is to read from pages as large.
        keys, values = in_large_pages(
            dict.fromkeys(("keys", "values"), (layer.keys.shape, layer.keys.dtype))
        ).values()
        keys.copy_(layer.keys)
        values.copy_(layer.values)
        few = [(layer.keys[:, :SMALL].clone(), layer.values[:, :SMALL].clone())]
        small = build_index("sketch", *few[0], queries=heads[:, :SMALL]).segments
        truth = merge([static, exact]).out
        for name, positions in POSITIONS.items():
            q, beside = one_group(layer.asked, positions), one_group(static.lse, positions)
            settings = index._settings(1.0)

            def sketch(
                q: Any = q,
                beside: Any = beside,
                settings: Any = settings,
                index: Any = index,
                layer: Any = layer,
            ) -> Any:
                return _native.sketch_attend(
                    q, index.segments, layer.scaling, threads, settings, static_lse=beside, isa=isa
                )

            def flat(q: Any = q, kv: Any = (keys, values), layer: Any = layer) -> Any:
                return _native.flat_attend(q, [kv], layer.scaling, threads, isa=isa)

            def sketch_code(
                q: Any = q, small: Any = small, settings: Any = settings, layer: Any = layer
            ) -> Any:
                return _native.sketch_attend(q, small, layer.scaling, threads, settings, isa=isa)

            def flat_code(q: Any = q, few: Any = few, layer: Any = layer) -> Any:
                return _native.flat_attend(q, few, layer.scaling, threads, isa=isa)

            # In turns, so that what else the machine does falls on both; and each after more memory was read
            # than a cache holds, since a model comes back to a layer only after all its others.
            turns = ((sketch, cold(sketch_code)), (flat, cold(flat_code)))
            found = [
                tuple(median_ms(step, 10, between=between)[:2] for step, between in turns) for _ in range(5)
            ]
            (sketch_ms, sketch_best), (flat_ms, flat_best) = (
                (median(m for m, _ in column), min(best for _, best in column))
                for column in zip(*found, strict=True)
            )
            warm = [[median_ms(step, 10)[0] for step in (sketch, flat)] for _ in range(5)]
            sketch_warm, flat_warm = (median(column) for column in zip(*warm, strict=True))
            part = index.attend(q, scaling=layer.scaling, static_lse=beside)
            out = merge([PartialAttention(one_group(static.out, positions), beside), part]).out
            want = one_group(truth, positions)
            rows.append(
                {
                    "layer": number,
                    "queries": name,
                    "sketch_ms": sketch_ms,
                    "flat_ms": flat_ms,
                    "sketch_best_ms": sketch_best,
                    "flat_best_ms": flat_best,
                    "sketch_warm_ms": sketch_warm,
                    "flat_warm_ms": flat_warm,
                    "touched_share": part.stats.touched_share,
                    "error": ((out - want).norm(dim=-1) / want.norm(dim=-1)).mean().item(),
                }
            )
    show(
        f"One step, 128K keys, d = 64, group of 7, {isa}, {threads} threads",
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
