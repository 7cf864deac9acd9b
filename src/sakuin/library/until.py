"""How long a context is kept, as a time. Called by `sakuin.library.library`."""

from __future__ import annotations

import time

from sakuin import arguments
from sakuin.errors import SakuinError

_YEARS = 1000
_MOST = _YEARS * 365 * 24 * 3600.0
"""Seconds; a manifest holds no time that is far beyond."""


def until(keep_for: float | None) -> float | None:
    """When the time of a context is over that is kept for so many seconds from now; None for never."""
    if keep_for is None or (isinstance(keep_for, float) and keep_for == float("inf")):
        return None
    seconds = arguments.real(keep_for)
    if seconds is None or seconds > _MOST:
        raise SakuinError(
            f"keep_for must be a number of seconds, at most {_MOST:,.0f} ({_YEARS:,} years), or infinity for "
            f"ever, got {arguments.shown(keep_for)}."
        )
    return max(0.0, time.time() + seconds)
