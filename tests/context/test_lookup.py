"""What an answer looks up, beyond what any question draws; and how much of an answer that supports."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from sakuin.context import lookup, support
from sakuin.context.lookup import TIMES, WITHIN, Lookups


@dataclass
class Masses:
    """Hands out a mass a step, as a cache does."""

    steps: list[Tensor]
    at: int = field(default=0)

    def track_mass(self, on: bool, above: float) -> None:
        assert on
        assert above == lookup.ABOVE

    def take_mass(self, n_tokens: int) -> tuple[Tensor, Tensor]:
        self.at += 1
        mass = self.steps[self.at - 1][:n_tokens]
        at = mass.nonzero()[:, 0]
        return at, mass[at]


def looked_up(steps: list[Tensor], n: int) -> Lookups:
    lookups = Lookups(Masses(steps), n)
    for _ in steps:
        lookups.note()
    return lookups


def test_what_any_question_draws_is_taken_off() -> None:
    lookups = looked_up([torch.tensor([5.0, 0, 1, 9]), torch.tensor([5.0, 0, 3, 9])], 3)
    drawn = torch.tensor([4.0, 1, 0.5])
    assert lookups.mean().tolist() == [5, 0, 2]
    assert lookups.beyond(drawn).tolist() == [0, 0, 2 - TIMES * 0.5]
    assert lookups.most(drawn) == pytest.approx(2 - TIMES * 0.5)


def test_support_is_that_of_the_best_steps_of_a_long_answer() -> None:
    steps = [torch.zeros(2) for _ in range(50)]
    for i in range(20, 20 + WITHIN):
        steps[i] = torch.tensor([0.0, 3.0])
    lookups = looked_up(steps, 2)
    assert lookups.most(torch.zeros(2)) == pytest.approx(3.0, rel=1e-5)
    assert float(lookups.mean().sum()) == pytest.approx(3.0 * WITHIN / 50)


def test_an_answer_without_a_step_looks_up_nothing() -> None:
    lookups = looked_up([], 3)
    assert lookups.most(torch.zeros(3)) == 0.0
    assert lookups.beyond(torch.zeros(3)).tolist() == [0, 0, 0]


def test_what_was_drawn_is_kept_and_read_again() -> None:
    mass = torch.tensor([0.0, 2.5, 0, 0.25])
    kept = lookup.packed(mass, "a text")
    assert kept.positions == [1, 3]
    assert lookup.unpacked(kept, 4).tolist() == mass.tolist()
    assert lookup.unpacked(kept, 2).tolist() == [0, 2.5]
    assert lookup.unpacked(kept, 6).tolist() == [*mass.tolist(), 0, 0]
    assert kept.fits("a text")
    assert not kept.fits("a text that has grown")


def test_support_is_a_share_of_the_models_own_scale() -> None:
    assert support.of(1.0, 4.0) == pytest.approx(0.25 / support.USUAL)
    assert support.of(9.0, 4.0) == 1.0
    assert support.of(1.0, 0.0) is None
