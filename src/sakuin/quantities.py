"""Sizes, times, counts and names as people read and write them: 0.84 GB, 30 d, 1 file, a, b and 3 more.

Called by the commands and by whatever says a figure or a name in a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sakuin.errors import SakuinError

_TIMES = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SIZES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
MOST_NAMES = 8
"""Names that a sentence lists."""
_SPANS = ((86400, "d"), (3600, "h"), (60, "min"))


def size_of(size: float) -> str:
    """A size in words: 0.84 GB, 12.0 GB, 310 MB."""
    if size < 0.5e9:
        return f"{size / 1e6:,.0f} MB"
    return f"{size / 1e9:.2f} GB" if size < 10e9 else f"{size / 1e9:,.1f} GB"


def within(size: float, most: float | None) -> str:
    """A size and its bound in words: 3 MB; 3 MB of 5 MB; 3 MB, more than its quota of 1 MB,."""
    if most is None:
        return size_of(size)
    over = size > most
    return (
        f"{size_of(size)}, more than its quota of {size_of(most)},"
        if over
        else f"{size_of(size)} of {size_of(most)}"
    )


def span_of(seconds: float) -> str:
    """A time in words, roughly: 3 d, 5 h, 12 min, 40 s."""
    for length, unit in _SPANS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def counted(n: int, thing: str) -> str:
    """So many of a thing: 1 file, 1,204 tokens."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def listed(names: Iterable[str]) -> str:
    """Names in a sentence, the first eight of many: a, b, c and 3 more."""
    every = list(names)
    more = len(every) - MOST_NAMES
    return ", ".join(every) if more <= 0 else f"{', '.join(every[:MOST_NAMES])} and {more:,} more"


def meant(word: str, names: Iterable[str]) -> str:
    """ " (did you mean …?)" where one of `names` is nearly `word`, to be put after it; else ""."""
    near = nearest(word, names)
    return "" if near is None else f" (did you mean {near}?)"


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The one of `names` that is nearly `word`, whatever their case; None where there is none."""
    from difflib import get_close_matches

    by_fold = {name.casefold(): name for name in names}
    found = get_close_matches(word[:100].casefold(), by_fold, 1, 0.6)
    return by_fold[found[0]] if found else None


def seconds_of(text: str, option: str) -> float:
    """The seconds in a time such as 90m, 12h, 30d, 8w."""
    return _number(text, _TIMES, option, "a time such as 12h, 30d or 8w")


def bytes_of(text: str, option: str) -> int:
    """The bytes in a size such as 500MB, 20GB, 16GiB."""
    return int(_number(text, _SIZES, option, "a size such as 500MB, 20GB or 16GiB"))


def _number(text: str, units: dict[str, int], option: str, what: str) -> float:
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)\s*([A-Za-z]+)", text.strip())
    if match is None or match[2].lower() not in units or float(match[1]) == 0:
        raise SakuinError(f"{option} must be {what}, got {text!r}.")
    return float(match[1]) * units[match[2].lower()]
