"""Single steps of the plain statement of the method (tests/reference), parts of which can be replaced.

What the benchmarks of the method share that ask what each part of it is good for.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from sakuin import RetrievalConfig
from sakuin.attention.partial import PartialAttention
from sakuin.evaluate import Layer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from reference import sketch as plain

CONFIG = RetrievalConfig()
SEGMENT = CONFIG.segment_tokens(64)


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
