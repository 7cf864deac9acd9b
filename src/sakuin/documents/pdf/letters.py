"""The words of a PDF's page with where they stand, put into lines as PDFium found them.

PDFium tells the text of a page and where each letter is. Asking for every letter takes longer than all else,
so places are asked for a word at a time, and letter by letter only where one may be raised: a small 6 above
the line after 10 is ten to the sixth and not 106. Runs in `sakuin.documents.child` only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from ctypes import addressof, c_double
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

DIVIDED = "\ufffe"
"""What PDFium puts where a hyphen stood at a line's end."""

_PIECE = re.compile(rf"[^\s{DIVIDED}]+{DIVIDED}?|{DIVIDED}")
_ORDINALS = frozenset(("st", "nd", "rd", "th", "er", "re", "e", "ème", "o", "a", "º", "ª"))
_SMALLER = 0.88
"""Times the size of the letters beside it up to which a letter may be an exponent or an index."""

_RAISED, _LOWERED, _OFF = 0.15, -0.08, 0.9
"""Sizes above (below) the baseline from which it is one, and from which it belongs to another line."""

_NEAR = 0.35
"""Sizes between two words up to which a raised one belongs to the word before it."""

_HALF = 0.4
"""Sizes between the baselines of two words of a size that stand in two lines."""

_BLANK = 0.12
"""Sizes between two words that are two."""

_DOWN = 3
"""The angle, in quarters of a turn, of text that runs down."""

_BESIDE, _LEAST_WAY, _MOST_WAY = 0.3, 0.5, 1.45
"""Of letters that stand below each other, sizes to the side at most, and down at least and at most."""

_WIDE = re.compile("[\u2e80-\uffef]")
_DIGIT = re.compile(r"\d")
_ENDS_SCRIPTED = re.compile(r"[\^_][^\s^_]{1,12}$")

Script = Literal["", "^", "_"]


@dataclass(slots=True)
class Word:
    """A word of a page, or what stands there for a form field or a note.

    x0, x1, y : its left and right end and its baseline, in points from the page's lower left corner; where it
        runs another way than to the right, of the page turned so that it does.
    size, weight : of its font; the size in points.
    angle : in which it runs, in quarters of a turn.
    space : what stands before it in its line.
    downward : whether its letters stand upright below each other, as Japanese may be written; its angle is
        then that of text which was turned to run down.
    """

    text: str
    x0: float
    x1: float
    y: float
    size: float
    weight: int = 400
    angle: int = 0
    space: str = " "
    downward: bool = False

    @property
    def middle(self) -> float:
        """The height of the middle of its small letters."""
        return self.y + 0.3 * self.size


@dataclass(slots=True)
class PageLine:
    """Words that follow each other on one baseline; never none."""

    words: list[Word] = field(default_factory=list)

    @property
    def main(self) -> Word:
        """The first of its largest words, whose baseline is the line's."""
        return max(self.words, key=lambda word: word.size)

    @property
    def x0(self) -> float:
        return min(word.x0 for word in self.words)

    @property
    def x1(self) -> float:
        return max(word.x1 for word in self.words)

    @property
    def text(self) -> str:
        first, *others = self.words
        return first.text + "".join(word.space + word.text for word in others)


def lines_of(letters: Any) -> list[PageLine]:
    """The lines of a page, in the order in which they were drawn.

    letters : PDFium's text page.
    """
    text = _text(letters)
    places = _Places(letters)
    found: list[PageLine] = []
    end, first = 0, 0
    for part, at in places.parts(text):
        space = text[end:at]
        # Without a blank before it, it is of another line than the part before it.
        fresh = not found or not space or "\n" in space or "\r" in space or text[end - 1] == DIVIDED
        word = places.word(part, at)
        word.space = " " if fresh and space else space
        end = at + len(part)
        if fresh:
            first = _from_above(found, first)
        before = found[-1].words[-1] if found else None
        if before is not None and space and not before.angle and _is_off(before, word):
            fresh = True  # lines that are half a line apart are one to PDFium
        if before is not None and fresh and (script := _script_beside(before, word)) is not None:
            word.text = sign(before.text, word.text, script) + word.text
            word.space = ""
        elif before is not None and fresh and _goes_on(found[-1], word):
            blank = " " in space or word.x0 - before.x1 > _BLANK * word.size
            word.space = " " if blank else ""
        elif fresh:
            found.append(PageLine([word]))
            continue
        found[-1].words.append(word)
    _from_above(found, first)
    return _from_the_right(found)


