"""What tells columns of running text from a table.

A table has gutters too. But its cells are short, or begin anew in each row; rows that are set apart are so in
all its columns, for they begin level; some of its cells are empty; and rules run across it.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from itertools import pairwise
from statistics import median

from sakuin.documents.pdf.letters import PageLine

LEAST_ROWS = 3
"""Lines of a column at least."""

APART = 1.35
"""Times the usual way from row to row from which rows are set apart."""

_WORDS, _WIDTH = 2.5, 7.0
"""Words of a line of a column at least, in the median; sizes of the font that it is wide."""

_WORDS_OF_SENTENCES = 5
"""Words of a line, in the median, that is no cell of a table even where each line begins anew."""

_FULL, _MOST_FULL, _MOST_FULL_UNCASED = 0.65, 0.5, 0.7
"""Share of its column's width from which a line is full; share of the lines that are so in running text, and
in a script that does not show where sentences begin."""

_GOES_ON = 0.15
"""Share of the lines that begin in small letters in running text."""

LEVEL, _TOGETHER = 0.12, 0.75
"""Sizes of the font between lines that stand level; share of the lines that do in tables, and in columns on
a grid."""

_LONG = 8
"""Rows between two places where all columns pause from which these are chance."""

_HOLES = 0.1
"""Share of the rows after which a column begins anew, level with another, that running text does not have."""


def is_wide(column: list[PageLine], size: float) -> bool:
    """Whether the lines of a column are long enough to be running text."""
    if not column or median(line.x1 - line.x0 for line in column) < _WIDTH * size:
        return False
    return median(_words_of(line) for line in column) >= _WORDS


def is_running(columns: list[list[PageLine]], size: float) -> bool:
    """Whether columns are running text, to be read one after another."""
    long = [column for column in columns if len(column) >= LEAST_ROWS]
    if len(long) < 2 or any(_fullness(column) < _MOST_FULL for column in long):
        return False
    if _together(long, size) < _TOGETHER:
        return True  # the rows of a table stand level
    return all(_goes_on(column) for column in long) or (
        max(map(len, long)) >= 2 * LEAST_ROWS - 1
        and all(median(_words_of(line) for line in column) >= _WORDS_OF_SENTENCES for column in long)
    )


def is_table(columns: list[list[PageLine]], rows: list[tuple[float, float]], size: float) -> bool:
    """Whether the columns stand level, pause together or have empty cells, as a table's do.

    rows : the heights, from and to, in which something stands in any column, from the top down.
    """
    long = [column for column in columns if len(column) > 1]
    if len(long) < 2 or _together(long, size) < _TOGETHER:
        return False
    return _pauses_together(rows) or _has_holes(columns, size)


def is_ruled(
    gutters: list[float], rows: list[tuple[float, float]], rules: list[tuple[float, float, float]]
) -> bool:
    """Whether two rules or more run across the gutters, between the rows."""
    top, bottom = rows[0][1], rows[-1][0]
    heights = {
        round(height)
        for left, right, height in rules
        if bottom < height < top and any(left < gutter < right for gutter in gutters)
    }
    return len(heights) > 1


def is_right_to_left(columns: list[list[PageLine]]) -> bool:
    """Whether most letters are of a script that is written to the left."""
    ways = Counter(unicodedata.bidirectional(char) for column in columns for char in _text(column))
    return ways["R"] + ways["AL"] > ways["L"]


def _text(column: list[PageLine]) -> str:
    return "".join(word.text for line in column for word in line.words)


def _words_of(line: PageLine) -> float:
    """Words of a line, reckoned where the script has no blanks between them."""
    letters = sum(len(word.text) for word in line.words)
    wide = sum(1 for word in line.words for char in word.text if "\u2e80" <= char <= "\uffef")
    return len(line.words) + (wide / 2.5 if wide > 0.5 * letters else 0)


def _fullness(column: list[PageLine]) -> float:
    width = max(line.x1 for line in column) - min(line.x0 for line in column)
    return sum(1 for line in column if line.x1 - line.x0 >= _FULL * width) / len(column)


def _goes_on(column: list[PageLine]) -> bool:
    """Whether sentences go on from line to line."""
    text = _text(column)
    if sum(1 for char in text if char.islower()) < 0.3 * len(text):
        return _fullness(column) >= _MOST_FULL_UNCASED
    small = sum(1 for line in column[1:] if line.words[0].text[:1].islower())
    return small >= max(_GOES_ON * (len(column) - 1), 1)


def _together(columns: list[list[PageLine]], size: float) -> float:
    """Share of the lines of the shorter columns that stand level with one of the longest."""
    longest = max(columns, key=len)
    heights = sorted(line.main.y for line in longest)
    others = [line.main.y for column in columns if column is not longest for line in column]
    return sum(1 for y in others if min(abs(y - height) for height in heights) <= LEVEL * size) / len(others)


def _pauses_together(rows: list[tuple[float, float]]) -> bool:
    """Whether all columns pause at the same heights, again and again, as between the rows of a table."""
    ways = [above[0] - below[0] for above, below in pairwise(rows)]
    if not ways:
        return False
    usual = sorted(ways)[len(ways) // 4]
    pauses = sum(1 for way in ways if way > APART * usual)
    return pauses >= 2 and len(rows) < _LONG * (pauses + 1)


def _has_holes(columns: list[list[PageLine]], size: float) -> bool:
    """Whether columns have nothing in rows where another has, and go on level with a cell that begins there.
    A blank line between paragraphs is a hole too, but the other column is within a sentence."""
    heights: list[float] = []
    for y in sorted((line.main.y for column in columns for line in column), reverse=True):
        if not heights or heights[-1] - y > LEVEL * size:
            heights.append(y)
    grid = [[_at(column, height, size) for height in heights] for column in columns]
    holes = begun = 0
    for column in grid:
        last = max(row for row, line in enumerate(column) if line is not None)
        for row in range(1, last + 1):
            if column[row - 1] is None and column[row] is not None:
                holes += 1
                beside = [other[row] for other in grid if other is not column]
                begun += all(line is None or not line.words[0].text[:1].islower() for line in beside)
    cased = any(word.text.islower() for column in columns for line in column for word in line.words)
    least = max(2, _HOLES * len(heights) * (1 if cased else 2))
    return (begun if cased else holes) >= least and begun > 0.5 * holes


def _at(column: list[PageLine], height: float, size: float) -> PageLine | None:
    return next((line for line in column if abs(line.main.y - height) <= LEVEL * size), None)
