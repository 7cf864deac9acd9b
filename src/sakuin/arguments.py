"""What an argument must be: checked where it enters, with one sentence that names it, what was given and what
to give instead.

A thing of a wrong type is a `TypeError`; a number, whatever is wrong with it, is a `SakuinError`.
"""

from __future__ import annotations

import math
import operator
import os
from numbers import Real
from typing import Any

from sakuin.errors import SakuinError

_SHOWN = 60


def shown(value: object) -> str:
    """`value` in few characters, in one line."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # whatever a stranger's repr raises
        text = ""
    if isinstance(value, str | bytes | int | float) and len(text) > _SHOWN:
        return text[:_SHOWN] + "…"
    return text if text and len(text) <= _SHOWN else f"a {type(value).__name__}"


def integer(value: object) -> int | None:
    """`value` as an int if it is a whole number, also one of NumPy's; None for all else, bools too."""
    if isinstance(value, bool | str):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def real(value: object) -> float | None:
    """`value` as a float if it is a finite number, also one of NumPy's; None for all else, bools too."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) else None


def whole(name: str, value: object, least: int, most: int | None = None) -> int:
    """A count: a whole number from `least` up to `most`."""
    number = integer(value)
    if number is None or number < least or (most is not None and number > most):
        until = "" if most is None else f" and at most {most}"
        raise SakuinError(f"{name} must be a whole number of at least {least}{until}, got {shown(value)}.")
    return number


def text(name: str, value: object, remedy: str = "") -> str:
    """A text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text (str), got {shown(value)}{_then(remedy)}.")
    return value


def flag(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {shown(value)}.")
    return value


def path(name: str, value: object, remedy: str = "") -> str:
    """The name of a file or folder: a str, or what `pathlib` makes of one."""
    if not isinstance(value, str | os.PathLike) or not isinstance(found := os.fspath(value), str):
        raise TypeError(f"{name} must be a path (str or pathlib.Path), got {shown(value)}{_then(remedy)}.")
    if "\0" in found:
        raise SakuinError(f"{name} holds a NUL character, which no path has: {shown(found)}; check the path.")
    return found


def callback(name: str, value: Any, of: str) -> None:
    """Something to call, or None. of : what it is called with."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function of {of}, or None, got {shown(value)}.")


def _then(remedy: str) -> str:
    return f"; {remedy}" if remedy else ""