def _from_above(found: list[PageLine], first: int) -> int:
    """Put lines from `first` on in order that are one to PDFium, which gives the lower one first where text
    runs to the left; returns where the next ones begin."""
    if len(found) - first > 1 and _is_leftward(found[first].words[0].text):
        found[first:] = sorted(found[first:], key=lambda line: -line.main.y)
    return len(found)


def _from_the_right(lines: list[PageLine]) -> list[PageLine]:
    """The lines with those that run down from right to left, as they are read; PDFium sorts level ones the
    other way."""
    found: list[PageLine] = []
    for _, group in groupby(lines, key=lambda line: line.words[0].downward):
        run: list[PageLine] = []
        for line in group:
            if run and not (line.words[0].downward and line.main.y > run[-1].main.y):
                found += reversed(run)
                run = []
            run.append(line)
        found += reversed(run)
    return found


def _is_leftward(text: str) -> bool:
    return any(unicodedata.bidirectional(char) in ("R", "AL") for char in text)


def sign(before: str, run: str, script: Script) -> str:
    """What parts a raised or lowered `run` from the text before it: "^", "_", or nothing where the two are
    one word, as 1st and H2O are."""
    last = before[-1:]
    if not script or not (last.isalnum() or last in ")]") or not any(char.isalnum() for char in run):
        return ""
    if script == "_":
        return "_" if last.isdigit() else ""
    if run.rstrip(".,;:").isalpha():
        if last.isdigit():
            return "" if run.rstrip(".,;:").lower() in _ORDINALS else "^"
        return "^" if len(before) == 1 or not before[-2].isalpha() else ""
    return "^"


def _script(above: float, size: float, beside: float) -> Script:
    """Whether letters of `size` that stand `above` the baseline of such of size `beside` are raised or
    lowered."""
    if size > _SMALLER * beside or abs(above) > _OFF * beside:
        return ""
    return "^" if above > _RAISED * beside else "_" if above < _LOWERED * beside else ""


def _script_beside(before: Word, word: Word) -> Script | None:
    """Whether a word that PDFium has in a new line is an exponent or index of the word before it."""
    if before.angle or word.angle or not -_NEAR <= (word.x0 - before.x1) / max(before.size, 1.0) <= _NEAR:
        return None
    return _script(word.y - before.y, word.size, before.size) or None


def _is_off(before: Word, word: Word) -> bool:
    """Whether a word of about the same size stands half a line above or below the one before it."""
    return (
        word.angle == 0
        and abs(word.y - before.y) > _HALF * before.size
        and _SMALLER * before.size < word.size < before.size / _SMALLER
    )


def _goes_on(line: PageLine, word: Word) -> bool:
    """Whether a word that PDFium has in a new line goes on with the line before it, after an exponent."""
    last, main = line.words[-1], line.main
    if last.angle or word.angle or abs(word.y - main.y) > 0.05 * main.size:
        return False
    scripted = last.size <= _SMALLER * main.size and abs(last.y - main.y) > 0.05 * main.size
    scripted = scripted or _ENDS_SCRIPTED.search(last.text) is not None
    return scripted and -_NEAR <= (word.x0 - last.x1) / main.size <= 1.0


def _text(letters: Any) -> str:
    """The text of a page, a character for each letter that PDFium counts."""
    import pypdfium2.raw as raw

    count = letters.count_chars()
    text = str(letters.get_text_range()) if count else ""
    if len(text) == count:
        return text
    # Letters outside the first plane take two units of UTF-16, and some have no character at all.
    codes = [raw.FPDFText_GetUnicode(letters, at) for at in range(count)]
    return "".join(chr(code) if 0 < code < 0x110000 else "\ufffd" for code in codes)


