"""The method of docs/method.md in plain torch, one KV head at a time: slow, short, independent of the code
that ships.

Everything is float64 and unpacked: a quantized number is kept as what a decoder would see. `seal` makes a
segment, `attend` runs one step of a query group over a chain of them. Shapes: keys and values
`(n, head_dim)`, one step's query `(group, head_dim)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LIST = 64
LOG2E = 1.4426950408889634
DISTORTION = {0: 1.0, 2: 0.119, 4: 0.0115, 8: 0.00009}  # mean squared error on a unit Gaussian: where bits go
RANGES = {  # half-widths of a quantizer in standard deviations, of which the best is taken
    2: (1.5, 1.8, 2.2, 2.7, 3.3, 4.0, 5.0, 7.0, 10.0),
    4: (1.8, 2.2, 2.6, 3.2, 4.0, 5.0, 7.0, 10.0, 14.0),
    8: (2.0, 3.0, 4.6, 6.5, 9.0, 13.0, 18.0, 25.0, 35.0),
}


@dataclass
class Basis:
    """`q.k = (q @ project).y + q.mean`, y = inverse @ (k - mean); `weight`: logit variance per squared error
    of a coordinate."""

    project: Tensor
    inverse: Tensor
    weight: Tensor


@dataclass
class Segment:
    keys: Tensor  # (n, d)
    values: Tensor  # (n, d)
    basis: Basis
    mean: Tensor  # (d,)
    sketch: Tensor  # (n, d) in the basis' coordinates, as decoded
    residue: Tensor  # (d,) mean squared residue of the sketch
    length: Tensor  # (n,) a key's residue over the usual one, in quarters, 0 to 15
    codes: Tensor  # (n, d) what the codes add to the sketch, as decoded
    steps: Tensor  # (2, d) of the quantizers of sketch and codes, 0 where there are no bits
    bits: Tensor  # (2, d) that they have
    value_codes: Tensor  # (n, d) as decoded
    list_of: Tensor  # (n,)
    list_mean: Tensor  # (lists, d)
    within: Tensor  # (d,) mean square of a key's distance from its list's mean, per coordinate
    tilt: Tensor  # (16, d) how values go with the leading coordinates inside lists, per unit of within


def find_basis(centred: Tensor, moment: Tensor) -> Basis:
    """Principal axes of the keys in the queries' metric, columns of length 1 in fp16."""
    strength, axes = torch.linalg.eigh(moment)
    moment = (axes * strength.clamp(min=1e-4 * float(strength.max()))) @ axes.T
    root = torch.linalg.cholesky(moment)
    _, vectors = torch.linalg.eigh((centred @ root).T @ (centred @ root))
    project = torch.linalg.solve(root.T, vectors.flip(1))
    project = (project / project.norm(dim=0)).half().double()
    return Basis(project, torch.linalg.inv(project), (project * (moment @ project)).sum(0))


def water_fill(energy: Tensor, steps: int) -> Tensor:
    """Bits per coordinate, 0, 2 or 4: two at a time to where they remove most error."""
    bits = torch.zeros(len(energy), dtype=torch.long)
    for _ in range(steps):
        gain = torch.tensor(
            [
                float(e) * (DISTORTION[b] - DISTORTION[b + 2]) if b < 4 else 0.0
                for e, b in zip(energy, bits.tolist(), strict=True)
            ]
        )
        if float(gain.max()) > 0:
            bits[gain.argmax()] += 2
    return bits


