"""The lines of a page in the order in which a person reads them: columns one after another.

Most files draw a page in its order, and then its lines stay as they were drawn. Some draw row by row across
columns, and the rows of two texts come interleaved. So a page is looked at for gutters, strips in which no
word stands over a band of rows. Where running text stands on all sides of them (`running` tells it from a
table), each side is read from top to bottom.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from sakuin.documents.pdf import running
from sakuin.documents.pdf.letters import DIVIDED, PageLine, Word

Span = tuple[float, float]
Rule = tuple[float, float, float]
"""A line drawn across the page: its left and right end, and its height."""

_GUTTER = 0.75
"""Sizes of the font that a gutter is wide at least."""

_BLANKS = 1.8
"""Times the usual blank between two words that a gutter is wide at least."""

_FEW_BLANKS = 3
"""Blanks of a line from which they are looked at: in scripts without blanks, the gutter is the only one."""

_UP, _DOWN = 0.72, 0.22
"""Sizes above and below the baseline that a word is high: less than any usual way between two lines."""

_MOST_WORDS = 4000
"""Words of a page that is looked at for columns; drawings have more."""

_FOOT_WORDS = 3
"""Words of a line below columns, set apart from them, that belongs to none."""


@dataclass(slots=True)
class _Piece:
    """A word, and where among the lines and words of the page it was drawn."""

    word: Word
    line: int
    at: int


@dataclass(slots=True)
class _Row:
    """Words whose heights overlap; where columns are not level, many lines of each."""

    pieces: list[_Piece]
    top: float
    bottom: float

    def free(self) -> list[Span]:
        """Where no word stands, from left to right, the margins included."""
        free, right = [], float("-inf")
        for left, end in sorted((piece.word.x0, piece.word.x1) for piece in self.pieces):
            if left > right:
                free.append((right, left))
            right = max(right, end)
        return [*free, (right, float("inf"))]


def order(lines: list[PageLine], rules: Iterable[Rule] = ()) -> list[PageLine]:
    """The lines of a page, those that were drawn across columns apart and in order."""
    lines = _whole_rows(lines)
    pieces = [
        _Piece(word, number, at)
        for number, line in enumerate(lines)
        if not line.main.angle
        for at, word in enumerate(line.words)
    ]
    if len(pieces) > _MOST_WORDS or len(lines) < running.LEAST_ROWS:
        return lines
    size = max(median(piece.word.size for piece in pieces), 1.0) if pieces else 1.0
    blanks = [
        right.x0 - left.x1
        for line in lines
        if len(line.words) > _FEW_BLANKS
        for left, right in pairwise(line.words)
        if right.x0 > left.x1
    ]
    width = max(_GUTTER * size, _BLANKS * median(blanks) if blanks else 0.0)
    rows, drawn = _rows(pieces), list(rules)
    found: list[PageLine] = []
    changed, start = False, 0
    while start < len(rows):
        begin, end, columns, across = _columns(rows, start, size, width, drawn)
        changed = changed or across
        for row in rows[start:begin]:
            found += _as_drawn(row.pieces)
        if columns:
            inside = [line for column in columns for line in column]
            found += _with_divided(inside) if across else inside
        start = end
    return [*found, *(line for line in lines if line.main.angle)] if changed else lines


def _rows(pieces: list[_Piece]) -> list[_Row]:
    """Words by rows, from the top down."""
    rows: list[_Row] = []
    for piece in sorted(pieces, key=lambda piece: -piece.word.y - _UP * piece.word.size):
        word = piece.word
        top, bottom = word.y + _UP * word.size, word.y - _DOWN * word.size
        if rows and top > rows[-1].bottom:
            rows[-1].pieces.append(piece)
            rows[-1].bottom = min(rows[-1].bottom, bottom)
        else:
            rows.append(_Row([piece], top, bottom))
    return rows


def _whole_rows(lines: list[PageLine]) -> list[PageLine]:
    """The lines with those joined that go on where the one before them ended, as the cells of a row do."""
    found: list[PageLine] = []
    for line in lines:
        if found and not (line.main.angle or found[-1].main.angle):
            before = found[-1]
            level = abs(line.main.y - before.main.y) <= running.LEVEL * max(line.main.size, 1.0)
            if level and line.x0 >= before.x1 and not before.words[-1].text.endswith(DIVIDED):
                line.words[0].space = " "
                before.words += line.words
                continue
        found.append(line)
    return found


def _columns(
    rows: list[_Row], start: int, size: float, width: float, rules: list[Rule]
) -> tuple[int, int, list[list[PageLine]], bool]:
    """Columns in the band of rows that begins with `start`, in the order in which they are read, and the rows
    that they begin and end at; whether they were drawn in another order. Where there are none, the row at
    which to look again.

    size, width : of the font, and that a gutter has at least.
    """
    end, gutters = _band(rows, start, width)
    begin, end = _without_edges(rows, start, end, gutters, size)
    while gutters:
        parts = _split(rows[begin:end], gutters)
        columns = [_lines(part) for part in parts]
        narrow = next((n for n, column in enumerate(columns) if not running.is_wide(column, size)), None)
        if narrow is None:
            break
        # What is too narrow to be a column belongs to what stands beside it, as numbers of a list do.
        beside = [n for n in (narrow - 1, narrow) if 0 <= n < len(gutters)]
        del gutters[min(beside, key=lambda n: gutters[n][1] - gutters[n][0])]
    if not gutters:
        return start + 1, start + 1, [], False
    heights = [(row.top, row.bottom) for row in rows[begin:end]]
    if running.is_table(columns, heights, size) or running.is_ruled(
        [_middle_of(gap) for gap in gutters], heights, rules
    ):
        return end, end, [], False
    if not running.is_running(columns, size):
        return start + 1, start + 1, [], False
    leftward = running.is_right_to_left(columns)
    across = leftward or not _is_drawn_in_order(parts)
    return begin, end, columns[::-1] if leftward else columns, across


def _without_edges(
    rows: list[_Row], start: int, end: int, gutters: list[Span], size: float
) -> tuple[int, int]:
    """A band without what is set apart from it at its top and its foot and has short cells: a table above
    columns, the number of a page below them."""
    if not gutters or end - start <= running.LEAST_ROWS:
        return start, end
    begin = start
    ways = sorted(above.top - below.top for above, below in pairwise(rows[start:end]))
    apart = running.APART * ways[len(ways) // 4]
    pauses = [at for at in range(start + 1, end) if rows[at - 1].top - rows[at].top > apart]
    for pause in pauses:
        if not _has_short_cells(_split(rows[begin:pause], gutters), size):
            break
        begin = pause
    for pause in reversed([pause for pause in pauses if pause > begin]):
        few = end - pause == 1 and len(rows[pause].pieces) <= _FOOT_WORDS
        if not few and not _has_short_cells(_split(rows[pause:end], gutters), size):
            break
        end = pause
    return begin, end


def _has_short_cells(parts: list[list[_Piece]], size: float) -> bool:
    columns = [_lines(part) for part in parts]
    return any(len(column) > 1 and not running.is_wide(column, size) for column in columns)


def _band(rows: list[_Row], start: int, width: float) -> tuple[int, list[Span]]:
    """Up to which row, and where, gutters run down from the row `start`."""
    gutters = [gap for gap in rows[start].free()[1:-1] if gap[1] - gap[0] >= width]
    end = start + 1
    while gutters and end < len(rows):
        both = [(max(a, c), min(b, d)) for a, b in gutters for c, d in rows[end].free()]
        common = [gap for gap in both if gap[1] - gap[0] >= width]
        if not common:
            break
        gutters, end = common, end + 1
    return end, gutters


def _split(rows: list[_Row], gutters: list[Span]) -> list[list[_Piece]]:
    """What stands between gutters, from left to right."""
    ends = [*map(_middle_of, gutters), float("inf")]
    parts: list[list[_Piece]] = [[] for _ in ends]
    for row in rows:
        for piece in row.pieces:
            parts[next(n for n, end in enumerate(ends) if piece.word.x0 < end)].append(piece)
    return parts


def _middle_of(gap: Span) -> float:
    return (gap[0] + gap[1]) / 2


def _lines(pieces: list[_Piece]) -> list[PageLine]:
    """The words of one column as lines, from the top down."""
    found: list[PageLine] = []
    for row in _rows(pieces):
        levels: list[list[_Piece]] = []
        for piece in sorted(row.pieces, key=lambda piece: -piece.word.size):
            level = next((level for level in levels if _is_level(level[0].word, piece.word)), None)
            if level is None:
                levels.append(level := [])
            level.append(piece)
        found += map(_line, sorted(levels, key=lambda level: -level[0].word.y))
    return found


def _is_level(main: Word, other: Word) -> bool:
    """Whether a word, which may be an exponent, stands in the line of one that is no smaller."""
    return abs(main.y - other.y) <= (0.6 if other.size < 0.9 * main.size else 0.25) * main.size


def _line(pieces: list[_Piece]) -> PageLine:
    """Words of one line, as they were drawn in it, or from left to right where it was drawn in parts."""
    if len({piece.line for piece in pieces}) == 1:
        return PageLine([piece.word for piece in sorted(pieces, key=lambda piece: piece.at)])
    pieces = sorted(pieces, key=lambda piece: (piece.word.x0, piece.at))
    for before, piece in pairwise(pieces):
        if before.line != piece.line:
            piece.word.space = " "
    return PageLine([piece.word for piece in pieces])


def _as_drawn(pieces: list[_Piece]) -> list[PageLine]:
    lines: dict[int, list[_Piece]] = {}
    for piece in pieces:
        lines.setdefault(piece.line, []).append(piece)
    return [_line(lines[number]) for number in sorted(lines)]


def _is_drawn_in_order(parts: list[list[_Piece]]) -> bool:
    """Whether each column was drawn as a whole, but for a few words."""
    drawn = sorted((piece.line, piece.at, column) for column, pieces in enumerate(parts) for piece in pieces)
    turns = sum(1 for before, after in pairwise(drawn) if before[2] != after[2])
    return turns <= 2 * len(parts) - 1


def _with_divided(lines: list[PageLine]) -> list[PageLine]:
    """The lines, with the hyphens of divided words marked; across columns PDFium sees no end of a line."""
    for line, following in pairwise(lines):
        text = line.words[-1].text
        if text[-1] in "-\u2010" and text[-2:-1].isalpha() and following.words[0].text[:1].islower():
            line.words[-1].text = text[:-1] + DIVIDED
    return lines
