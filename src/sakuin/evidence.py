"""Where an answer came from: passages of the document that its tokens attended to.

While an answer is decoded, the cache adds up the attention that each token of the context received. Most of it is spread thin, or
lies on tokens that always get some; what retrieves stands out far above. `passages` keeps that, joins neighbours, and leaves the rest.
Called by `sakuin.context`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A passage that the answer attended to.

    start, end : character offsets into the text of `file`, end not included.
    weight : share of all that stood out, 0 to 1; the weights of an answer's passages sum to at most 1.
    line_start, line_end : the lines, counted from 1, of its first and last character.
    text : the passage.
    """

    start: int
    end: int
    weight: float
    file: str = ""
    line_start: int = 0
    line_end: int = 0
    text: str = ""


def passages(mass, starts, ends, text, places):
    return []
