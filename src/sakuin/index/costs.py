"""What one decode step costs, by instruction set: the constants of `sakuin.index.choice`.

The classes say what each constant is multiplied with. The numbers below them are written by
`python -m benchmarks.speed.choice`, which measures them; do not edit them by hand. They are microseconds of
the machine that benchmarks/results/choice-<isa>.json names, on its threads. Only their ratios decide.
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

    def key(self, head_dim: float, group_size: int) -> float:
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
            "bf16": FlatCosts(148.7, 0.113, 0.01893, 0.0),
            "fp16": FlatCosts(148.7, 0.1319, 0.01557, 0.0),
            "fp32": FlatCosts(148.7, 0.2915, 0.005452, 0.0),
            "int8": FlatCosts(148.7, 0.05748, 0.01927, 0.0),
        },
        sketch=SketchCosts(
            call=192.7,
            segment=0.0,
            project=219.7,
            key=0.0,
            dim=0.008441,
            head=1.205,
            multiply=0.0,
            power=0.4007,
        ),
    ),
    "avx512": StepCosts(
        flat={
            "bf16": FlatCosts(170.8, 0.138, 0.01103, 0.0),
            "fp16": FlatCosts(170.8, 0.1601, 0.009019, 0.2526),
            "fp32": FlatCosts(170.8, 0.322, 0.0, 0.4311),
            "int8": FlatCosts(170.8, 0.05444, 0.01579, 0.09577),
        },
        sketch=SketchCosts(
            call=212.7,
            segment=4.278,
            project=114.2,
            key=0.0,
            dim=0.007148,
            head=1.015,
            multiply=0.0,
            power=0.3989,
        ),
    ),
    "avx512bf16": StepCosts(
        flat={
            "bf16": FlatCosts(139.3, 0.1041, 0.01141, 0.09548),
            "fp16": FlatCosts(139.3, 0.1363, 0.01302, 0.0),
            "fp32": FlatCosts(139.3, 0.2586, 0.008163, 0.1904),
            "int8": FlatCosts(139.3, 0.04416, 0.01696, 0.1779),
        },
        sketch=SketchCosts(
            call=165.6,
            segment=5.695,
            project=121.5,
            key=0.0,
            dim=0.007852,
            head=0.825,
            multiply=0.0,
            power=0.5206,
        ),
    ),
}
