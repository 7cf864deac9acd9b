"""The attention of one decode step of a model with the shape of Llama-3-8B at 128K tokens: 32 layers, 8 KV
heads with groups of 4, head_dim 128.

Its keys and values would take 16 GiB in bf16. Four layers are held and attended in turn, each with memory
of its own, so that a layer's share of the cache is gone when its turn comes again; the time of the four,
times eight, is that of a token. Keys, values and queries are smollm2's: head_dim 128 is made of two of its
KV heads side by side (benchmarks/shapes.py), of four such kinds a layer has two each, and every head is
resampled with jitter of its own. A step is the whole attention: sink and recent window exactly, the index,
and their merge; `flat` attends to all of the same tokens. The rest of a model is not in it.

Run: python -m benchmarks.speed.llama_step [--traces FOLDER]
SAKUIN_ISA=avx2 forces lower kernels. Takes 5 GiB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import argument_parser, bandwidth, command, show, write
from benchmarks.shapes import HEADS_128, paired, traced
from sakuin import merge
from sakuin.attention.partial import PartialAttention
from sakuin.evaluate import Layer, Trace, longer
from sakuin.index import Index, _native

TOKENS, LENGTH = 131072, 7600
LAYERS, HELD = 32, 4
KV_HEADS, GROUP, HEAD_DIM = 8, 4, 128
RECENT = 512
ROUNDS = 3
GOALS = {"avx2": 0.115}
GOAL = 0.06


@dataclass
class Held:
    """One layer: its indexes, what stands beside them, and queries.

    raised : `(GROUP * KV_HEADS, 1)`, what is added to the static part's lse (`Layer.raised`).
    """

    indexes: dict[str, Index]
    static: list[tuple[Tensor, Tensor]]
    raised: Tensor
    asked: Tensor
    retrieval: int
    scaling: float

    @classmethod
    def of(cls, kinds: list[Layer], seed: int) -> Held:
        """Eight KV heads of these kinds in turn, each resampled by itself, and both indexes over them."""
        heads = [
            longer(Trace({0: kinds[i % len(kinds)]}, {}), TOKENS, seed=KV_HEADS * seed + i).layers[0]
            for i in range(KV_HEADS)
        ]

        def all_of(name: str, dim: int = 0) -> Tensor:
            return torch.cat([getattr(head, name) for head in heads], dim)

        layer = replace(
            heads[0],
            **{name: all_of(name) for name in ("keys", "values", "queries", "asked")},
            **{name: all_of(name, 1) for name in ("sink", "recent")},
        )
        return cls(
            {kind: layer.index(kind) for kind in ("sketch", "flat")},
            [tuple(layer.sink), tuple(layer.recent[:, :, :RECENT].contiguous())],
            torch.tensor([head.raised for head in heads]).repeat_interleave(GROUP)[:, None],
            layer.asked,
            layer.retrieval,
            layer.scaling,
        )

    def step(self, kind: str, q: Tensor) -> PartialAttention:
        """The whole attention of one position."""
        out, lse = _native.flat_attend(q, self.static, self.scaling, torch.get_num_threads())
        static = PartialAttention(out, lse + self.raised)
        part = self.indexes[kind].attend(q, scaling=self.scaling, static_lse=static.lse)
        return replace(merge([static, part]), stats=part.stats)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--traces", type=Path, help="keep captured traces in this folder")
    trace = traced("smollm2", LENGTH, parser.parse_args().traces)
    kinds, layers = [paired(trace, heads) for heads in HEADS_128], []
    for i in range(HELD):
        layers.append(Held.of(kinds, i))
        print(f"layer {i}", flush=True)
    t, retrieval = layers[0].asked.shape[1], layers[0].retrieval
    # As many steps in running text as there are retrieval steps.
    positions = [*range(t - retrieval, t), *(i * (t - retrieval) // retrieval for i in range(retrieval))]
    times: dict[str, list[float]] = {"sketch": [], "flat": []}
    errors: dict[bool, list[float]] = {True: [], False: []}
    touched, rate = [], 0.0
    for _ in range(ROUNDS):
        rate = max(rate, bandwidth())
        for at in positions:
            queries, found = [layer.asked[:, at : at + 1].contiguous() for layer in layers], {}
            for kind, seconds in times.items():
                started = perf_counter()
                found[kind] = [layer.step(kind, q) for layer, q in zip(layers, queries, strict=True)]
                seconds.append(perf_counter() - started)
            for part, exact in zip(found["sketch"], found["flat"], strict=True):
                error = (part.out - exact.out).norm(dim=-1) / exact.out.norm(dim=-1)
                errors[at >= t - retrieval].append(error.mean().item())
                touched.append(part.stats.touched_share)
    scale = LAYERS / HELD
    floor = LAYERS * KV_HEADS * TOKENS * HEAD_DIM * 4 / rate
    isa = _native.isa()
    result: dict[str, Any] = {
        "goal_s": GOALS.get(isa, GOAL),
        "floor_s": floor,
        "bytes_per_s": rate,
        **{f"{kind}_s": scale * median(found) for kind, found in times.items()},
        **{f"{kind}_best_s": scale * min(found) for kind, found in times.items()},
        "running": fmean(errors[False]),
        "retrieval": fmean(errors[True]),
        "touched_share": fmean(touched),
        "memory_share": fmean(
            (layer.indexes["sketch"].nbytes - layer.indexes["sketch"].kv_bytes)
            / layer.indexes["sketch"].kv_bytes
            for layer in layers
        ),
    }
    show(f"Attention of one token, {isa}", ("what", "value"), result.items())
    write(
        f"llama_step-{isa}",
        {
            "command": command(),
            "shape": {"layers": LAYERS, "kv_heads": KV_HEADS, "group": GROUP, "head_dim": HEAD_DIM},
            "tokens": TOKENS,
            "layers_held": HELD,
            "source": "each KV head: two of smollm2 side by side (benchmarks/shapes.py), resampled by itself",
            "results": result,
        },
    )


if __name__ == "__main__":
    main()
