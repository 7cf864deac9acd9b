"""Workbooks: each sheet under its name, each row a line (`rows`).

calamine takes the cells apart. What it does not tell is read from the workbook's XML (`workbook` of XLSX,
`opendocument`): what is hidden or struck out, which cells are percentages or have a unit, links, errors,
formulas without a stored value, notes on cells. It is read first: how far a sheet reaches stands there too.
"""

from __future__ import annotations

import datetime
import io
import re
import zipfile
from typing import Any

from sakuin.documents import kinds
from sakuin.documents.document import Document, Mark
from sakuin.documents.limits import MOST_UNPACKED, check_length
from sakuin.documents.sheets import figures
from sakuin.documents.sheets.cells import Sheet, add_link, check_reach
from sakuin.documents.sheets.delimited import read as read_csv
from sakuin.documents.sheets.figures import Format
from sakuin.documents.sheets.opendocument import OpenDocument
from sakuin.documents.sheets.rows import bare_line, header_in, row_as_line
from sakuin.documents.sheets.workbook import Workbook
from sakuin.documents.words import with_and
from sakuin.errors import SakuinError
from sakuin.quantities import counted, listed

__all__ = ["check_size", "read", "read_csv"]

_NAMED = 8
_ANEW = "get it once more, or save it anew as XLSX or CSV"
_MAIN = {"xl/workbook.xml", "xl/workbook.bin", "content.xml"}
"""What lists the sheets of a workbook, in the formats that are archives."""

_LOCKED = re.compile(rb"^\xd0\xcf\x11\xe0.*\x09\x08\x10\x00.{16}(?:\x86\x00\x00\x00)?\x2f\x00", re.S)
"""A workbook of the old format in which what follows its first record is encrypted."""


def read(data: bytes, name: str) -> Document:
    """The document in the workbook `data`. Raises `SakuinError` where it is none, encrypted or empty."""
    import python_calamine as calamine

    book, more = _opened(data, name)
    text, marks, notes, hidden, damaged = "", [], [], [], []
    for number, about in enumerate(book.sheets_metadata):
        if about.typ != calamine.SheetTypeEnum.WorkSheet:
            notes.append(f"{about.name!r} of {name} is a chart or a macro, and was not read.")
            continue
        try:
            lines = _sheet(book, number, more.sheet(about.name) if more else Sheet(), name)
        except calamine.CalamineError:
            damaged.append(repr(about.name))
            continue
        if about.visible != calamine.SheetVisibleEnum.Visible and lines:
            hidden.append(about.name)
        if lines:
            text += "\n\n" if text else ""
            marks.append(Mark(len(text), heading=about.name))
            text += f"## {about.name}\n\n" + "\n".join(lines)
            check_length(len(text), name)
    if not text and damaged:
        raise SakuinError(f"{name} is damaged: none of its sheets can be read; {_ANEW}.")
    if not text:
        raise SakuinError(f"{name} is a workbook without a filled cell; there is nothing to ask about.")
    if damaged:
        notes.append(
            f"{counted(len(damaged), 'sheet')} of {name} that {_is(len(damaged))} damaged, "
            f"{listed(damaged)}, {_was(len(damaged))} not read; {_ANEW}."
        )
    if hidden:
        said = with_and([repr(each) for each in hidden[:_NAMED]] + ["others"] * (len(hidden) > _NAMED))
        notes.append(f"{counted(len(hidden), 'sheet')} of {name} that {_is(len(hidden))} hidden, {said}, "
                     f"{_was(len(hidden))} read too.")  # fmt: skip
    notes += more.notes(name) if more else [
        f"{name} is no XLSX or ODS: units and percent signs of numbers, notes, links, and what is struck out "
        "or hidden in its sheets were not read; save it as XLSX to have them."
    ]  # fmt: skip
    return Document(name, text + "\n", tuple(marks), tuple(notes))