def plan_codes(energy: Tensor, row_bytes: int) -> list[int]:
    """Bits of each chunk of 16 coordinates, `energy` sorted: the best run of eights, fours, then twos."""
    chunks = [float(c.sum()) for c in energy.split(16)]
    best, least = [0] * len(chunks), float("inf")
    for eights in range(len(chunks) + 1):
        for fours in range(len(chunks) + 1 - eights):
            room = row_bytes - 16 * eights - 8 * fours
            if room < 0:
                continue
            twos = min(len(chunks) - eights - fours, room // 4)
            plan = [8] * eights + [4] * fours + [2] * twos
            plan += [0] * (len(chunks) - len(plan))
            error = sum(e * DISTORTION[b] for e, b in zip(chunks, plan, strict=True))
            if error < least:
                best, least = plan, error
    return best


def decoded(x: Tensor, bits: int, power: int = 4) -> tuple[Tensor, float]:
    """`x` (n,) as its codes tell it, with the range that leaves the least mean `power` of the error, and the
    quantizer's step."""
    deviation = float(x.square().mean().sqrt())
    if bits == 0 or deviation == 0:
        return torch.zeros_like(x), 0.0
    middle = (2**bits - 1) / 2

    def error(step: float) -> float:
        beyond = (x.abs() - middle * step)[x.abs() > (middle + 0.5) * step]
        return (step / 2) ** power / (power + 1) + float(beyond.pow(power).sum()) / len(x)

    step = min((2 * width * deviation / 2**bits for width in RANGES[bits]), key=error)
    return ((x / step + middle + 0.5).floor().clamp(0, 2**bits - 1) - middle) * step, step


def rounded(p: Tensor, step: Tensor, bits: Tensor, most: int, whole: bool) -> tuple[Tensor, Tensor]:
    """Projected queries (group, d) as whole multiples, at most `most`, of a unit per step, and the variance
    that this adds to a score. `whole`: units are 128ths of a bit, and sums fit into 16 bits."""
    x = p * step * LOG2E
    top = 2.0**bits - 1
    unit = x.abs().amax(1, keepdim=True) / most
    if whole:
        unit = torch.maximum(unit, (x.abs() * top).sum(1, keepdim=True) / 61000)
        unit = (unit * 128).ceil().clamp(min=1) / 128
    unit = unit.clamp(min=1e-30)
    near = (x / unit).round() * unit
    lost = ((x - near).square() * top.square() * 0.04).sum(1) / LOG2E**2
    return torch.where(step > 0, near / (step * LOG2E).clamp(min=1e-300), 0.0), lost


def decoded_values(values: Tensor, bits: int = 4) -> Tensor:
    """Affine per token; lowest number and step in bf16, rounded before the codes are made."""
    low, most = values.min(1, keepdim=True).values.bfloat16().double(), 2**bits - 1
    step = ((values.max(1, keepdim=True).values - low).clamp(min=0) / most).bfloat16().double()
    codes = ((values - low) / step.clamp(min=1e-300) + 0.5).floor().clamp(0, most)
    return codes * step + low


def make_lists(features: Tensor) -> Tensor:
    """The list of each row of `features` (n, f): halved where they spread most, until 64 are left."""
    list_of = torch.zeros(len(features), dtype=torch.long)

    def split(rows: Tensor, first: int) -> None:
        lists = -(-len(rows) // LIST)
        if lists <= 1:
            list_of[rows] = first
            return
        widest = int((features[rows] - features[rows].mean(0)).square().sum(0).argmax())
        rows = rows[features[rows, widest].argsort(stable=True)]
        split(rows[: lists // 2 * LIST].sort().values, first)
        split(rows[lists // 2 * LIST :].sort().values, first + lists // 2)

    split(torch.arange(len(features)), 0)
    return list_of


def seal(
    keys: Tensor,
    values: Tensor,
    moment: Tensor,
    basis: Basis | None = None,
    sketch_bits: float = 1.25,
    code_bits: float = 3.0,
    power: int = 4,
    value_bits: int = 4,
    sketcher: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Segment:
    """A segment under the queries' second `moment` (d, d), or in the `basis` of its predecessor.

    `sketcher`: another quantizer for the sketch, to compare with: from keys (n, d) in the basis' coordinates
    and their weights to what a decoder would see of them.
    """
    keys, values = keys.double(), values.double()
    d, mean = keys.shape[1], keys.mean(0)
    basis = basis or find_basis(keys - mean, moment.double())
    y = (keys - mean) @ basis.inverse.T

    bits = torch.zeros(2, d, dtype=torch.long)
    steps = torch.zeros(2, d, dtype=torch.float64)
    bits[0] = water_fill(basis.weight * y.square().mean(0), max(4, round(sketch_bits * d / 16) * 4) * 2)
    sketch = torch.zeros_like(y)
    for j in range(d):
        sketch[:, j], steps[0, j] = decoded(y[:, j], int(bits[0, j]), power)
    if sketcher is not None:
        sketch = sketcher(y, basis.weight)
    left = y - sketch
    residue = left.square().mean(0)
    length = (left.square() @ basis.weight).sqrt()
    usual = float(length.square().mean().sqrt())
    odd = (left.square() / residue.clamp(min=1e-30))[:, residue > 1e-30].mean(1)
    length = (torch.maximum(length / usual, odd) * 4 + 0.5).floor().clamp(max=15) if usual > 0 else length * 0

    ranked = (basis.weight * residue).argsort(descending=True, stable=True)
    plan = plan_codes((basis.weight * residue)[ranked], -int(-code_bits * -(-d // 16) // 2) * 4)
    codes = torch.zeros_like(y)
    for rank, j in enumerate(ranked.tolist()):
        bits[1, j] = plan[rank // 16]
        codes[:, j], steps[1, j] = decoded(left[:, j], plan[rank // 16], power)

    centred = values - values.mean(0)
    sample = centred[:: max(1, len(centred) // 512)]
    axes = torch.linalg.eigh(sample.T @ sample)[1][:, -8:]
    spread = (centred @ axes[:, -1]).std(unbiased=False).clamp(min=1e-30)
    scale = basis.weight[0].sqrt() * y[:, 0].std(unbiased=False) * 0.7 / spread
    list_of = make_lists(torch.cat([(basis.weight.sqrt() * y)[:, :16], centred @ axes * scale], 1))
    sums = torch.zeros(int(list_of.max()) + 1, d, dtype=torch.float64).index_add_(0, list_of, values)
    list_mean = sums / torch.bincount(list_of)[:, None]
    of_list = torch.zeros(len(list_mean), d, dtype=torch.float64).index_add_(0, list_of, y)
    away = y - (of_list / torch.bincount(list_of)[:, None])[list_of]
    within = away.square().mean(0)
    tilt = (away / within.sqrt().clamp(min=1e-300))[:, :16].T @ values / len(values)
    strength = tilt.square().sum(1, keepdim=True).clamp(min=1e-300)
    chance = 3 * (values - list_mean[list_of]).square().sum(1).mean() / len(values)
    tilt *= (1 - chance / strength).clamp(min=0)
    return Segment(
        keys,
        values,
        basis,
        mean,
        sketch,
        residue,
        length,
        codes,
        steps,
        bits,
        decoded_values(values, value_bits),
        list_of,
        decoded_values(list_mean),
        within,
        tilt,
    )


def attend(
    segments: list[Segment],
    query: Tensor,
    scaling: float,
    static_lse: Tensor | None = None,
    softcap: float | None = None,
    a: float = 4.0,
    b: float = 1.25,
    c: float = 30.0,
    reach: float = 2.5,
    in_order: list[bool] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`out` (group, d), `lse` (group,) of the index alone, and each token's tier: 0 by its list, 1 the same
    after it was scored again, 2 from its value code, 3 exactly.

    in_order : for each segment, whether it is read whole: all keys by their codes, not only those that may be
        large.
    """
    query = query.double() * scaling
    group, n = len(query), sum(len(s.keys) for s in segments)
    a, b, c = (x * min(1.0, max(0.25, n / 4096)) for x in (a, b, c))
    c *= max(1.0, n / 8192) ** 0.5
    static = torch.full((group,), -torch.inf) if static_lse is None else static_lse.double()

    def capped(z: Tensor) -> Tensor:
        return z if softcap is None else softcap * (z / softcap).tanh()

    p = [query @ s.basis.project for s in segments]
    by_sketch = [rounded(p_, s.steps[0], s.bits[0], 127, True) for p_, s in zip(p, segments, strict=True)]
    raw = torch.cat(
        [
            near @ s.sketch.T + (query @ s.mean)[:, None]
            for (near, _), s in zip(by_sketch, segments, strict=True)
        ],
        1,
    )
    variance = [
        p_.square() @ s.residue + lost for p_, (_, lost), s in zip(p, by_sketch, segments, strict=True)
    ]
    raised = torch.cat(
        [
            ((0.5 + v.sqrt()).clamp(min=reach) * v.sqrt())[:, None] * s.length / 4
            for v, s in zip(variance, segments, strict=True)
        ],
        1,
    )
    length = torch.cat([s.length for s in segments])
    by_code = []
    for p_, s in zip(p, segments, strict=True):
        eights = s.bits[1] == 8
        near = rounded(p_, s.steps[1] * ~eights, s.bits[1], 127, False)[0]
        by_code.append(near + rounded(p_, s.steps[1] * eights, s.bits[1], 32767, False)[0])
    refined = torch.cat([near @ s.codes.T for near, s in zip(by_code, segments, strict=True)], 1)
    whole = torch.cat(
        [
            torch.full((len(s.keys),), each)
            for s, each in zip(segments, in_order or [False] * len(segments), strict=True)
        ]
    )
    z = capped(raw)
    everything = torch.logaddexp(z.logsumexp(1), static)[:, None]

    may_have = (capped(raw + raised) - everything).exp().amax(0).masked_fill(length == 15, torch.inf)
    scored = ((may_have > a / n) | whole).nonzero()[:, 0]
    z[:, scored] = capped((raw + refined)[:, scored])
    share = (z - everything).exp().amax(0)
    tier = torch.zeros(n, dtype=torch.long)
    tier[scored] = 1
    tier[scored[share[scored] > b / n]] = 2
    tier[whole] = 2
    tier[scored[(share[scored] > c / n) | (length[scored] == 15)]] = 3
    keys = torch.cat([s.keys for s in segments])
    z[:, tier == 3] = capped(query @ keys[tier == 3].T)

    # An exponential of an uncertain score is larger on average than that of its estimate.
    sizes = [len(s.keys) for s in segments]
    top = torch.stack([capped(part).amax(1) for part in raw.split(sizes, 1)])
    slope = torch.ones_like(top) if softcap is None else 1 - (top / softcap).square()
    more = [
        0.5 * (v * c.square()).clamp(max=1.0)[:, None].expand(-1, m)
        for v, c, m in zip(variance, slope, sizes, strict=True)
    ]
    z = torch.where(tier == 0, z + torch.cat(more, 1), z)
    lse = z.logsumexp(1)
    weight = (z - lse[:, None]).exp()
    values = torch.cat([s.list_mean[s.list_of] for s in segments])
    values[tier == 2] = torch.cat([s.value_codes for s in segments])[tier == 2]
    values[tier == 3] = torch.cat([s.values for s in segments])[tier == 3]
    out = weight @ values
    # Keys of a list that weigh more than the rest have other values: the list's mean, tilted.
    for i, (p_, s, w) in enumerate(zip(p, segments, (weight * (tier <= 1)).split(sizes, 1), strict=True)):
        p_ = p_ * slope[i][:, None]
        spread = (p_.square() @ s.within)[:, None]
        out += (
            w.sum(1, keepdim=True) / (1 + spread / 10) * ((p_ * s.within.sqrt())[:, : len(s.tilt)] @ s.tilt)
        )
    return out, lse, tier
