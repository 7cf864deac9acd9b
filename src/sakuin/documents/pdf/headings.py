"""Where the headings of a PDF are: its bookmarks say so, else its fonts do.

Few PDFs say what is a heading. Bookmarks name the page and the words; without them a line in a larger font
than the running text is taken for one, and a bold line that begins with a number as headings do.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter

from sakuin.documents.pdf.pages import Line, Pages

_FEW_BOOKMARKS = 2
_LARGER = 1.12
"""Times the size of the running text from which a font is a heading's."""

_BOLDER = 200
_LONGEST = 160
_MOST_LINES = 3
_PARTS = "article|section|chapter|part|appendix|annex|clause"
_NUMBERING = re.compile(rf"(?:(?:{_PARTS})\b|§+|第)?\s*(?:[A-Z]\b|[\dIVXLC]*)(?:\.\d+)*[.):]?\s*", re.I)
_NUMBERED = re.compile(rf"(?:{_PARTS})\s+\w|§+\s*\d|第.{{1,4}}[条章節]|\d+(?:\.\d+)*\.?\s+\S", re.I)


def find(pages: Pages, bookmarks: list[list[object]]) -> dict[tuple[int, int], str]:
    """The headings by page and line, both counted from 0.

    bookmarks : title, page counted from 0, level.
    """
    if len(bookmarks) >= _FEW_BOOKMARKS:
        return _by_bookmarks(pages, [(str(title), int(str(page))) for title, page, _ in bookmarks])
    return _by_fonts(pages)


def _by_bookmarks(pages: Pages, bookmarks: list[tuple[str, int]]) -> dict[tuple[int, int], str]:
    found: dict[tuple[int, int], str] = {}
    places: dict[int, _Places] = {}
    page_before, line_before = -1, -1
    for title, page in bookmarks:
        title = " ".join(title.split())
        if not title or not 0 <= page < len(pages):
            continue
        first = line_before + 1 if page == page_before else 0
        if page not in places:
            places[page] = _Places(pages[page])
        line, words = places[page].find(title, first)
        if line is None:  # the words stand otherwise on the page: what is sure is the page
            line = _next(places[page].full, first)
            if line is None or (page, line) in found:
                continue
        else:
            page_before, line_before = page, line
        found[page, line] = words
    return found


class _Places:
    """Where each title would be found on a page: a page of many lines may have many bookmarks.

    full : the lines that are not empty, counted from 0.
    """

    def __init__(self, lines: list[Line]) -> None:
        self._lines = lines
        self.full = [at for at, line in enumerate(lines) if line.text]
        # By how many lines a title takes, and by its letters, the lines that begin it.
        self._begin: list[dict[str, list[int]]] = [{} for _ in range(_MOST_LINES)]
        for at in self.full:
            for count, begin in enumerate(self._begin, 1):
                text = self._text(at, count)
                for letters in {_letters(text), _letters(_NUMBERING.sub("", text, count=1))}:
                    begin.setdefault(letters, []).append(at)

    def find(self, title: str, first: int) -> tuple[int | None, str]:
        """The line, from `first` on, that begins a title, and the title as the page has it: over some lines,
        with a number before it.
        """
        if wanted := _letters(title):
            for count, begin in enumerate(self._begin, 1):
                at = _next(begin.get(wanted, []), first)
                if at is not None:
                    return at, self._text(at, count)
        return None, title

    def _text(self, at: int, count: int) -> str:
        return " ".join(line.text for line in self._lines[at : at + count])


def _next(rising: list[int], first: int) -> int | None:
    """The first of rising numbers that is at least `first`."""
    at = bisect_left(rising, first)
    return rising[at] if at < len(rising) else None


def _letters(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())


def _by_fonts(pages: Pages) -> dict[tuple[int, int], str]:
    sizes: Counter[float] = Counter()
    weights: Counter[int] = Counter()
    for page in pages:
        for line in page:
            sizes[line.size] += len(line.text)
            weights[line.weight] += len(line.text)
    if not sizes or not (body := sizes.most_common(1)[0][0]):
        return {}
    usual = weights.most_common(1)[0][0]
    found: dict[tuple[int, int], str] = {}
    for number, page in enumerate(pages):
        start: int | None = None
        for at, line in enumerate(page):
            if not line.text:
                continue
            if not _may_be(line, body, usual):
                start = None
                continue
            if start is not None and line.size == page[start].size and not _NUMBERED.match(line.text):
                whole = f"{found[number, start]} {line.text}"
                if len(whole) <= _LONGEST and at - start < _MOST_LINES:
                    found[number, start] = whole
                    continue
            start = at
            found[number, at] = line.text
    return found


def _may_be(line: Line, body: float, usual: int) -> bool:
    if len(line.text) > _LONGEST or not any(char.isalpha() for char in line.text):
        return False
    if line.size >= _LARGER * body:
        return True
    bold = line.weight >= usual + _BOLDER and line.size >= 0.95 * body
    return bold and _NUMBERED.match(line.text) is not None
