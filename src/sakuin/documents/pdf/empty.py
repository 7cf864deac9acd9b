"""The empty cells of tables are marked, so that values stay below the names of their columns.

A line of a page is only its words. Where a cell is empty there are none, and what stands right of it would
slide below the name of another column. So lines that follow one another are looked at for columns: strips in
which words stand, parted by gutters or by lines drawn down the page. In a table that has empty cells, bars
part the cells of each row. Words that stand below each other by chance are no columns: they are not aligned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from sakuin.documents.pdf.letters import PageLine

Span = tuple[float, float]
Upright = tuple[float, float, float]
"""A line drawn down the page: where it stands, its lower and its upper end."""

_GUTTER = 0.9
"""Sizes of the font between two words that stand in two cells."""

_LEAST_ROWS, _LEAST_COLUMNS = 3, 3
"""Of a table that no lines part; one that lines part has two of each at least."""

_APART = 4.0
"""Sizes of the font between the baselines of two rows of a table at most."""

_ABOVE = 3
"""Lines that may be the first of a table."""

_MOST_LINES, _MOST_CELLS = 2000, 60
"""Lines of a page, and cells of a line, that are looked at."""

_ALIGNED, _OFF = 0.7, 0.35
"""Share of a column's cells that are aligned, and sizes of the font up to which cells are."""

_ALIGNED_COLUMNS = 0.66
"""Share of the columns that are aligned."""

_DRAWN = 0.6
"""Share of a table's height over which a line parts two columns."""


@dataclass(slots=True)
class _Row:
    """A line, its size and baseline (0 where it does not run to the right), and where its cells stand from
    left to right."""

    line: PageLine
    size: float
    y: float
    cells: list[Span]


@dataclass(slots=True)
class _Table:
    """Rows that follow one another from `start` on, and the columns in them. places : by row the column of
    each word, None for a row that reaches over columns."""

    start: int
    rows: list[_Row]
    columns: list[Span]
    places: list[list[int] | None] = field(default_factory=list)


