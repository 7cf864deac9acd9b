"""CSV and its kin: one line for each record, with the names of the columns beside the values (`tables`).

Records keep their lines where no cell holds a line end, so that the line of a passage is that of the file.
"""

from __future__ import annotations

import csv
import io
import re

from sakuin.documents import tables, text
from sakuin.documents.document import Document
from sakuin.documents.limits import MOST_CHARACTERS

_DELIMITERS = ";\t|,"
"""The comma last: figures have some too."""

_SAMPLE = 1 << 16
_LEVEL = 0.8
"""Share of the records that have as many cells as most, from which a sign parts cells."""

_SAID = re.compile(r"sep=(.)\r?\n?", re.I)
_LINE_END = re.compile(r"\r\n?|\n")


def read(data: bytes, name: str, encoding: str | None) -> Document:
    """The document in `data`, a file of records; as it stands where the columns have no names for sure."""
    whole, notes = text.decode_or_guess(data, name, encoding)
    said = _SAID.match(whole)
    body = whole[said.end() :] if said else whole
    delimiter = said[1] if said else _delimiter(body)
    if delimiter is None:
        return Document(name, whole, (), notes)
    try:
        records = _records(body, delimiter)
    except csv.Error as error:
        fault = f"quotation marks in {name} do not pair up ({error}), so it was read as it stands."
        return Document(name, whole, (), (*notes, fault))
    rows = [row for row in records if any(cell.strip() for cell in row)]
    header = tables.header_in(rows)
    if header is None:
        return Document(name, whole, (), notes)
    names = rows[header]
    lines = [said[0].rstrip("\r\n")] if said else []
    seen = False
    for row in records:
        if row is names and not seen:
            lines.append(tables.BETWEEN.join(" ".join(cell.split()) for cell in row))
            seen = True
        else:
            lines.append(tables.row_as_line(names, row))
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