def _opened(data: bytes, name: str) -> tuple[Any, Workbook | OpenDocument | None]:
    """The workbook as calamine has it, and what its XML says more. `SakuinError` where it is none."""
    import python_calamine as calamine

    check_size(data, name)
    more: Workbook | OpenDocument | None = None
    archive = zipfile.ZipFile(io.BytesIO(data)) if data.startswith(b"PK") else None
    inside = frozenset(archive.namelist() if archive else ())
    if archive and not inside & _MAIN:
        _refuse(archive, data, name)
    if archive and "content.xml" in inside:
        if b"opendocument.spreadsheet" not in data:
            kinds.check_word(data, name)
        more = OpenDocument(archive)
        more.check_reach(name)  # calamine unrolls what is repeated as soon as it opens the file
    if _LOCKED.search(data):
        raise _has_password(name)
    try:
        book = calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
    except calamine.PasswordError:
        raise _has_password(name) from None
    except (calamine.CalamineError, OSError, ValueError) as error:
        raise SakuinError(f"{name} is damaged or cut short ({error}); {_ANEW}.") from None
    if archive and "xl/workbook.xml" in inside:
        more = Workbook(archive)
    return book, more


def _refuse(archive: zipfile.ZipFile, data: bytes, name: str) -> None:
    """Raise `SakuinError` for an archive without a workbook: it is damaged, or something else."""
    if not any(entry.startswith("xl/") for entry in archive.namelist()):
        kinds.check_word(data, name)
    raise SakuinError(f"{name} is damaged: the list of its sheets is missing; {_ANEW}.")


def _has_password(name: str) -> SakuinError:
    return SakuinError(f"{name} is a workbook with a password; save it without one.")


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


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def _sheet(book: Any, number: int, more: Sheet, name: str) -> list[str]:
    """The rows of a sheet as lines, its text boxes below them; none where it is empty."""
    check_reach(more.height, more.width, name)
    sheet = book.get_sheet_by_index(number)
    last = sheet.end or (-1, -1)
    check_reach(last[0] + 1, last[1] + 1, name)
    values = sheet.to_python(skip_empty_area=False)
    rows = [
        [_shown(value, more.formats.get((y, x))) for x, value in enumerate(row)]
        for y, row in enumerate(values)
    ]
    _complete(rows, more)
    boxes = [f"[text box: {words}]" for words in more.boxes]
    _fill_merged(rows, more.merged or sheet.merged_cell_ranges or [])
    rows = [row for row in rows if any(row)]
    header = header_in(rows, above=9)
    if header is None:
        return [bare_line(row) for row in rows] + boxes
    names = rows[header]
    return [
        *(bare_line(row) for row in rows[: header + 1]),
        *(row_as_line(names, row) for row in rows[header + 1 :]),
        *boxes,
    ]


def _complete(rows: list[list[str]], more: Sheet) -> None:
    """Put into the rows what calamine does not tell of their cells."""
    for y, x in more.texts.keys() | more.comments.keys():
        rows += [[] for _ in range(y + 1 - len(rows))]
        rows[y] += [""] * (x + 1 - len(rows[y]))
    for (y, x), text in more.texts.items():
        rows[y][x] = text
    for y, x in more.struck:
        if y < len(rows) and x < len(rows[y]) and rows[y][x]:
            rows[y][x] = f"~~{rows[y][x].strip()}~~"
    for (y, x), target in more.links.items():
        if y < len(rows) and x < len(rows[y]):
            rows[y][x] = add_link(rows[y][x], target)
    for (y, x), note in more.comments.items():
        rows[y][x] = f"{rows[y][x]} [note: {note}]".strip()


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


def _shown(value: Any, form: Format | None) -> str:
    """A cell's value as the sheet shows it, with all its figures."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        return figures.written(value, form)
    if isinstance(value, datetime.timedelta):
        return figures.length(value, form)
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time()
        return value.date().isoformat() if midnight else value.isoformat(" ", "minutes" if not value.second
                                                                        else "seconds")  # fmt: skip
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)
