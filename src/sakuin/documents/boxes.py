"""Boxes of forms: `[x]` where one is ticked, `[ ]` where it is empty, `____` where nothing is filled in."""

from __future__ import annotations

EMPTY, TICKED, BLANK = "[ ]", "[x]", "____"

_LETTERS = {"☐": EMPTY, "☑": TICKED, "☒": TICKED, "🗹": TICKED, "🗷": TICKED, "🗵": TICKED}


def boxes(text: str) -> str:
    """`text` with boxes that are letters written as the others are."""
    if text.isascii():
        return text
    for box, words in _LETTERS.items():
        text = text.replace(box, words)
    return text
