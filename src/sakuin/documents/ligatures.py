"""Ligatures that a file has as single letters, such as ﬁ, as the letters that they stand for: who looks for
"fire" finds it."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import replace
from itertools import accumulate

from sakuin.documents.document import Document

_LETTERS = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
_ALL = str.maketrans(_LETTERS)
_ONE = re.compile("[ﬀ-ﬆ]")


def opened(document: Document) -> Document:
    """The document without ligatures, its marks where they belong."""
    places = [match.start() for match in _ONE.finditer(document.text)]
    if not places:
        return document
    more = [0, *accumulate(len(_LETTERS[document.text[place]]) - 1 for place in places)]
    marks = (
        replace(
            mark,
            start=mark.start + more[bisect_left(places, mark.start)],
            heading=mark.heading and mark.heading.translate(_ALL),
        )
        for mark in document.marks
    )
    return replace(document, text=document.text.translate(_ALL), marks=tuple(marks))
