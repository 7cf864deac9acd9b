"""Workbooks: each sheet under its name, each row a line (`tables`).

calamine takes the cells apart. What it does not tell is read from the workbook's XML (`workbook`): what is
hidden, which cells are percentages or have a unit, formulas without a stored value, notes on cells.
"""

from __future__ import annotations

import datetime
import io
import zipfile
from typing import Any

from sakuin.documents import tables, workbook
from sakuin.documents.document import Document, Mark
from sakuin.documents.limits import MOST_UNPACKED, check_length
from sakuin.documents.words import counted, listed
from sakuin.errors import SakuinError

_MOST_CELLS = 20_000_000
"""Cells of a sheet, the empty ones in its rectangle included."""

_NAMED = 8


def read(data: bytes, name: str) -> Document:
    """The document in the workbook `data`. Raises `SakuinError` where it is none, encrypted or empty."""
    import python_calamine as calamine

    check_size(data, name)
    try:
        book = calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        sheets = [(about, book) for about in book.sheets_metadata]
    except calamine.PasswordError:
        raise SakuinError(f"{name} is a workbook with a password; save it without one.") from None
    except (calamine.CalamineError, OSError, ValueError) as error:
        raise SakuinError(
            f"{name} is damaged or cut short ({error}); get it once more, or save it anew as XLSX or CSV."
        ) from None
    more = workbook.Workbook(data)
    text, marks, notes, hidden = "", [], [], []
    for number, (about, _) in enumerate(sheets):
        if about.typ != calamine.SheetTypeEnum.WorkSheet:
            notes.append(f"{about.name!r} of {name} is a chart or a macro, and was not read.")
            continue
        lines = _sheet(book, number, more.sheet(about.name), name)
        if about.visible != calamine.SheetVisibleEnum.Visible and lines:
            hidden.append(about.name)
        if lines:
            text += "\n\n" if text else ""
            marks.append(Mark(len(text), heading=about.name))
            text += f"## {about.name}\n\n" + "\n".join(lines)
            check_length(len(text), name)
    if not text:
        raise SakuinError(f"{name} is a workbook without a filled cell; there is nothing to ask about.")
    if hidden:
        said = listed([repr(each) for each in hidden[:_NAMED]] + ["others"] * (len(hidden) > _NAMED))
        notes.append(f"{counted(len(hidden), 'sheet')} of {name} that {_is(len(hidden))} hidden, {said}, "
                     f"{'was' if len(hidden) == 1 else 'were'} read too.")  # fmt: skip
    return Document(name, text + "\n", tuple(marks), (*notes, *more.notes(name)))


def check_size(data: bytes, name: str) -> None:
    """Raise `SakuinError` where a zip archive is damaged or unpacks to more than is read."""
    if not data.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        raise SakuinError(
            f"{name} is damaged or cut short: it begins as a workbook, and its end is missing; get it once "
            "more."
        ) from None
    if size > MOST_UNPACKED:
        raise SakuinError(
            f"{name} unpacks to {size >> 20:,} MB, and at most {MOST_UNPACKED >> 20:,} MB are read; save the "
            "sheets that matter as CSV."
        )


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _sheet(book: Any, number: int, more: workbook.Sheet, name: str) -> list[str]:
    """The rows of a sheet as lines; none where it is empty."""
    sheet = book.get_sheet_by_index(number)
    if sheet.total_height * sheet.total_width > _MOST_CELLS:
        raise SakuinError(
            f"{name} has a sheet of {sheet.total_height:,} rows and {sheet.total_width:,} columns, and "
            f"at most {_MOST_CELLS:,} cells are read; save the part that matters as CSV."
        )
    values = sheet.to_python(skip_empty_area=False)
    rows = [
        [_shown(value, more.formats.get((y, x))) for x, value in enumerate(row)]
        for y, row in enumerate(values)
    ]
    for (y, x), note in more.comments.items():
        if y < len(rows) and x < len(rows[y]):
            rows[y][x] = f"{rows[y][x]} [note: {note}]".strip()
    _fill_merged(rows, sheet.merged_cell_ranges or [])
    rows = [row for row in rows if any(row)]
    header = tables.header_in(rows, above=9)
    if header is None:
        return [tables.bare_line(row) for row in rows]
    names = rows[header]
    return [
        *(tables.bare_line(row) for row in rows[: header + 1]),
        *(tables.row_as_line(names, row) for row in rows[header + 1 :]),
    ]


def _fill_merged(rows: list[list[str]], merged: list[Any]) -> None:
    """Cells that are one on the sheet stand in each row that they reach over; in each column too where there
    is more in the row, as above a group of columns."""
    for (top, left), (bottom, right) in merged:
        if top >= len(rows) or left >= len(rows[top]) or not (value := rows[top][left]):
            continue
        for y in range(top, min(bottom + 1, len(rows))):
            row = rows[y]
            others = any(cell for x, cell in enumerate(row) if not left <= x <= right)
            for x in range(left, min(right + 1, len(row)) if others else left + 1):
                if others or y == top:
                    row[x] = value


def _shown(value: Any, form: workbook.Format | None) -> str:
    """A cell's value as the sheet shows it, with all its figures."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        if form is None:
            return _figure(value)
        figure = _figure(value * 100) + "%" if form.percent else _figure(value)
        return f"{form.before}{figure}{form.after}"
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time()
        return value.date().isoformat() if midnight else value.isoformat(" ", "minutes" if not value.second
                                                                        else "seconds")  # fmt: skip
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def _figure(value: float) -> str:
    """A number without what binary fractions add to it: 0.3, not 0.30000000000000004."""
    if value == int(value) and abs(value) < 1e15 if value == value and abs(value) != float("inf") else False:
        return str(int(value))
    return f"{value:.15g}"
