"""What `benchmarks.speed.end_to_end` runs: models, lengths, and about how long each stage takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

SPARE = 192
"""Tokens of a model's window that are left for the question and the decoded tokens."""
START = 8.0
"""Seconds until a child has imported all and loaded a model."""


@dataclass(frozen=True)
class Case:
    """A model, and how far it is measured.

    name : of the catalogue, or a shape of `benchmarks.random_gguf`.
    lengths : tokens that are really read. filled : lengths for decoding alone, whose keys and values come
        from a real pass over `captured` tokens that was made longer.
    peer_to : the longest text that llama.cpp alone reads. together : tokens behind which sequences are
        decoded together; 0 is never. transformers : lengths at which transformers is measured.
    ours, theirs : of prefill, seconds a token and a squared token on a machine with AMX: for estimates.
    """

    name: str
    lengths: tuple[int, ...]
    ours: tuple[float, float]
    theirs: tuple[float, float]
    filled: tuple[int, ...] = ()
    captured: int = 0
    peer_to: int = 1 << 20
    together: int = 8192
    transformers: tuple[int, ...] = ()


CASES = {
    case.name: case
    for case in (
        Case("smollm2", (1024, 8192), (5e-4, 2e-8), (3.3e-3, 2.3e-7), transformers=(1024, 8192)),
        Case("gemma3-270m", (1024, 8192, 16384, 32768), (8e-4, 1e-8), (1.5e-3, 1e-7)),
        Case(
            "0.5b",
            (1024, 8192, 16384, 32768),
            (1.2e-3, 5.2e-8),
            (4.4e-3, 4.8e-7),
            filled=(131072,),
            captured=16384,
        ),
        Case(
            "3b",
            (1024, 8192),
            (7e-3, 1e-7),
            (2.5e-2, 1e-6),
            filled=(32768,),
            captured=8192,
            peer_to=1024,
            together=0,
        ),
    )
}
DEFAULT = ("smollm2", "gemma3-270m", "0.5b")
QUICK = replace(CASES["smollm2"], lengths=(1024, 4096), together=0, transformers=())


@dataclass(frozen=True)
class Effort:
    """How often what is repeated. loads, reads : of a fresh load and of a fresh text of 1K. turns, steps :
    of decoding in turn, and the timed steps of a turn."""

    loads: int = 5
    reads: int = 5
    turns: int = 3
    steps: int = 8


FULL, SHORT = Effort(), Effort(loads=1, reads=2)


@dataclass(frozen=True)
class Stage:
    """A part of the run, and about how many seconds it takes."""

    model: str
    name: str
    seconds: float


def reading(cost: tuple[float, float], tokens: int) -> float:
    """Seconds of reading so many tokens."""
    return cost[0] * tokens + cost[1] * tokens * tokens


def stages(cases: list[Case], variants: int, libraries: int, effort: Effort, slow: bool) -> Iterator[Stage]:
    """The stages of a run, in order. slow : the machine has no AMX."""
    ours_slower, theirs_slower = (4.0, 1.4) if slow else (1.0, 1.0)
    yield Stage("", "matrix rate", START)
    for case in cases:
        ours = [ours_slower * reading(case.ours, n) for n in case.lengths]
        theirs = [theirs_slower * reading(case.theirs, n) for n in case.lengths if n <= case.peer_to]
        yield Stage(case.name, "loads", 2 * effort.loads * START)
        probe = START + 3 * theirs[0] + 15
        yield Stage(case.name, "variants", variants * probe + (libraries - 1) * (START + ours[0] + 5))
        decoding = 6 * len(case.lengths) * effort.turns
        fresh = effort.reads * (ours[0] + theirs[0])
        yield Stage(case.name, "prefill and decode", 2 * START + ours[-1] + theirs[-1] + fresh + decoding)
        if case.filled:
            capture = 2 * ours_slower * reading(case.ours, case.captured)
            yield Stage(case.name, "filled", 2 * START + capture + 1e-3 * sum(case.filled) + 60)
        if case.together:
            yield Stage(case.name, "together", START + ours_slower * reading(case.ours, case.together) + 25)
        for n in case.transformers:
            yield Stage(case.name, f"transformers, {n}", 2 * (START + 4 * reading(case.theirs, n) + 10))
