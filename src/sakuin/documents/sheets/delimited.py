"""CSV and its kin: one line for each record, with the names of the columns beside the values (`rows`).

Records keep their lines where no cell holds a line end, so that the line of a passage is that of the file.
"""

from __future__ import annotations

import csv
import io
import re

from sakuin.documents import text
from sakuin.documents.document import Document
from sakuin.documents.limits import MOST_CHARACTERS
from sakuin.documents.sheets.rows import BETWEEN, header_in, row_as_line

_DELIMITERS = ";\t|,"
"""The comma last: figures have some too."""

_SAMPLE = 1 << 16
_LEVEL = 0.8
"""Share of the records that have as many cells as most, from which a sign parts cells."""

_SAID = re.compile(r'"?sep=([^\w"\r\n])\1*"?[ \t]*(\r\n?|\n|$)', re.I)
"""The first line that tells Excel the separator; spreadsheets that save it anew lengthen or quote it."""

_LINE_END = re.compile(r"\r\n?|\n")


def read(data: bytes, name: str, encoding: str | None) -> Document:
    """The document in `data`, a file of records; as it stands where the columns have no names for sure. A
    first line that only says the separator is left empty."""
    whole, notes = text.decode_or_guess(data, name, encoding)
    before, body = "", whole
    delimiter: str | None = None
    if (said := _SAID.match(whole)) and whole[said.end() :].strip():
        before, body = said[2], whole[said.end() :]
        delimiter = said[1] if said[1] in body else None
        whole = before + body
    delimiter = delimiter or _delimiter(body)
    if delimiter is None:
        return Document(name, whole, (), notes)
    try:
        records = _records(body, delimiter)
    except csv.Error as error:
        fault = f"quotation marks in {name} do not pair up ({error}), so it was read as it stands."
        return Document(name, whole, (), (*notes, fault))
    rows = [row for row in records if any(cell.strip() for cell in row)]
    header = header_in(rows)
    if header is None:
        return Document(name, whole, (), notes)
    names = rows[header]
    lines = [""] if before else []
    seen = False
    for row in records:
        if row is names and not seen:
            lines.append(BETWEEN.join(" ".join(cell.split()) for cell in row))
            seen = True
        else:
            lines.append(row_as_line(names, row))
    joined = "\n".join(lines) + ("\n" if whole.endswith(("\n", "\r")) else "")
    return Document(name, joined, (), notes)


def _records(body: str, delimiter: str) -> list[list[str]]:
    csv.field_size_limit(MOST_CHARACTERS)
    return list(csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, strict=True))


def _delimiter(body: str) -> str | None:
    """The sign that parts cells: it is in each record, as often as in the others."""
    sample = body[:_SAMPLE]
    if len(body) > _SAMPLE:
        ends = list(_LINE_END.finditer(sample))
        sample = sample[: ends[-1].end()] if ends else sample
    best, score = None, (0.0, 0)
    for delimiter in _DELIMITERS:
        try:
            csv.field_size_limit(MOST_CHARACTERS)
            reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
            counts = [len(row) for row in reader if row]
        except csv.Error:
            continue
        if not counts:
            continue
        usual = max(set(counts), key=counts.count)
        level = counts.count(usual) / len(counts)
        if usual > 1 and level >= _LEVEL and (level, usual > 1) > score:
            best, score = delimiter, (level, True)
    return best
