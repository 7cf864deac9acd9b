"""What every backend asks before it lets a model read more tokens than it was made for."""

from __future__ import annotations

from sakuin.arguments import integer, shown
from sakuin.errors import SakuinError


def check_window(name: str, own: int | None, window: int) -> int:
    """The own window of a model that is to read `window` tokens by scaled positions. Raises `SakuinError`
    where it states none, or `window` is shorter."""
    if own is None:
        raise SakuinError(
            f"{name} does not state how many tokens it reads, so its window cannot be made longer."
        )
    tokens = integer(window)
    if tokens is None or tokens < own:
        raise SakuinError(
            f"window must be a whole number of at least {own:,} tokens, which {name} reads as it is; got "
            f"{shown(window)}."
        )
    return own