def mark(lines: list[PageLine], uprights: list[Upright]) -> None:
    """Put bars between the cells of tables that have empty ones."""
    rows = [_row(line) for line in lines[:_MOST_LINES]]
    at = 0
    while at < len(rows):
        if len(rows[at].cells) < 2:
            at += 1
            continue
        # What stands above a table may reach over its columns.
        starts = range(at, min(at + _ABOVE, len(rows)))
        found = max((_table(rows, start) for start in starts), key=lambda each: len(each.columns))
        found.places = [_places(row, found.columns) for row in found.rows]
        if _is_table(found, uprights):
            _write(found)
            at = found.start + len(found.rows)
        else:  # a long list is not looked at from each of its lines
            at += max(len(found.rows) // 4, 1)


def _row(line: PageLine) -> _Row:
    main = line.main
    if main.angle or main.size <= 0:
        return _Row(line, 0.0, 0.0, [])
    cells = _merged([], [(word.x0, word.x1) for word in line.words], _GUTTER * main.size)
    return _Row(line, main.size, main.y, cells if len(cells) <= _MOST_CELLS else [])


def _table(rows: list[_Row], start: int) -> _Table:
    """What may be a table that begins with a row."""
    columns = rows[start].cells
    end = start + 1
    while len(columns) > 1 and end < len(rows) and _follows(rows[end - 1], rows[end]):
        row = rows[end]
        both = _merged(columns, row.cells, _GUTTER * row.size)
        if len(both) < len(columns) and (len(row.cells) == 1 or len(both) < 2):
            break
        if len(both) >= len(columns) or end - start < _LEAST_ROWS:
            columns = both
        end += 1
    return _Table(start, rows[start:end], columns)


def _follows(above: _Row, below: _Row) -> bool:
    size = max(above.size, below.size)
    return bool(below.cells) and 0.5 * size < above.y - below.y <= _APART * size


def _merged(spans: list[Span], others: list[Span], gap: float) -> list[Span]:
    """Spans of both, those joined that are less than a gap apart."""
    found: list[Span] = []
    for left, right in sorted([*spans, *others]):
        if found and left - found[-1][1] < gap:
            found[-1] = found[-1][0], max(found[-1][1], right)
        else:
            found.append((left, right))
    return found


def _places(row: _Row, columns: list[Span]) -> list[int] | None:
    """The column of each word; None where a cell reaches over some, and where there are none."""
    if not columns:
        return None
    for left, right in row.cells:
        if sum(1 for first, end in columns if left < end and right > first) > 1:
            return None
    middles = [(word.x0 + word.x1) / 2 for word in row.line.words]
    return [min(range(len(columns)), key=lambda n: _away(columns[n], middle)) for middle in middles]


def _away(span: Span, x: float) -> float:
    return max(span[0] - x, x - span[1], 0.0)


def _is_table(found: _Table, uprights: list[Upright]) -> bool:
    """Whether the rows are a table in which a cell is empty."""
    rows = [set(row) for row in found.places if row]
    count = len(found.columns)
    if len(rows) < 2 or count < 2 or not any(_lacks(row, count) for row in rows):
        return False
    drawn = _are_parted(found, uprights)
    if not drawn and (len(rows) < _LEAST_ROWS or count < _LEAST_COLUMNS):
        return False
    if not drawn and (
        not any(len(row) == count for row in rows)
        or any(sum(1 for row in rows if column in row) < 2 for column in range(count))
    ):
        return False
    return _are_aligned(found)


def _lacks(row: set[int], count: int) -> bool:
    """Whether in a row a cell is empty that is followed by another one."""
    return len(row) < max(row) + 1 or (len(row) > 1 and len(row) < count)


def _are_parted(found: _Table, uprights: list[Upright]) -> bool:
    """Whether lines are drawn between all columns."""
    first, bottom = found.rows[0], found.rows[-1].y
    top = first.y + first.size
    for (_, end), (left, _) in pairwise(found.columns):
        between = [each for each in uprights if end - 1 <= each[0] <= left + 1]
        length = sum(max(min(high, top) - max(low, bottom), 0.0) for _, low, high in between)
        if length < _DRAWN * (top - bottom):
            return False
    return True


def _are_aligned(found: _Table) -> bool:
    """Whether in most columns the cells begin, end or are centred below each other."""
    cells: list[list[Span]] = [[] for _ in found.columns]
    for row, places in zip(found.rows, found.places, strict=True):
        for column in set(places or ()):
            words = [word for word, its in zip(row.line.words, places or (), strict=True) if its == column]
            cells[column].append((min(word.x0 for word in words), max(word.x1 for word in words)))
    off = _OFF * found.rows[0].size
    aligned = 0
    for spans in cells:
        edges = [left for left, _ in spans], [right for _, right in spans], [sum(each) / 2 for each in spans]
        shares = [sum(1 for x in each if abs(x - median(each)) <= off) / len(each) for each in edges if each]
        aligned += max(shares, default=0.0) >= _ALIGNED
    return aligned >= _ALIGNED_COLUMNS * len(cells)


def _write(found: _Table) -> None:
    orders = [places for places in found.places if places]
    leftward = sum(each[0] > each[-1] for each in orders) > sum(each[0] < each[-1] for each in orders)
    last = len(found.columns) - 1
    for row, own in zip(found.rows, found.places, strict=True):
        places = [last - place if leftward else place for place in own or ()]
        if not places or places != sorted(places) or places[-1] == 0:
            continue  # it reaches over columns, or is a title of the rows below it
        before = 0
        for at, (word, place) in enumerate(zip(row.line.words, places, strict=True)):
            bars = "|  " * (place - before)
            if at and bars:
                word.space = f" {bars}"[:-1]
            elif bars:
                word.text = bars[:-1] + word.text
            before = place
