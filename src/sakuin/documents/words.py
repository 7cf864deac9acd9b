"""Numbers and lists in words, for the notes on a document."""

from __future__ import annotations

from sakuin.quantities import counted


def with_and(things: list[str]) -> str:
    """Things in a row, the last two joined by "and"."""
    return " and ".join([", ".join(things[:-1]), things[-1]] if len(things) > 1 else things)


def struck_out(name: str, places: int) -> str:
    """The note on a document in which so many passages are struck out."""
    stand = "which stands" if places == 1 else "which stand"
    return f"{name} has {counted(places, 'passage')} struck out, {stand} between ~~ and ~~."
