"""What one decode step costs, by instruction set: the constants of `sakuin.choice`.

The classes say what each constant is multiplied with. The numbers below them are written by
`python benchmarks/choice.py`, which measures them; do not edit them by hand. They are microseconds of the
machine that benchmarks/results/choice-<isa>.json names, on its threads. Only their ratios decide.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FlatCosts:
    """Microseconds of a call, and for a thousand keys and values of one KV head: for each dimension, for each
    dimension and query head, for each query head."""

    call: float
    dim: float
    multiply: float
    head: float

    def key(self, head_dim: int, group_size: int) -> float:
        """A thousand keys and values of `head_dim` dimensions, for the whole query group."""
        return head_dim * self.dim + head_dim * group_size * self.multiply + group_size * self.head


@dataclass(frozen=True)
class SketchCosts:
    """Microseconds of a call; for a segment of one KV head, as it is and for a million numbers of its basis
    times query heads; for a thousand keys of one KV head, as they are, for each dimension, for each query
    head, for each of both. What the keys cost is multiplied with tolerance^-power."""

    call: float
    segment: float
    project: float
    key: float
    dim: float
    head: float
    multiply: float
    power: float

    @property
    def terms(self) -> tuple[float, ...]:
        return self.call, self.segment, self.project, self.key, self.dim, self.head, self.multiply


@dataclass(frozen=True)
class StepCosts:
    """Constants of one instruction set; `flat` by the name of the dtype that keys and values have."""

    flat: dict[str, FlatCosts]
    sketch: SketchCosts


COSTS: dict[str, StepCosts] = {
    "avx2": StepCosts(
        flat={
            "bf16": FlatCosts(170.2, 0.1279, 0.01645, 0.3024),
            "fp16": FlatCosts(170.2, 0.1415, 0.007998, 0.73),
            "fp32": FlatCosts(170.2, 0.2845, 0.0, 0.7575),
            "int8": FlatCosts(170.2, 0.07333, 0.01745, 0.2342),
        },
        sketch=SketchCosts(
            call=219.9,
            segment=0.0,
            project=230.3,
            key=1.194,
            dim=0.01097,
            head=0.9859,
            multiply=0.0,
            power=0.2653,
        ),
    ),
    "avx512": StepCosts(
        flat={
            "bf16": FlatCosts(152.5, 0.1318, 0.01022, 0.0),
            "fp16": FlatCosts(152.5, 0.14, 0.01064, 0.0),
            "fp32": FlatCosts(152.5, 0.3011, 0.001258, 0.146),
            "int8": FlatCosts(152.5, 0.0428, 0.01796, 0.0),
        },
        sketch=SketchCosts(
            call=195.5,
            segment=0.3334,
            project=173.9,
            key=0.3278,
            dim=0.01454,
            head=0.6547,
            multiply=0.0006708,
            power=0.3939,
        ),
    ),
    "avx512bf16": StepCosts(
        flat={
            "bf16": FlatCosts(142.3, 0.08873, 0.01211, 0.0),
            "fp16": FlatCosts(142.3, 0.1119, 0.01179, 0.0),
            "fp32": FlatCosts(142.3, 0.2374, 0.009205, 0.0),
            "int8": FlatCosts(142.3, 0.03844, 0.01773, 0.0),
        },
        sketch=SketchCosts(
            call=187.6,
            segment=1.343,
            project=184.9,
            key=0.0,
            dim=0.0123,
            head=0.646,
            multiply=0.0,
            power=0.517,
        ),
    ),
}
