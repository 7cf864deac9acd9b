"""Where an answer came from: sentences of the document whose tokens were looked up.

What was looked up is counted by `sakuin.context.lookup`; `passages` gives it to sentences. Called by
`sakuin.context.answer`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from sakuin.context import sentences

MOST_OF_TEXT = 0.1
"""The passages of an answer are at most this share of the text; the first is given in any case."""

_LEAST_WEIGHT = 0.01

_JOINED = 0.4
"""A sentence goes with its neighbour if it has at least this share of the neighbour's weight."""


@dataclass(frozen=True)
class Span:
    """A passage that the answer attended to.

    start, end : character offsets into the text of `file`, end not included.
    weight : share of all that was looked up, 0 to 1.
    line_start, line_end : the lines, counted from 1, of its first and last character.
    text : the passage.
    page : the page, counted from 1, of its first character; None where the file has no pages.
    heading : the heading above its first character, or its own; None where there is none that is known.
    """

    start: int
    end: int
    weight: float
    file: str = ""
    line_start: int = 0
    line_end: int = 0
    text: str = ""
    page: int | None = None
    heading: str | None = None


def passages(
    looked_up: Tensor, starts: Sequence[int], ends: Sequence[int], text: str, places: Sequence[int] = (0,)
) -> list[tuple[int, int, float]]:
    """Start, end and weight of the passages that were looked up, the weightiest first.

    looked_up : `(n,)`, of the n tokens that begin and end in `text` at `starts` and `ends`, at least 0.
    places : where in `text` each of its documents and their parts begin; no passage reaches from one into the
        next.
    """
    found: list[list[float]] = []  # start and end of a sentence, and its weight
    for at in looked_up.nonzero()[:, 0].tolist():
        weight, start, end = float(looked_up[at]), starts[at], ends[at]
        if not text[start:end].strip():
            continue
        while start < end - 1 and text[start].isspace():
            start += 1  # a word's token may begin with the blank that ends the sentence before
        if found and end <= found[-1][1]:
            found[-1][2] += weight
            continue
        low, high = _document(start, text, places)
        first, last = sentences.around(text, start, min(end, high), low, high)
        if found and first < found[-1][1]:  # a token that lies in two sentences
            found[-1][1:] = [max(last, found[-1][1]), found[-1][2] + weight]
        else:
            found.append([first, last, weight])
    total = sum(weight for _, _, weight in found)
    joined = [(int(start), int(end), weight / total) for start, end, weight in _joined(found, text, places)]
    joined.sort(key=lambda passage: -passage[2])
    return _within_budget(joined, MOST_OF_TEXT * len(text))


def _joined(found: list[list[float]], text: str, places: Sequence[int]) -> list[list[float]]:
    """Neighbours of much the same weight as one passage."""
    joined: list[list[float]] = []
    last = 0.0  # the weight of the last sentence of the last passage
    for start, end, weight in found:
        if (
            joined
            and not text[int(joined[-1][1]) : int(start)].strip()
            and bisect_right(places, start) == bisect_right(places, joined[-1][0])
            and min(weight, last) >= _JOINED * max(weight, last)
        ):
            joined[-1][1:] = [end, joined[-1][2] + weight]
        else:
            joined.append([start, end, weight])
        last = weight
    return joined


def _within_budget(ranked: list[tuple[int, int, float]], budget: float) -> list[tuple[int, int, float]]:
    kept, spent = ranked[:1], sum(end - start for start, end, _ in ranked[:1])
    for start, end, weight in ranked[1:]:
        if weight < _LEAST_WEIGHT:
            break
        if spent + end - start <= budget:
            kept.append((start, end, weight))
            spent += end - start
    return kept


def _document(at: int, text: str, places: Sequence[int]) -> tuple[int, int]:
    """Where the document around `at` begins and where the next one does."""
    which = bisect_right(places, at)
    return places[max(which - 1, 0)], places[which] if which < len(places) else len(text)
