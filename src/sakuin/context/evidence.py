"""Where an answer came from: passages of the document that its tokens attended to.

While an answer is decoded, the cache adds up the attention that each token of the context received, but only
where a head put more than `ABOVE` of its attention on that one token. Most attention is spread over thousands
of tokens and says nothing; the heads that look something up put it on a few. `passages` joins these tokens to
sentences. Called by `sakuin.context.answer`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

ABOVE = 0.1
"""Share of a KV head's attention in one step and layer above which a token counts as looked up."""

MOST_OF_TEXT = 0.1
"""The passages of an answer are at most this share of the text; the first is given in any case."""

_GAP = 200
"""Characters between two tokens that may still belong to one passage."""

_REACH = 240
"""Characters within which the start or end of a sentence is sought."""

_LEAST_WEIGHT = 0.01

_SENTENCE_END = re.compile(r"[.!?]['\")\]]*\s|[。！？]|\n\s*\n")


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
    mass: Tensor, starts: Sequence[int], ends: Sequence[int], text: str, places: Sequence[int] = (0,)
) -> list[tuple[int, int, float]]:
    """Start, end and weight of the passages that received attention, the most attended first.

    mass : `(n_kv_heads, n)`, attention above `ABOVE` of the n tokens that begin and end in `text` at `starts`
        and `ends`.
    places : where in `text` each of its documents and their parts begin; no passage reaches from one into the
        next.
    """
    scores = mass.sum(0).tolist()
    found: list[list[float]] = []
    for score, start, end in zip(scores, starts, ends, strict=True):
        if score <= 0 or not text[start:end].strip():
            continue
        near = found and start - found[-1][1] <= _GAP
        if near and bisect_right(places, start) == bisect_right(places, found[-1][0]):
            found[-1][1] = end
            found[-1][2] += score
        else:
            found.append([start, end, score])
    total = sum(score for _, _, score in found)
    widened: list[tuple[int, int, float]] = []
    for first, last, score in found:
        low, high = _document(int(first), text, places)
        start, end = _to_sentences(int(first), int(last), text, low, high)
        if widened and start < widened[-1][1]:  # both were widened into the same sentence
            before = widened.pop()
            start, score = before[0], score + before[2] * total
        widened.append((start, end, score / total))
    widened.sort(key=lambda passage: -passage[2])
    return _within_budget(widened, MOST_OF_TEXT * len(text))


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


def _to_sentences(start: int, end: int, text: str, low: int, high: int) -> tuple[int, int]:
    """The passage widened to whole sentences, where they begin and end near."""
    before = text[max(low, start - _REACH) : start]
    ends = [match.end() for match in _SENTENCE_END.finditer(before)]
    if ends:
        start -= len(before) - ends[-1]
    elif start - len(before) == low:
        start = low
    else:
        start -= len(before) - (before.rfind("\n", len(before) - 80) + 1 or before.rfind(" ") + 1)
    after = text[end - 1 : min(high, end + _REACH)]
    match = _SENTENCE_END.search(after)
    if match:
        end = end - 1 + match.end()
    elif end - 1 + len(after) == high:
        end = high
    else:
        more = after.find("\n", 1, 80)
        end += max(more if more > 0 else after.find(" ", 1), 1) - 1
    while end > start + 1 and text[end - 1].isspace():
        end -= 1
    while start < end - 1 and text[start].isspace():
        start += 1
    return start, end
