"""From the lines of printed pages to running text.

Words that a line end divides are put together, ligatures become letters, and lines that stand on top or at
the foot of page after page are left out after their first time, for they would cut the sentences that run
over them.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from sakuin.documents.document import Mark

_SIGNS = {
    **dict(zip(range(0xFB00, 0xFB07), ("ff", "fi", "fl", "ffi", "ffl", "st", "st"), strict=True)),
    **dict.fromkeys((0x0B, 0x0C, 0x85, 0xA0, 0x2028, 0x2029), " "),
    **dict.fromkeys((0x02, 0xAD), "\ufffe"),
    0x00: "",
}
_DIVIDED = "\ufffe"
"""What PDFium puts where a hyphen stood at a line's end."""

_WORD = re.compile(r"\w*")

_NUMBERS = (re.compile(r"\d{1,6}(?=\D*$)"), re.compile(r"\d{1,6}"))
_PAGE_NUMBER = re.compile(r"[-–—\s]*\d{1,6}[-–—\s]*")
_ROMAN = re.compile(r"[ivxlc]+", re.I)
_EDGE = 3
"""Lines at the top and at the foot of a page that may be running heads."""

_GAP = 1.6
"""Font sizes between two baselines from which lines do not belong together."""

_FEW = 3
"""Pages on which a line must stand to be a running head."""

_NEAR = 2
"""Pages from one such line to the next: left and right pages may have heads of their own."""

_SENTENCE_ENDS = (".", "!", "?", ":", ";", "。", "！", "？", '"', "”", ")")


@dataclass
class Line:
    """A line of a page.

    size, weight : of its font, the size in points; 0 where they are not known.
    y : of its baseline, in points; None where it is not known.
    """

    text: str
    size: float = 0.0
    weight: int = 0
    y: float | None = None


Pages = list[list[Line]]


def lines(taken: list[list[tuple[str, float, int, float | None]]]) -> Pages:
    """The lines of each page, from text, font size, font weight and baseline of each."""
    found = [
        [Line(text.translate(_SIGNS).strip(), size, weight, y) for text, size, weight, y in page]
        for page in taken
    ]
    words = Counter(re.findall(r"\w+(?:-\w+)*", "\n".join(line.text for page in found for line in page)))

    for page in found:
        for line in page:
            if _DIVIDED in line.text:
                line.text = _undivided(line.text, words)
    return found


def _undivided(text: str, words: Counter[str]) -> str:
    """`text` with its divided words put together; a division at its end stays, for the next line to see."""
    parts = text.split(_DIVIDED)
    pieces = parts[:1]
    for before, after in pairwise(parts):
        first, rest = _last_word(before), _first_word(after)
        if first and rest:
            # A hyphen that is written elsewhere too, or before a capital or a figure, belongs to the word.
            hyphen = words[f"{first}-{rest}"] > words[first + rest] or rest[0].isupper() or rest[0].isdigit()
            pieces.append("-" * hyphen)
        pieces.append(after)
    return "".join(pieces) + (_DIVIDED if not parts[-1] else "")


def _first_word(text: str) -> str:
    found = _WORD.match(text)
    return found[0] if found else ""


def _last_word(text: str) -> str:
    start = len(text)
    while start and (text[start - 1].isalnum() or text[start - 1] == "_"):
        start -= 1
    return text[start:]


def drop_running(pages: Pages) -> list[str]:
    """Empty the lines that stand at the top or foot of page after page, all but their first; says which they
    are.

    A number at either end of the line may be the page's. Lines that are nothing but the page's number go
    altogether.
    """
    places: dict[tuple[str, ...], dict[int, Line]] = {}
    numbers: dict[int, list[Line]] = {}
    for number, page in enumerate(pages):
        # By height, for many writers draw head and foot before what lies between.
        full = sorted((line for line in page if line.text), key=lambda line: -(line.y or 0))
        for edge, inward in (("top", full), ("foot", full[::-1])):
            for line in _set_apart(inward):
                for key in _same(line.text, number):
                    places.setdefault((edge, *key), {}).setdefault(number, line)
                if _PAGE_NUMBER.fullmatch(line.text):
                    numbers.setdefault(int(re.sub(r"\D", "", line.text)) - number, []).append(line)
    for alone in numbers.values():
        if len(alone) >= _FEW:
            for line in alone:
                line.text = ""
    dropped: list[str] = []
    for found in places.values():
        run: list[int] = []
        for number in [*found, len(pages) + _NEAR + 1]:
            if run and number - run[-1] > _NEAR:
                if len(run) >= _FEW and found[run[0]].text:
                    dropped.append(found[run[0]].text)
                    for each in run[1:]:
                        found[each].text = ""
                run = []
            run.append(number)
    return dropped


def _set_apart(inward: list[Line]) -> list[Line]:
    """Of the lines from a page's edge inward, the outermost, where a gap parts them from the others."""
    for count, (outer, inner) in enumerate(pairwise(inward[: _EDGE + 1]), 1):
        if outer.y is None or inner.y is None:
            return []
        if abs(outer.y - inner.y) > _GAP * max(outer.size, inner.size):
            return inward[:count]
    return []


def _same(text: str, number: int) -> list[tuple[str, ...]]:
    """What a running line of the page `number` has in common with that of the next page."""
    keys: list[tuple[str, ...]] = [(text,)]
    for pattern in _NUMBERS:
        if match := pattern.search(text):
            # What counts up with the pages is their number; an item's number seldom does.
            keys.append((text[: match.start()], str(int(match[0]) - number), text[match.end() :]))
    if _ROMAN.fullmatch(text):
        keys.append(("roman",))
    return keys


def joined(pages: Pages, headings: dict[tuple[int, int], str]) -> tuple[str, tuple[Mark, ...]]:
    """The pages as one text, and where pages and headings begin in it.

    headings : by page and line, both counted from 0.
    """
    pieces: list[str] = []
    marks: list[Mark] = []
    length, heading, divided = 0, None, False
    for number, page in enumerate(pages):
        opened = False
        for at, line in enumerate(page):
            if not line.text:
                continue
            title = headings.get((number, at))
            if pieces and not divided:
                # A blank line where a paragraph surely ends.
                ended = title is not None or (not opened and pieces[-1].endswith(_SENTENCE_ENDS))
                pieces.append("\n\n" if ended else "\n")
                length += len(pieces[-1])
            if title:
                heading = title
            if title or not opened:
                marks.append(Mark(length, number + 1, heading))
            opened = True
            divided = line.text.endswith(_DIVIDED)
            pieces.append(line.text.removesuffix(_DIVIDED))
            length += len(pieces[-1])
        if not opened:  # it has no text, and its number is not to be lost
            marks.append(Mark(length, number + 1, heading))
    return "".join(pieces), tuple(marks)
