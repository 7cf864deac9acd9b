"""What a trial measures of a file, and the setting that follows from it: the right one, then the fastest.

Called by `sakuin.backends.llama_cpp.trial` and the process that it starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

LEAST, MOST = 8, 1024
"""Rows from which on sakuin may compute products in a session's dtype. With fewer, weights are nowhere
unpacked fast enough; where it takes more, few passes would have so many."""
FEW, MOST_FEW = 8, 32
"""Rows that sakuin's products in 8 bits take at a time, and at most."""
_PASS = 1024
_READ, _WRITTEN = 4096, 128
"""Tokens of the use that settings are compared by: a document of so many is read, an answer of so many
written."""
_WORTH = 0.9
"""Share of the time that repacked weights must need at most, since they double the memory of the weights."""
_SHARE, _FLOOR = 0.2, 1e-3


@dataclass(frozen=True)
class Measured:
    """One way to run a file.

    repack : llama.cpp keeps a second form of the weights. ours : products of `LEAST` rows and more are
        computed by sakuin.
    wrong : why it cannot be used, as the end of a sentence; "" where it can.
    short, long : rows and seconds of two passes of prefill. decode : seconds a token.
    few : rows and seconds of a pass of `FEW` rows; (0, 0) where sakuin has no products in 8 bits for the file
        on this machine.
    kl : of the next token, against the plainest way, on average. spread : the same between one position and
        another, which shows how large it is for logits that have nothing to do with each other.
    waited : share of the time that its threads waited for a CPU, because others had it.
    """

    repack: bool
    ours: bool
    wrong: str = ""
    short: tuple[int, float] = (0, 0.0)
    long: tuple[int, float] = (0, 0.0)
    decode: float = 0.0
    few: tuple[int, float] = (0, 0.0)
    kl: float = 0.0
    spread: float = 0.0
    waited: float = 0.0

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Measured:
        """From what `dataclasses.asdict` gave, through JSON. Raises `TypeError` or `LookupError` where it is
        something else."""
        passes = {name: (int(told[name][0]), float(told[name][1])) for name in ("short", "long", "few")}
        return cls(**{**told, **passes})

    @property
    def line(self) -> tuple[float, float]:
        """Seconds that a pass takes whatever its rows, and seconds a row."""
        (few, little), (many, much) = self.short, self.long
        each = (much - little) / (many - few) if many > few else 0.0
        fixed = much - many * each
        if each <= 0 or fixed < 0:
            return 0.0, much / max(many, 1)
        return fixed, each

    def seconds(self, rows: int) -> float:
        """What a pass of prefill takes."""
        fixed, each = self.line
        return fixed + rows * each

    @property
    def prefill_rate(self) -> float:
        """Tokens/s of passes of 1,024."""
        return _PASS / max(self.seconds(_PASS), 1e-9)

    @property
    def decode_rate(self) -> float:
        """Tokens/s."""
        return 1 / max(self.decode, 1e-9)

    @property
    def is_far(self) -> bool:
        """Whether its logits are others than those of the plainest way.

        On tokens at random rounding gives a few hundredths of the spread, and more the deeper a model is:
        0.115 in one of 28 layers with random weights. Products that are wrong give more than half, or NaN.
        """
        return not self.kl <= max(_SHARE * self.spread, _FLOOR)


@dataclass(frozen=True)
class Setting:
    """repack : as of `Options`. least_rows, few_rows : the same; 0 is never."""

    repack: bool
    least_rows: int
    few_rows: int = 0


def choose(measured: Iterable[Measured]) -> Setting | None:
    """The fastest setting of those that are right; None where the plainest one is not known to be."""
    right = {(each.repack, each.ours): each for each in measured if not each.wrong}
    plain = right.get((False, False))
    if plain is None:
        return None
    best, setting = _seconds(right, False)
    if (True, False) in right:
        other, repacked = _seconds(right, True)
        if other < _WORTH * best:
            return repacked
    return setting


def _seconds(right: dict[tuple[bool, bool], Measured], repack: bool) -> tuple[float, Setting]:
    """Seconds of the use that settings are compared by, and the best of them for this form of weights."""
    theirs, ours = right[repack, False], right.get((repack, True))
    if ours is None:
        return _READ / _PASS * theirs.seconds(_PASS) + _WRITTEN * theirs.decode, Setting(repack, 0, 0)
    few, least = _most_few(theirs, ours), _crossing(theirs, ours)
    reads, steps = ours if least else theirs, ours if few else theirs
    seconds = _READ / _PASS * reads.seconds(_PASS) + _WRITTEN * steps.decode
    return seconds, Setting(repack, max(least, few + 1) if least else 0, few)


def _most_few(theirs: Measured, ours: Measured) -> int:
    """Rows up to which sakuin's products in 8 bits are the fastest; 0 is never."""
    rows, seconds = ours.few
    if rows == 0 or ours.decode >= theirs.decode:
        return 0
    if seconds >= theirs.few[1]:
        return 1
    each = (seconds - ours.decode) / (rows - 1) if rows > 1 else 0.0
    most = rows
    while most + FEW <= MOST_FEW and (
        ours.decode + (most + FEW - 1) * each < min(theirs.seconds(most + FEW), ours.seconds(most + FEW))
    ):
        most += FEW
    return most


def _crossing(theirs: Measured, ours: Measured) -> int:
    """Rows, a power of two, from which on sakuin's products in the session's dtype are faster than
    llama.cpp's; 0 is never."""
    (fixed, each), (our_fixed, our_each) = theirs.line, ours.line
    rows = LEAST
    while rows <= MOST:
        if our_fixed + rows * our_each < fixed + rows * each:
            return rows
        rows *= 2
    return 0
