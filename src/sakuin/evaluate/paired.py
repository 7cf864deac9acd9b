"""Differences of paired scores with a confidence interval: the same samples, answered in two ways.

Called by `sakuin.evaluate.answers`: `ruler` and `harness_runs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
_AT_ONCE = 10_000_000


@dataclass(frozen=True)
class Difference:
    """How much larger the second scores are than the first, on average.

    low, high : a 95 % confidence interval of the mean, by the paired bootstrap. With few samples, or where
        few of them differ, it is narrower than it should be; where none differs it is a point and says only
        that none did.
    gained, lost : pairs whose second score is larger, and smaller.
    """

    mean: float
    low: float
    high: float
    pairs: int
    gained: int
    lost: int


def difference(pairs: Mapping[str, Sequence[tuple[float, float]]], seed: int = 0) -> Difference:
    """The mean over tasks of each task's mean difference, second score less first.

    pairs : the pairs of each task; tasks without any are left out, and a `ValueError` says if none has one.

    Samples are drawn anew within each task, so that every task has the weight that it has in the mean.
    """
    tasks = [np.array([after - before for before, after in each]) for each in pairs.values() if each]
    if not tasks:
        raise ValueError("there are no pairs of scores to compare")
    random = np.random.default_rng(seed)
    means = np.zeros(RESAMPLES)
    for found in tasks:
        # A few resamples at a time: tasks can have many thousands of pairs.
        for at in range(0, RESAMPLES, step := max(1, _AT_ONCE // len(found))):
            drawn = random.integers(0, len(found), (min(step, RESAMPLES - at), len(found)))
            means[at : at + step] += found[drawn].mean(1) / len(tasks)
    low, high = np.quantile(means, [0.025, 0.975])
    whole = np.concatenate(tasks)
    return Difference(
        mean=float(np.mean([found.mean() for found in tasks])),
        low=float(low),
        high=float(high),
        pairs=len(whole),
        gained=int((whole > 0).sum()),
        lost=int((whole < 0).sum()),
    )
