"""Tables as a model reads them: each row a line, and beside each value the name of its column.

Rows far down are found without their header, and counting commas is what small models are bad at. Where a
table does not show that its first row names the columns, its rows stay as they are: a wrong name is worse
than none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

BETWEEN = " | "

_VALUE = re.compile(
    r"[-+−(]?[$€£¥]?\s?\d[\d.,'\u00a0\u202f ]*\s?(?:%|‰|[$€£¥]|[A-Za-z°µ]{1,4})?\)?"
    r"|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?Z?)?|\d{1,2}:\d{2}(?::\d{2})?"
    r"|true|false|yes|no",
    re.I,
)
_LONGEST_NAME = 120
_MOST_ABOVE = 10
"""Rows in which the names of the columns are looked for: a title may stand above them."""

_MOST_VALUES = 0.6
"""Share of the cells below a name that are figures, dates or such, from which it names a column of them."""

_LOOKED_AT = 200
"""Rows whose cells are looked at."""


def header_in(rows: Sequence[Sequence[str]], above: int = 0) -> int | None:
    """The row that names the columns, counted from 0; None where none does for sure.

    above : how many rows may stand above it, each with fewer cells.
    """
    for at, row in enumerate(rows[: above + 1]):
        names = [cell.strip() for cell in row]
        while names and not names[-1]:
            names.pop()
        if len(names) >= 2 and _are_names(names):
            return at if _names_values(names, rows[at + 1 : at + 1 + _LOOKED_AT]) else None
    return None


def row_as_line(names: Sequence[str], row: Sequence[str]) -> str:
    """A row with its columns' names; what has none stands for itself."""
    cells = [" ".join(cell.split()) for cell in row]
    while len(cells) > len(names) and not cells[-1]:
        cells.pop()
    if not any(cells):
        return ""
    called = [" ".join(name.split()) for name in names] + [""] * (len(cells) - len(names))
    return BETWEEN.join(
        f"{name}: {cell}".rstrip() if name else cell for name, cell in zip(called, cells, strict=False)
    )


def bare_line(row: Sequence[str]) -> str:
    """A row whose columns have no names; cells that are empty keep their place."""
    cells = [" ".join(cell.split()) for cell in row]
    while cells and not cells[-1]:
        cells.pop()
    return BETWEEN.join(cells) if len([cell for cell in cells if cell]) != 1 else "".join(cells)


def _are_names(names: list[str]) -> bool:
    return (
        all(name and len(name) <= _LONGEST_NAME and not _VALUE.fullmatch(name) for name in names)
        and len({name.casefold() for name in names}) == len(names)
        and all(any(char.isalpha() for char in name) for name in names)
    )


def _names_values(names: list[str], below: Sequence[Sequence[str]]) -> bool:
    """Whether in some column the cells below the name are of another kind than a name."""
    for column in range(len(names)):
        cells = [row[column].strip() for row in below if column < len(row) and row[column].strip()]
        values = sum(1 for cell in cells if _VALUE.fullmatch(cell))
        if values and values >= _MOST_VALUES * len(cells):
            return True
    return False
