"""The sums that attention mass is added up in: how they grow, are cropped, and begin again."""

from __future__ import annotations

import torch

from sakuin.cache.tracked_mass import TrackedMass


def test_sums_grow_with_the_tokens_and_keep_what_was_added() -> None:
    mass = TrackedMass()
    mass.of(2, 3)[:] = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    assert mass.of(2, 1000).shape == (2, 1000)
    assert mass.sums[:, :3].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert float(mass.sums.sum()) == 21


def test_the_room_for_more_tokens_is_the_same_memory_in_most_steps() -> None:
    mass = TrackedMass(above=0.1)
    room = mass.in_room(2, 500)
    for n in range(501, 520):
        assert mass.in_room(2, n) is room
        assert mass.sums.shape == (2, n)
    room[1, 518] = 7.0
    room[:, 3] = 2.0
    assert [x.tolist() for x in mass.take()] == [[3, 518], [4, 7]]
    assert [x.tolist() for x in mass.take()] == [[], []]
    room[:, 3] = room[:, 518] = 1.0
    assert [x.tolist() for x in mass.take(518)] == [[3], [2]]
    assert not room.any()


def test_layers_may_have_fewer_heads_than_others() -> None:
    mass = TrackedMass()
    mass.of(1, 4)[:] = 1.0
    mass.of(3, 4)[2] = 5.0
    assert mass.in_room(1, 4).shape[0] == 1
    assert mass.sums.tolist() == [[1] * 4, [0] * 4, [5] * 4]


def test_tokens_that_are_cropped_are_forgotten_and_others_come_in_their_place() -> None:
    mass = TrackedMass()
    back = mass.restorer()
    mass.of(1, 10)[:] = 1.0
    mass.crop(6)
    assert mass.sums.tolist() == [[1] * 6]
    assert mass.of(1, 8).tolist() == [[1] * 6 + [0] * 2]
    back()
    assert mass.sums.shape[1] == 0
    assert mass.of(1, 8).tolist() == [[0] * 8]


def test_steps_in_inference_mode_and_outside_of_it_share_the_sums() -> None:
    mass = TrackedMass()
    with torch.inference_mode():
        mass.of(2, 5).add_(1.0)
    mass.of(2, 6).add_(1.0)
    mass.crop(5)
    assert [x.tolist() for x in mass.take()] == [list(range(5)), [4] * 5]
