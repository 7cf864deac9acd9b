"""Where the error of `sketch` comes from: the same steps with one part of the method after another replaced
by the truth.

Runs the plain statement of the method (tests/reference) on a real trace of smollm2, a position in 64 of the
running text and every retrieval step. `tail` are the tokens that enter by their list, scored again or not.
The last rows leave a part of the method out: quantizer ranges by fourth powers of the error (not squares),
the tilt of the lists' means, and what makes up for uncertain exponentials.

Run: python benchmarks/error_sources.py [--length 4000] [--tokens 16384]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from common import load, show, write

from sakuin import RetrievalConfig, merge
from sakuin.attention.partial import PartialAttention
from sakuin.evaluate import Layer, capture, longer

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from reference import sketch as plain

CONFIG = RetrievalConfig()
SEGMENT = CONFIG.segment_tokens(64)
REPLACED = {
    "as it is": (),
    "true scores in the tail": ("tail score",),
    "true values in the tail": ("tail value",),
    "true scores and values in the tail": ("tail score", "tail value"),
    "true scores of coded tokens": ("code score",),
    "true values of coded tokens": ("code value",),
}
LEFT_OUT = {"without the tilt": "tilt", "without raising the tail": "raise"}


def sealed(layer: Layer, **how: Any) -> list[plain.Segment]:
    """Segments of a layer with one KV head, as the index would make them but for `how`."""
    segments: list[plain.Segment] = []
    queries, n = layer.queries.double(), layer.keys.shape[1]
    for start in range(0, n, SEGMENT):
        end = min(start + SEGMENT, n)
        seen = queries[:, layer.query_positions < end].reshape(-1, queries.shape[2])
        inherited = segments[-1].basis if segments and end - start < 16 * queries.shape[2] else None
        moment = seen.T @ seen / len(seen)
        keys, values = layer.keys[0, start:end], layer.values[0, start:end]
        segments.append(plain.seal(keys, values, moment, inherited, **how))
    return segments


class Step:
    """One step of a query group: what every variant of it starts from."""

    def __init__(
        self, segments: list[plain.Segment], query: torch.Tensor, scaling: float, static: torch.Tensor
    ) -> None:
        query = query.double() * scaling
        p = [query @ s.basis.project for s in segments]
        pairs = list(zip(p, segments, strict=True))
        self.segments, self.static, self.p = segments, static.double(), p
        self.sketch = torch.cat([x @ s.sketch.T + (query @ s.mean)[:, None] for x, s in pairs], 1)
        self.coded = self.sketch + torch.cat([x @ s.codes.T for x, s in pairs], 1)
        self.true = query @ torch.cat([s.keys for s in segments]).T
        variances = [x.square() @ s.residue for x, s in pairs]
        self.variance = torch.cat(
            [v[:, None].expand(-1, len(s.keys)) for v, s in zip(variances, segments, strict=True)], 1
        )
        length = torch.cat([s.length for s in segments])
        self.raised = self.sketch + CONFIG.reach * self.variance.sqrt() * length / 4
        self.always = length == 15

    def attend(self, replaced: tuple[str, ...] = (), left_out: str = "") -> PartialAttention:
        """Attention over the segments with parts `replaced` by the truth, or one `left_out`."""
        n = self.sketch.shape[1]
        z = self.sketch.clone()
        everything = torch.logaddexp(z.logsumexp(1), self.static)[:, None]
        may_have = (self.raised - everything).exp().amax(0).masked_fill(self.always, torch.inf)
        scored = (may_have > CONFIG.rescore_share / n).nonzero()[:, 0]
        z[:, scored] = self.coded[:, scored]
        share = (z - everything).exp().amax(0)
        tier = torch.zeros(n, dtype=torch.long)
        tier[scored] = 1
        tier[scored[share[scored] > CONFIG.codes_share / n]] = 2
        tier[scored[share[scored] > CONFIG.exact_share * max(1.0, n / 8192) ** 0.5 / n]] = 3
        values = torch.cat([s.list_mean[s.list_of] for s in self.segments])
        true_values = torch.cat([s.values for s in self.segments])
        values[tier == 2] = torch.cat([s.value_codes for s in self.segments])[tier == 2]
        if left_out != "raise":
            z[:, tier == 0] += (self.variance.clamp(max=1) / 2)[:, tier == 0]
        for part, tokens in (("tail", tier <= 1), ("code", tier == 2)):
            if f"{part} score" in replaced:
                z[:, tokens] = self.true[:, tokens]
            if f"{part} value" in replaced:
                values[tokens] = true_values[tokens]
        z[:, tier == 3], values[tier == 3] = self.true[:, tier == 3], true_values[tier == 3]
        lse = z.logsumexp(1)
        weight = (z - lse[:, None]).exp()
        out = weight @ values
        if left_out != "tilt" and "tail value" not in replaced:
            in_lists = (weight * (tier <= 1)).split([len(s.keys) for s in self.segments], 1)
            for p, s, w in zip(self.p, self.segments, in_lists, strict=True):
                spread = (p.square() @ s.within)[:, None]
                tilt = (p * s.within.sqrt())[:, : len(s.tilt)] @ s.tilt
                out += w.sum(1, keepdim=True) / (1 + spread / 10) * tilt
        return PartialAttention(out.float()[:, None], lse.float()[:, None])


def errors(layer: Layer) -> dict[str, list[float]]:
    """Relative error of the whole output for every variant, over positions and query heads."""
    static, exact = layer.static(), layer.exact()
    truth = merge([static, exact]).out
    segments, by_squares = sealed(layer), sealed(layer, power=2)
    t = layer.asked.shape[1]
    found: dict[str, list[float]] = {}
    for at in (*range(0, 512, 64), *range(t - layer.retrieval, t)):
        query, lse = layer.asked[:, at], static.lse[:, at]
        step = Step(segments, query, layer.scaling, lse)
        variants = {name: step.attend(parts) for name, parts in REPLACED.items()}
        variants |= {name: step.attend(left_out=part) for name, part in LEFT_OUT.items()}
        variants["ranges by squares"] = Step(by_squares, query, layer.scaling, lse).attend()
        beside = PartialAttention(static.out[:, at : at + 1], static.lse[:, at : at + 1])
        for name, part in variants.items():
            out = merge([beside, part]).out[:, 0]
            error = (out - truth[:, at]).norm(dim=-1) / truth[:, at].norm(dim=-1)
            found.setdefault(name, []).extend(error.tolist())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=4000)
    parser.add_argument("--tokens", type=int, default=16384, help="offloaded tokens of the resampled trace")
    chosen = parser.parse_args()
    trace = capture(*load("smollm2", "fp32"), chosen.length)
    rows = []
    for one in (trace, longer(trace, chosen.tokens)):
        found: dict[str, list[float]] = {}
        for whole in one.layers.values():
            for head in range(whole.keys.shape[0]):
                for name, each in errors(whole.head(head)).items():
                    found.setdefault(name, []).extend(each)
        tokens = next(iter(one.layers.values())).keys.shape[1]
        rows += [
            {"tokens": tokens, "variant": name, "error_mean": sum(e) / len(e), "error_worst": max(e)}
            for name, e in found.items()
        ]
    title = f"Error of the attention output, smollm2, layers {list(trace.layers)}"
    show(title, rows[0], [r.values() for r in rows])
    write("error_sources", {"command": "python benchmarks/error_sources.py", "results": rows})


if __name__ == "__main__":
    main()
