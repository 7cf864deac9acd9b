"""Paired differences: the mean over tasks, and an interval that holds what it should."""

from __future__ import annotations

import numpy as np
import pytest

from sakuin.evaluate.paired import difference


def test_every_task_has_the_same_weight() -> None:
    found = difference({"a": [(100.0, 0.0)], "b": [(50.0, 50.0)] * 9})
    assert found.mean == -50.0
    assert (found.pairs, found.gained, found.lost) == (10, 0, 1)


def test_scores_that_never_differ_have_a_point_for_an_interval() -> None:
    found = difference({"a": [(100.0, 100.0), (0.0, 0.0)]})
    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)


def test_tasks_without_samples_are_left_out_and_none_at_all_is_said() -> None:
    assert difference({"a": [(0.0, 1.0)], "b": []}).mean == 1.0
    with pytest.raises(ValueError, match="no pairs"):
        difference({"a": []})


def test_the_interval_holds_the_truth_nineteen_times_of_twenty() -> None:
    random = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        pairs = {task: [(0.0, x) for x in random.normal(1.0, 5.0, 60)] for task in ("a", "b")}
        found = difference(pairs, seed)
        assert found.low < found.mean < found.high
        held += found.low <= 1.0 <= found.high
    assert 180 <= held <= 198


def test_many_pairs_are_drawn_a_few_resamples_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = {"a": [(0.0, float(x)) for x in np.random.default_rng(1).normal(1.0, 5.0, 50)]}
    at_once = difference(pairs)
    monkeypatch.setattr("sakuin.evaluate.paired._AT_ONCE", 50 * 7)
    parted = difference(pairs)
    assert (parted.low, parted.high) == pytest.approx((at_once.low, at_once.high), abs=0.1)


def test_pairs_matter_and_not_only_means() -> None:
    """What differs between samples, but not within pairs, does not widen the interval."""
    spread = [float(10 * i) for i in range(20)]
    found = difference({"a": [(x, x + 1 + 0.1 * (i % 2)) for i, x in enumerate(spread)]})
    assert found.high - found.low < 0.1
