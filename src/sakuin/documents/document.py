"""What a read document is: a name, its text, and where its pages and headings are.

Offsets of evidence count characters of `Document.text`. Of plain text this is what was decoded: line ends
are not translated. Of other files it is the text that was taken from them, which is therefore kept with a
context.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from sakuin.errors import SakuinError

_LINE_END = re.compile(r"\r\n?|\n")
"""A line may end as on Unix, on Windows, and as on old Macs and in the logs of some machines."""


@dataclass(frozen=True)
class Mark:
    """From the character at `start` on, up to the next mark, this page (counted from 1) and heading apply."""

    start: int
    page: int | None = None
    heading: str | None = None


@dataclass(frozen=True)
class Document:
    """A named text.

    marks : where pages and headings begin, by rising `start`; empty where the file has none.
    notes : sentences on what the file holds that is not in the text, and on what was guessed.
    path : by which the document is known again: its file's, resolved; "-" for standard input and pipes, each
        of whose texts is another document; None where it is known by its name alone. Not compared by `==`.
    offset, lines_before : of the later part of a file that went on after other documents: characters and line
        ends of the file's text that stand before this part of it.
    """

    name: str
    text: str
    marks: tuple[Mark, ...] = ()
    notes: tuple[str, ...] = ()
    path: str | None = field(default=None, compare=False)
    offset: int = 0
    lines_before: int = 0

    def line(self, offset: int) -> int:
        """The line of the file, counted from 1, that holds the character at `offset` of `text`. Lines end
        with LF, CR LF or CR."""
        return self.lines_before + bisect_right(self._line_starts, offset)

    def mark(self, offset: int) -> Mark:
        """Page and heading of the character at `offset`."""
        at = bisect_right(self._mark_starts, offset)
        return self.marks[at - 1] if at else Mark(0)

    def breaks(self) -> list[int]:
        """Where a heading begins, or a page with a new paragraph: no passage of evidence reaches over."""
        found, heading = [], None
        for mark in self.marks:
            if mark.heading != heading or self.text.endswith("\n\n", 0, mark.start):
                found.append(mark.start)
            heading = mark.heading
        return found

    def extended(self, text: str) -> Document:
        """The document with `text` after its end, which belongs to no page and to no heading of the file."""
        marks = (*self.marks, Mark(len(self.text))) if self.marks else ()
        return replace(self, text=self.text + text, marks=marks)

    def as_dict(self) -> dict[str, Any]:
        """Name, text, marks, notes, and the rest where there is some, as JSON can hold them; `from_dict`
        takes it back."""
        values = asdict(self)
        return {key: x for key, x in values.items() if x or key in ("name", "text", "marks", "notes")}

    def part(self, offset: int) -> Document:
        """The document's text from the character `offset` on, as a document that goes on there: its lines
        count on."""
        at = self.mark(offset)
        marks = [replace(mark, start=mark.start - offset) for mark in self.marks if mark.start > offset]
        if self.marks and (at.page is not None or at.heading is not None):
            marks.insert(0, replace(at, start=0))
        lines = self.line(offset) - 1
        return replace(
            self, text=self.text[offset:], marks=tuple(marks), offset=self.offset + offset, lines_before=lines
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Document:
        """The document that `as_dict` wrote. Raises `SakuinError` where `values` cannot be one."""
        try:
            name, text, notes = values["name"], values["text"], tuple(values.get("notes", ()))
            marks = tuple(Mark(**mark) for mark in values.get("marks", ()))
            path, before = values.get("path"), [values.get(key, 0) for key in ("offset", "lines_before")]
        except (KeyError, TypeError, AttributeError):
            raise SakuinError("this is no stored document; read the file again.") from None
        starts = [mark.start for mark in marks]
        sound = (
            all(isinstance(value, str) for value in (name, text, *notes))
            and (path is None or isinstance(path, str))
            and all(type(count) is int and count >= 0 for count in before)
            and all(type(start) is int for start in starts)
            and all(mark.page is None or (type(mark.page) is int and mark.page > 0) for mark in marks)
            and all(mark.heading is None or isinstance(mark.heading, str) for mark in marks)
        )
        if not sound or starts != sorted(starts) or any(not 0 <= start <= len(text) for start in starts):
            raise SakuinError(
                "a stored document's marks lie outside its text or are of a wrong type; read the file again."
            )
        return cls(name, text, marks, notes, path, *before)

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(end.end() for end in _LINE_END.finditer(self.text))]

    @cached_property
    def _mark_starts(self) -> list[int]:
        return [mark.start for mark in self.marks]
