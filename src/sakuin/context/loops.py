"""Whether an answer has begun to repeat itself: small models say a sentence over and over until they are
stopped.

An answer is seen as words. Where its last words are the ones before them once more, and once more, it is a
loop. How often they must come depends on what they are: a sentence of five words three times, short sentences
and single words more often. Figures never make a loop, and what may be the cells of a table or the items of
a list hardly ever: rows of zeros and columns of one word are answers too. The numbers that were chosen, and
the answers that they were chosen on, stand in tests/context/test_loops.py.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_ALONE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_PIECE = re.compile(
    r"(?P<marker>^[ \t]*(?:\d{1,3}[.)]|\d{1,3}(?:\.\d{1,3})+[.)]?|[-*+•])[ \t]+)"
    rf"|[{_ALONE}]|[^\W_{_ALONE}]+(?:['’][^\W_{_ALONE}]+)*",
    re.MULTILINE,
)
"""Words; a character of Chinese or Japanese is one. Markers of lists are none: of the same item under other
numbers the words are the same."""

_SINGLE = re.compile(f"[{_ALONE}]")
_SENTENCE_END = re.compile(r"[.!?]['\")\]*]*(?:\s|\Z)|[。！？]|\n")
_FULL_STOP = re.compile(r"[.!?。！？]")
_CELLS = re.compile(r"[,;|\t{}:=<>\[\]\"]")
_APART = re.compile(r"[,;|\t\n\r{}<>=\[\]、，・]")
"""What stands between cells and items; where there is none of it, the words are running text."""
_CLOSING = re.compile(r"\S*")

_MARKER = re.compile(r"(?:\A|\n)[ \t]*(?P<figure>\d{1,3}(?:\.\d{1,3})*)[.)]?\Z")
"""At a text's end, what may become the marker of an item."""

_PERIOD = 100
"""Most words of what is repeated."""
_SENTENCE, _SENTENCE_TIMES = 5, 3
"""So many words are a sentence or a phrase, which hardly anybody says three times in a row."""
_SHORT_TIMES = 6
"""Short sentences: "I do not know." """
_BARE_TIMES = 12
"""Words with nothing between them, "the the the", and phrases that are begun again and again: 'The key "The
key "'."""
_PHRASE = 1.5
_ROW, _ROW_TIMES = 4, 12
"""So many words that may be a row of a table."""
_CELL_TIMES = 64
"""What may be cells or items."""


class _Word(NamedTuple):
    """weight : 1 for a word, half for a character that is one, 0 for a figure."""

    start: int
    end: int
    text: str
    weight: float


def _word(found: re.Match[str]) -> _Word:
    text = found[0].casefold()
    letters = any(letter.isalpha() for letter in text)
    return _Word(*found.span(), text, (0.5 if _SINGLE.match(text) else 1.0) * letters)


class Repetition:
    """Watches an answer as it grows.

    shown : so many of its first characters may be shown: what may turn out to be a repetition waits.
    """

    def __init__(self) -> None:
        self.shown = 0
        self._text, self._read = "", list[_Word]()

    def feed(self, text: str) -> int | None:
        """Take the answer as it is now: where to cut it if it is a loop, None if it is none."""
        words, partial = self._words(text)
        runs, begun = _runs(words, partial)
        held, cut = len(words) - 1 if begun else None, None
        for period, length, first in runs:
            times = _times(text, words, first, period)
            if times is None:
                continue
            if length >= period * (times - 1):
                end = _once(text, words, first, period)
                cut = end if cut is None else min(cut, end)
            if times < _CELL_TIMES and (times < _ROW_TIMES or length >= period):
                again = first + period
                held = again if held is None else min(held, again)
        if cut is not None:
            return max(cut, self.shown)
        self.shown = max(self.shown, self._until(text, words, partial, held))
        return None

    def _words(self, text: str) -> tuple[list[_Word], bool]:
        """The words, and whether the last one may go on."""
        kept = self._read[:-2]  # a token may change what was the end
        if not text.startswith(self._text[: kept[-1].end if kept else 0]):
            kept = []
        pieces = _PIECE.finditer(text, kept[-1].end if kept else 0)
        kept += [_word(piece) for piece in pieces if piece["marker"] is None]
        self._text, self._read = text, kept
        if marker := _MARKER.search(text):
            certain = [word for word in kept if word.start < marker.start("figure")]
            if len(certain) < len(kept):
                return certain, False
        # An apostrophe may turn out to be one within a word.
        partial = bool(kept) and text[kept[-1].end :] in ("", "'", "’") and not _SINGLE.match(kept[-1].text)
        return kept, partial

    @staticmethod
    def _until(text: str, words: list[_Word], partial: bool, held: int | None) -> int:
        if not words:
            return len(text)
        if held is not None:
            return _closed(text, words, held - 1)
        # The blank and the marker before the next word belong to it.
        return len(text) if partial else _closed(text, words, len(words) - 1)


def _runs(words: list[_Word], partial: bool) -> tuple[list[tuple[int, int, int]], bool]:
    """Periods with which the answer's end repeats what is before it: words of the period, words that are
    repeated, and the first word of all that has this period; of periods that are multiples of another, only
    that one. And whether a repetition may begin with the word that is not whole yet."""
    n = len(words) - partial
    found: list[tuple[int, int, int]] = []
    begun = False
    for period in range(1, min(_PERIOD, n) + 1):
        if partial and not words[n - period].text.startswith(words[n].text):
            continue
        begun |= partial
        length = 0
        while length + period < n and words[n - 1 - length].text == words[n - 1 - length - period].text:
            length += 1
        if length and not any(not period % shorter and long >= period for shorter, long, _ in found):
            found.append((period, length, n - length - period))
    return found, begun


def _times(text: str, words: list[_Word], first: int, period: int) -> int | None:
    """How often words must come in a row to be a loop; None for what never is one."""
    block = words[first : first + period]
    weight = sum(word.weight for word in block)
    if not weight:
        return None
    end = words[first + period].start if first + period < len(words) else len(text)
    body = text[block[0].start : end]
    cells = "|" in body or "\t" in body or 2 * len(_CELLS.findall(body)) >= period
    if not cells and weight >= _SENTENCE:
        return _SENTENCE_TIMES
    if not cells and weight >= 2 and _FULL_STOP.search(body):
        return _SHORT_TIMES
    if weight >= _ROW:
        return _ROW_TIMES
    bare = all(letter.isalnum() or letter in " '’" for letter in body)
    # A quotation that is opened every time and never closed is no list of quoted words.
    running = not _APART.search(body) and (weight >= _PHRASE or body.count('"') % 2 == 1)
    return _BARE_TIMES if bare or running else _CELL_TIMES


def _once(text: str, words: list[_Word], first: int, period: int) -> int:
    """Where the answer ends that says it once: with a sentence or line, if there is an end of one."""
    for last in range(first + period - 1, min(first + 2 * period - 1, len(words) - 1)):
        if _SENTENCE_END.search(text[words[last].end : words[last + 1].start]):
            return _closed(text, words, last)
    return _closed(text, words, first + period - 1)


def _closed(text: str, words: list[_Word], last: int) -> int:
    """The end of a word with what closes it: full stops, quotes, brackets."""
    end = words[last].end
    match = _CLOSING.match(text, end, words[last + 1].start if last + 1 < len(words) else len(text))
    return match.end() if match else end
