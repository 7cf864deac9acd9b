"""Rows for tables from the units of a fidelity run: by configuration, and by what else is asked for.

Called by `sakuin eval fidelity`, the pictures and the docs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from sakuin.evaluate.answers.fidelity import Unit

BLOCK = 16
"""Neighbouring positions are alike: intervals are drawn from blocks of so many."""
DRAWS = 1000


@dataclass(frozen=True)
class Row:
    """Units of one configuration together.

    tokens : positions. kl, kl_low, kl_high : mean divergence in nats, and its 95 % interval (bootstrap over
        blocks of 16 positions: for these texts). kl_worst : of one position. kl_retrieval : mean over the
        positions that retrieve.
    top1 : share of the positions whose likeliest token is full attention's.
    perplexity_ratio : to full attention's, over the texts' own next tokens.
    lost : retrieved tokens that full attention has right and this has not, of `retrieved` that it has right.
    error : relative L2 error of the attention output, mean over positions, layers and heads. worst_head : the
        largest mean of one head of a layer.
    touched_share : of the offloaded keys and values at 2 bytes a number. coverage : share of the softmax mass
        that was attended exactly or from codes.
    """

    configuration: str
    tokens: int
    kl: float
    kl_low: float
    kl_high: float
    kl_worst: float
    kl_retrieval: float
    top1: float
    perplexity_ratio: float
    lost: int
    retrieved: int
    error: float
    worst_head: float
    touched_share: float
    coverage: float


def row(units: Sequence[Unit]) -> Row:
    """One row of units of one configuration."""
    kl = [x for unit in units for x in unit.kl]
    low, high = interval([unit.kl for unit in units])
    more = [a - b for unit in units for a, b in zip(unit.nll, unit.full_nll, strict=True)]
    retrieving = [(unit, token - 1) for unit in units for token in unit.retrieved]
    pairs = [(unit.full_right[at], unit.right[at]) for unit, at in retrieving]
    heads = [e for unit in units for layer in unit.errors for e in layer]
    return Row(
        configuration=units[0].configuration,
        tokens=len(kl),
        kl=fmean(kl),
        kl_low=low,
        kl_high=high,
        kl_worst=max(kl),
        kl_retrieval=fmean(unit.kl[at] for unit, at in retrieving) if retrieving else math.nan,
        top1=fmean(same for unit in units for same in unit.same),
        perplexity_ratio=math.exp(fmean(more)),
        lost=sum(full and not ours for full, ours in pairs),
        retrieved=sum(full for full, _ in pairs),
        error=fmean(heads),
        worst_head=max(heads),
        touched_share=fmean(unit.touched_share for unit in units),
        coverage=fmean(unit.coverage for unit in units),
    )


def rows(units: Iterable[Unit], by: Callable[[Unit], object] = lambda unit: None) -> dict[object, list[Row]]:
    """For each value of `by`, a row for each configuration, in the order of the units."""
    groups: dict[object, dict[str, list[Unit]]] = {}
    for unit in units:
        groups.setdefault(by(unit), {}).setdefault(unit.configuration, []).append(unit)
    return {value: [row(each) for each in group.values()] for value, group in groups.items()}


def layers(units: Iterable[Unit], configuration: str) -> dict[int, float]:
    """The mean error of the attention output of each layer."""
    own = [unit for unit in units if unit.configuration == configuration]
    return {
        number: fmean(e for unit in own for e in unit.errors[at]) for at, number in enumerate(own[0].layers)
    }


def ahead(units: Iterable[Unit], ours: str, peer: str) -> tuple[float, float, float]:
    """By how much the KL divergence of `peer` is above that of `ours` at the same positions: mean and its
    95 % interval. Below 0, all of it, `peer` is better."""
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    for unit in units:
        found.setdefault((unit.passage, unit.length), {})[unit.configuration] = unit.kl
    differences = [
        [b - a for a, b in zip(kl[ours], kl[peer], strict=True)]
        for kl in found.values()
        if ours in kl and peer in kl
    ]
    low, high = interval(differences)
    return fmean(x for each in differences for x in each), low, high


def interval(runs: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The 95 % interval of the mean over runs of neighbouring values, by drawing blocks of them again."""
    blocks = [run[at : at + BLOCK] for run in runs for at in range(0, len(run), BLOCK)]
    sums = [(sum(block), len(block)) for block in blocks]
    rng = random.Random(0)
    means = []
    for _ in range(DRAWS):
        drawn = rng.choices(sums, k=len(sums))
        means.append(sum(total for total, _ in drawn) / sum(count for _, count in drawn))
    means.sort()
    return means[round(0.025 * (DRAWS - 1))], means[round(0.975 * (DRAWS - 1))]
