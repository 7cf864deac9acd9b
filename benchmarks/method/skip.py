"""Whether lists could be left out of the scan of `sketch`: what share of them holds no key that is looked at
again, and what share a bound on the list would skip, at what loss.

Runs the plain statement of the method (tests/reference) on a real trace of smollm2 and on a longer one
resampled from it, a position in 256 of the running text and every retrieval step. A skipped list enters by
its mean score and the spread of its scores. `k sd` skips a list if its mean score, k standard deviations
of its scores and the raise by residue, stays below the threshold of reach; `box` if the largest
score does that any sketch within the list's range of every coordinate may have. `none found` knows the truth.

Run: python -m benchmarks.method.skip [--length 7600] [--tokens 131072]
"""

from __future__ import annotations

import copy
import math
import statistics

import torch
from torch import Tensor

from benchmarks.common import argument_parser, command, load, show, write
from benchmarks.plain_steps import CONFIG, Step, plain, sealed
from sakuin import merge
from sakuin.attention.partial import PartialAttention
from sakuin.evaluate import Layer, capture, longer

DEVIATIONS = (2.5, 3.0, 4.0)
SIZES = (64, 256, 1024)
EVERY = 256


class Lists:
    """Runs of `size` keys that lie close together, over a chain of segments: which rows are whose, and what
    their sketches are like."""

    def __init__(self, segments: list[plain.Segment], size: int) -> None:
        self.of, self.low, self.high, self.mean, self.variance = [], [], [], [], []
        for s in segments:
            of = s.list_of // (size // 64)
            n, d = int(of.max()) + 1, s.sketch.shape[1]
            index = of[:, None].expand(-1, d)
            zeros = torch.zeros(n, d, dtype=torch.float64)
            mean = zeros.scatter_reduce(0, index, s.sketch, "mean", include_self=False)
            squares = (s.sketch - mean[of]).square()
            self.of.append(of)
            self.mean.append(mean)
            self.variance.append(zeros.scatter_reduce(0, index, squares, "mean", include_self=False))
            self.low.append(zeros.scatter_reduce(0, index, s.sketch, "amin", include_self=False))
            self.high.append(zeros.scatter_reduce(0, index, s.sketch, "amax", include_self=False))
        *starts, self.count = torch.tensor([0, *(len(m) for m in self.mean)]).cumsum(0).tolist()
        self.list_of = torch.cat([of + start for of, start in zip(self.of, starts, strict=True)])

    def each(self, x: Tensor, how: str) -> Tensor:
        """`x` (group, n) by list: its largest or mean."""
        empty = torch.zeros(len(x), self.count, dtype=x.dtype)
        return empty.scatter_reduce(1, self.list_of.expand(len(x), -1), x, how, include_self=False)

    def scores(self, step: Step, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and bound of the sketches' scores, (group, lists) each."""
        means, variances, most = [], [], []
        for i, (p, s) in enumerate(zip(step.p, step.segments, strict=True)):
            own = (query @ s.mean)[:, None]
            means.append(p @ self.mean[i].T + own)
            variances.append(p.square() @ self.variance[i].T)
            most.append(p.clamp(min=0) @ self.high[i].T + p.clamp(max=0) @ self.low[i].T + own)
        return torch.cat(means, 1), torch.cat(variances, 1), torch.cat(most, 1)


def error(step: Step, beside: PartialAttention, truth: Tensor) -> float:
    out = merge([beside, step.attend()]).out[:, 0]
    return float(((out - truth).norm(dim=-1) / truth.norm(dim=-1)).mean())


def measure(layer: Layer, found: dict[tuple[bool, int, str], list[tuple[float, ...]]]) -> None:
    """Adds to `found`, by retrieval or not, size and bound: the shares of lists skipped and of found keys
    lost, how many keys are lost that would have been attended exactly, and how many times the error grows."""
    segments, static = sealed(layer, 4), layer.static()
    lists = {size: Lists(segments, size) for size in SIZES}
    values = torch.cat([s.values for s in segments])
    t, n = layer.asked.shape[1], len(values)
    for at in (*range(0, 512, EVERY), *range(t - layer.retrieval, t)):
        query, lse = layer.asked[:, at].double() * layer.scaling, static.lse[:, at]
        step = Step(segments, layer.asked[:, at], layer.scaling, lse)
        beside = PartialAttention(static.out[:, at : at + 1], static.lse[:, at : at + 1])
        whole = PartialAttention(
            (step.true.softmax(1) @ values).float()[:, None], step.true.logsumexp(1).float()[:, None]
        )
        truth = merge([beside, whole]).out[:, 0]
        before = error(step, beside, truth)
        everything = torch.logaddexp(step.sketch.logsumexp(1), step.static)
        bar = (everything + math.log(CONFIG.rescore_share / n))[:, None]
        again = ((step.raised > bar).any(0) | step.always)[None]
        share = (step.coded - everything[:, None]).exp().amax(0)
        exact = again[0] & (share > CONFIG.exact_share * max(1.0, n / 8192) ** 0.5 / n)
        raised = step.raised - step.sketch
        for size, of in lists.items():
            mean, variance, most = of.scores(step, query)
            usual, largest = of.each(raised, "mean"), of.each(raised, "amax")
            bounds = {f"{k:g} sd": (mean + k * variance.sqrt() + usual <= bar).all(0) for k in DEVIATIONS}
            bounds["box"] = (most + largest <= bar).all(0)
            bounds["none found"] = of.each(again.double(), "amax")[0] == 0
            for name, skip in bounds.items():
                rows = skip[of.list_of]
                grown = 1.0
                if size == 64 and name.endswith("sd") and rows.any():
                    skipped = copy.copy(step)
                    skipped.sketch = torch.where(rows, (mean + variance / 2)[:, of.list_of], step.sketch)
                    skipped.raised = torch.where(rows, -torch.inf, step.raised)
                    skipped.always = step.always & ~rows
                    grown = error(skipped, beside, truth) / before
                lost = float((rows & again[0]).sum() / again.sum().clamp(min=1))
                figures = (float(skip.double().mean()), lost, float((rows & exact).sum()), grown)
                found.setdefault((at >= t - layer.retrieval, size, name), []).append(figures)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--length", type=int, default=7600)
    parser.add_argument("--tokens", type=int, default=131072, help="offloaded tokens of the resampled trace")
    chosen = parser.parse_args()
    trace = capture(*load("smollm2", "fp32"), chosen.length, [3, 12, 17, 26])
    rows = []
    for one in (trace, longer(trace, chosen.tokens)):
        found: dict[tuple[bool, int, str], list[tuple[float, ...]]] = {}
        for whole in one.layers.values():
            for head in range(whole.keys.shape[0]):
                measure(whole.head(head), found)
        for (retrieval, size, bound), figures in found.items():
            skipped, lost, exact, grown = zip(*figures, strict=True)
            measured = size == 64 and bound.endswith("sd")
            rows.append(
                {
                    "tokens": next(iter(one.layers.values())).keys.shape[1],
                    "steps": "retrieval" if retrieval else "running text",
                    "list": size,
                    "bound": bound,
                    "skipped": statistics.mean(skipped),
                    "found keys lost": statistics.mean(lost),
                    "steps that lose an exact key": sum(x > 0 for x in exact) / len(exact),
                    "error grows, median": statistics.median(grown) if measured else None,
                    "mean": statistics.mean(grown) if measured else None,
                    "worst": max(grown) if measured else None,
                }
            )
    show(
        f"Lists that could be skipped, smollm2, layers {list(trace.layers)}",
        rows[0],
        [r.values() for r in rows],
    )
    write("skip", {"command": command(), "results": rows})


if __name__ == "__main__":
    main()
