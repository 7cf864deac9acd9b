"""Tables that were drawn column by column, put into rows.

Drawn so, each value is a line of its own, and nothing says which row it belongs to. A table is told from
columns of text, which are read one after another, by a column of figures beside one of words, or by short
cells and the lines that are drawn between them; and all its cells are level.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from sakuin.documents.pdf import running
from sakuin.documents.pdf.letters import PageLine

_LEVEL = 0.3
"""Sizes of the font between the baselines of two cells of a row at most."""

_GUTTER = 0.9
"""Sizes of the font between two columns at least."""

_LEAST_ROWS = 3
_MOST_FIGURES, _FIGURES = 0.4, 0.6
"""Share of the cells that are figures in a column of words at most, and in one of figures at least."""

_FIGURE = re.compile(r"[-+−–(]?[$€£¥]?\s?\d[\d.,'’ ]*\s?[%‰$€£¥]?\)?|[-–—]")

Upright = tuple[float, float, float]


@dataclass(slots=True)
class _Column:
    """Lines that follow one another from the top down, from `start` up to `end` among those of the page."""

    start: int
    end: int
    lines: list[PageLine]

    @property
    def left(self) -> float:
        return min(line.x0 for line in self.lines)

    @property
    def right(self) -> float:
        return max(line.x1 for line in self.lines)


def put_into_rows(lines: list[PageLine], uprights: list[Upright]) -> list[PageLine]:
    """The lines of a page, with those of such tables by rows."""
    runs = _runs(lines)
    found: list[PageLine] = []
    done = at = 0
    while at < len(runs):
        table = _table(runs, at)
        if len(table) < 2 or not _is_table(table, uprights):
            at += 1
            continue
        found += lines[done : table[0].start]
        found += _rows(table)
        done = table[-1].end
        at += len(table) - 1
        last = runs[at]
        if done < last.end:
            runs[at] = _Column(done, last.end, last.lines[done - last.start :])
        else:
            at += 1
    return [*found, *lines[done:]] if done else lines


def _runs(lines: list[PageLine]) -> list[_Column]:
    runs: list[_Column] = []
    for at, line in enumerate(lines):
        if runs and not line.main.angle and not lines[at - 1].main.angle:
            last = runs[-1].lines[-1].main
            if last.y - line.main.y > _LEVEL * last.size:
                runs[-1].lines.append(line)
                runs[-1].end = at + 1
                continue
        runs.append(_Column(at, at + 1, [line]))
    return runs


def _table(runs: list[_Column], first: int) -> list[_Column]:
    """The columns that begin with the end of a run, each right of those before it and level with them."""
    if first + 1 >= len(runs) or runs[first].lines[0].main.angle:
        return []
    top = runs[first + 1].lines[0].main
    begin = _below(runs[first], top.y + _LEVEL * top.size)
    columns = [begin] if len(begin.lines) >= _LEAST_ROWS else []
    for run in runs[first + 1 :] if columns else []:
        bottom = begin.lines[-1].main
        column = _above(run, bottom.y - _LEVEL * bottom.size)
        fits = column.lines and column.left >= columns[-1].right + _GUTTER * bottom.size
        if not fits or not all(_is_level(line, begin) for line in column.lines):
            break
        columns.append(column)
        if column.end < run.end:  # the text below the table
            break
    return columns


def _below(run: _Column, top: float) -> _Column:
    """The lines of a run up to this height."""
    lines = [line for line in run.lines if line.main.y <= top]
    return _Column(run.end - len(lines), run.end, lines)


def _above(run: _Column, bottom: float) -> _Column:
    """The lines of a run down to this height."""
    lines = [line for line in run.lines if line.main.y >= bottom]
    return _Column(run.start, run.start + len(lines), lines)


def _is_level(line: PageLine, column: _Column) -> bool:
    return any(abs(other.main.y - line.main.y) <= _LEVEL * line.main.size for other in column.lines)


def _is_table(columns: list[_Column], uprights: list[Upright]) -> bool:
    if _share_of_figures(columns[0]) > _MOST_FIGURES:  # numbers of lines, perhaps
        return False
    if any(len(column.lines) > 2 and _share_of_figures(column) >= _FIGURES for column in columns[1:]):
        return True
    if any(running.is_wide(column.lines, column.lines[0].main.size) for column in columns):
        return False
    top, bottom = columns[0].lines[0].main.y, columns[0].lines[-1].main.y
    return all(
        any(before.right <= x <= after.left and low <= bottom and high >= top for x, low, high in uprights)
        for before, after in pairwise(columns)
    )


def _share_of_figures(column: _Column) -> float:
    """Share of figures below the first cell, which may name the column."""
    below = column.lines[1:]
    return sum(1 for line in below if _FIGURE.fullmatch(line.text.strip())) / max(len(below), 1)


def _rows(columns: list[_Column]) -> list[PageLine]:
    """The first column's lines, each with what is level with it."""
    rows = [PageLine(list(line.words)) for line in columns[0].lines]
    for column in columns[1:]:
        for line in column.lines:
            row = min(rows, key=lambda each: abs(each.main.y - line.main.y))
            line.words[0].space = " "
            row.words += line.words
    return rows
