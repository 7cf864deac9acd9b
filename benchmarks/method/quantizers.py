"""Other ways to quantize, at the same bits or fewer: what `sketch` would gain or lose by them.

Runs the plain statement of the method (tests/reference) on a real trace of smollm2, a position in 64 of the
running text and every retrieval step, each way beside the method as it is:

- a product quantizer of 16 entries for each four bits of the sketch, by k-means, its coordinates shared out
  so that each quantizer gets as much of the logits' variance as the others;
- a basis for each query head instead of one for its group (each head's sketch would be read by itself);
- values in three or two bits instead of four;
- raising the tail only in the query heads where that helps at every other one of the positions, judged by
  the rest of them.

Run: python -m benchmarks.method.quantizers [--length 7600]
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import argument_parser, command, load, show, write
from benchmarks.plain_steps import CONFIG, Step, sealed
from sakuin import merge
from sakuin.attention.partial import PartialAttention
from sakuin.evaluate import Layer, capture

ENTRIES, ROUNDS, SAMPLE = 16, 12, 2048


def product_quantized(y: Tensor, weight: Tensor) -> Tensor:
    """Keys (n, d) as a product quantizer of as many bits as the sketch tells them."""
    d = y.shape[1]
    subs = max(4, round(CONFIG.sketch_bits_for(d) * d / 16) * 4)
    scaled, told = y * weight.sqrt(), torch.zeros_like(y)
    for coordinates in _shares(scaled.square().mean(0), subs):
        part = scaled[:, coordinates]
        told[:, coordinates] = _nearest(part, _entries(part)) / weight[coordinates].sqrt()
    return told


def _shares(energy: Tensor, subs: int) -> list[list[int]]:
    """Coordinates for each of `subs` quantizers: the largest first, each to where the product of what is
    there, in units of the smallest that counts, is least; what no quantizer can tell is left out."""
    ranked = energy.argsort(descending=True).tolist()[: 2 * subs]
    least = max(float(energy[ranked[-1]]), 1e-30)
    shares: list[list[int]] = [[] for _ in range(subs)]
    load_of = [0.0] * subs
    for j in ranked:
        at = min(range(subs), key=lambda s: (load_of[s], len(shares[s])))
        shares[at].append(j)
        load_of[at] += float((energy[j] / least).log())
    return [share for share in shares if share]


def _entries(x: Tensor) -> Tensor:
    sample = x[:: max(1, len(x) // SAMPLE)]
    generator = torch.Generator().manual_seed(0)
    entries = sample[torch.randperm(len(sample), generator=generator)[:ENTRIES]].clone()
    for _ in range(ROUNDS):
        which = torch.cdist(sample, entries).argmin(1)
        sums = torch.zeros_like(entries).index_add_(0, which, sample)
        counts = torch.bincount(which, minlength=ENTRIES)
        entries = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], entries)
    return entries


def _nearest(x: Tensor, entries: Tensor) -> Tensor:
    return entries[torch.cdist(x, entries).argmin(1)]


def errors(layer: Layer) -> dict[str, Tensor]:
    """Relative errors of the whole output by way, `(group, steps)`, retrieval steps last."""
    static, exact = layer.static(), layer.exact()
    truth = merge([static, exact]).out
    ways = {
        "as it is": sealed(layer),
        "product quantizers": sealed(layer, sketcher=product_quantized),
        "values in 3 bits": sealed(layer, value_bits=3),
        "values in 2 bits": sealed(layer, value_bits=2),
    }
    heads = range(layer.group_size)
    own = [sealed(_of_query_head(layer, g)) for g in heads]
    t = layer.asked.shape[1]
    found: dict[str, list[Tensor]] = {}
    for at in (*range(0, t - layer.retrieval, 64), *range(t - layer.retrieval, t)):
        query, lse = layer.asked[:, at], static.lse[:, at]
        steps = {name: Step(segments, query, layer.scaling, lse) for name, segments in ways.items()}
        parts = {name: step.attend() for name, step in steps.items()}
        parts["tail not raised"] = steps["as it is"].attend(left_out="raise")
        alone = [Step(own[g], query[g : g + 1], layer.scaling, lse[g : g + 1]).attend() for g in heads]
        parts["a basis for each query head"] = PartialAttention(
            torch.cat([part.out for part in alone]), torch.cat([part.lse for part in alone])
        )
        beside = PartialAttention(static.out[:, at : at + 1], static.lse[:, at : at + 1])
        for name, part in parts.items():
            out = merge([beside, part]).out[:, 0]
            error = (out - truth[:, at]).norm(dim=-1) / truth[:, at].norm(dim=-1)
            found.setdefault(name, []).append(error)
    return {name: torch.stack(rows, 1) for name, rows in found.items()}


def _of_query_head(layer: Layer, g: int) -> Layer:
    return replace(layer, queries=layer.queries[g : g + 1])


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--length", type=int, default=7600)
    chosen = parser.parse_args()
    trace = capture(*load("smollm2", "fp32"), chosen.length)
    found: dict[str, list[Tensor]] = {}
    retrieval = 0
    for number, whole in trace.layers.items():
        retrieval = whole.retrieval
        for head in range(whole.keys.shape[0]):
            each = errors(whole.head(head))
            raised, not_raised = each["as it is"], each.pop("tail not raised")
            helps = raised[:, ::2].mean(1) <= not_raised[:, ::2].mean(1)
            each["tail raised where it helps"] = torch.where(helps[:, None], raised, not_raised)[:, 1::2]
            each["as it is, the same positions"] = raised[:, 1::2]
            for name, rows in each.items():
                found.setdefault(name, []).append(rows)
            print(f"layer {number}, KV head {head}", flush=True)
    rows: list[dict[str, Any]] = []
    for name, heads in found.items():
        every = torch.cat(heads)
        asked = retrieval if every.shape[1] > retrieval * 1.5 else retrieval // 2
        running, retrieving = every[:, :-asked], every[:, -asked:]
        rows.append(
            {
                "way": name,
                "running": running.mean().item(),
                "retrieval": retrieving.mean().item(),
                "worst_head": every.mean(1).max().item(),
                "worst_step": retrieving.mean(0).max().item(),
            }
        )
    tokens = next(iter(trace.layers.values())).keys.shape[1]
    show(f"Error of the attention output, smollm2, {tokens:,} tokens", rows[0], [r.values() for r in rows])
    write("quantizers", {"command": command(), "tokens": tokens, "results": rows})


if __name__ == "__main__":
    main()