class _Places:
    """Where the letters of a page are, and in what font."""

    def __init__(self, letters: Any) -> None:
        import pypdfium2.raw as raw

        self._raw, self._letters, self._count = raw, letters.raw, letters.count_chars()
        self._doubles = [c_double() for _ in range(4)]
        self._fonts: dict[int, tuple[float, int, int]] = {}

    def parts(self, text: str) -> Iterator[tuple[str, int]]:
        """The words of a text, each with the place of its first letter. Figures that stand below each other
        are one word to PDFium where a table was drawn column by column: those are parted."""
        for match in _PIECE.finditer(text):
            start, word = match.start(), match[0]
            last = match.end() - 1 - (len(word) > 1 and word[-1] == DIVIDED)
            size, _, angle = self._font(start)
            height = self._origin(start)[1]
            if (
                angle
                or abs(self._origin(last)[1] - height) <= _OFF * size
                or self._runs_down(word, start, last, size)
            ):
                yield word, start
                continue
            for at in range(start + 1, last + 1):
                above, height = height, self._origin(at)[1]
                if abs(above - height) > _OFF * size:
                    yield text[start:at], start
                    start = at
            yield text[start : match.end()], start

    def word(self, text: str, at: int) -> Word:
        """The word `text`, whose first letter is the one at `at`."""
        last = at + len(text) - 1
        if len(text) > 1 and text[-1] == DIVIDED:
            last -= 1
        size, weight, angle = self._font(at)
        x, y = self._origin(at)
        right, height = self._origin(last)
        if not angle and self._runs_down(text, at, last, size):
            start, far = _turned(x, y, _DOWN), _turned(right, height, _DOWN)
            return Word(text, start[0], far[0] + size, start[1], size, weight, _DOWN, downward=True)
        if angle:
            x, y = _turned(x, y, angle)
            right, _ = _turned(right, height, angle)
            return Word(text, x, right + 0.5 * size, y, size, weight, angle)
        # Its last letter, for the others of an exponent follow it, and letters in words with a figure.
        if abs(height - y) > 0.05 * size or _DIGIT.search(text):
            text, y, size = self._with_scripts(text, at, last)
        if right < x:  # it runs to the left: its last letter is the leftmost
            return Word(text, right, self._right(at, x), y, size, weight)
        return Word(text, x, self._right(last, right), y, size, weight)

    def _runs_down(self, text: str, at: int, last: int, size: float) -> bool:
        """Whether the letters of a word stand below each other as Japanese may; of one letter, whether the
        next one does."""
        if 2 * len(_WIDE.findall(text)) < len(text) or at + 1 >= self._count:
            return False
        last = max(last, at + 1)
        (x, y), (right, height) = self._origin(at), self._origin(last)
        way = (y - height) / max(size, 0.1) / (last - at)
        return abs(right - x) < _BESIDE * size and _LEAST_WAY < way < _MOST_WAY

    def _with_scripts(self, text: str, at: int, last: int) -> tuple[str, float, float]:
        """The word with its exponents and indexes marked, and the baseline and size of its other letters."""
        heights = [self._origin(place)[1] for place in range(at, last + 1)]
        size = self._font(at)[0]
        if max(heights) - min(heights) <= 0.05 * size:
            return text, heights[0], size
        sizes = [self._font(place)[0] for place in range(at, last + 1)]
        size = max(sizes)
        base = heights[sizes.index(size)]
        scripts = [_script(height - base, its, size) for height, its in zip(heights, sizes, strict=True)]
        out, start = "", 0
        for script, run in groupby(scripts):
            length = len(list(run))
            part = text[start : start + length]
            start += length
            out += sign(out, part, script) + part
        return out + text[start:], base, size

    def _font(self, at: int) -> tuple[float, int, int]:
        """Size on the page, in points, and weight of a letter's font, and its angle in quarters of a turn."""
        raw = self._raw
        drawn = raw.FPDFText_GetTextObject(self._letters, at)
        key = addressof(drawn.contents) if drawn else 0
        if key and (known := self._fonts.get(key)) is not None:
            return known
        matrix = raw.FS_MATRIX()
        # A font's own size says nothing: many writers set it to 1 and scale the text.
        scale, angle = 1.0, 0
        if raw.FPDFText_GetMatrix(self._letters, at, matrix):
            scale = (matrix.c**2 + matrix.d**2) ** 0.5
            if abs(matrix.b) > abs(matrix.a):
                angle = 1 if matrix.b > 0 else 3
            elif matrix.a < 0 and matrix.d < 0:
                angle = 2
        size = round(raw.FPDFText_GetFontSize(self._letters, at) * scale, 1)
        self._fonts[key] = size, raw.FPDFText_GetFontWeight(self._letters, at), angle
        return self._fonts[key]

    def _origin(self, at: int) -> tuple[float, float]:
        x, y = self._doubles[:2]
        self._raw.FPDFText_GetCharOrigin(self._letters, at, x, y)
        return x.value, y.value

    def _right(self, at: int, x: float) -> float:
        left, right, bottom, top = self._doubles
        if self._raw.FPDFText_GetCharBox(self._letters, at, left, right, bottom, top):
            return max(right.value, x)
        return x


def _turned(x: float, y: float, angle: int) -> tuple[float, float]:
    """A point of the page turned so that text at this angle runs to the right."""
    return ((x, y), (y, -x), (-x, -y), (-y, x))[angle]


def turned_box(box: tuple[float, float, float, float], angle: int) -> tuple[float, float, float, float]:
    """As `_turned`, of a box: left, bottom, right, top."""
    (ax, ay), (bx, by) = _turned(box[0], box[1], angle), _turned(box[2], box[3], angle)
    return min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)
