"""What was put on the pages of a PDF: text typed on, notes, marks, fields of a form, links.

All of it stands beside the text that it belongs to: a field's value behind its label, a note below its line,
struck-out words between tildes. Runs in `sakuin.documents.child` only.
"""

from __future__ import annotations

import ctypes
import html
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from sakuin.documents.boxes import BLANK, EMPTY, TICKED

_MOST = 20_000
"""Annotations of a page that are looked at."""

_MOST_UNITS = 1 << 20
"""Bytes of a text in an annotation."""

_HIDDEN = 1 << 1 | 1 << 5
"""Flags of what is shown nowhere: hidden, and not viewed."""

_PASSWORD = 1 << 13
"""Flag of a text field whose value is not shown."""

_TAG = re.compile(r"<[^<>]*>")

Box = tuple[float, float, float, float]
"""Left, bottom, right and top on the page, in points."""

How = Literal["typed", "field", "box", "note", "marked", "struck", "link"]


@dataclass(slots=True)
class Added:
    """Something that was put on a page.

    how : typed on, the value of a field, a box to tick, a note, a note on marked words, a mark that strikes
        words out, a link.
    text : its words; of a link its target; of struck-out words what was said of it.
    boxes : where it stands, or what it marks.
    """

    how: How
    text: str
    boxes: list[Box]


def found_on(page: Any, form: Any) -> tuple[list[Added], Counter[str], list[str]]:
    """What was put on a page, in the order of the file; how much there is that is not read, by what it is;
    and the names of files that are attached to it.

    form : PDFium's handle for the document's form, or None.
    """
    import pypdfium2.raw as raw

    found: list[Added] = []
    lacks: Counter[str] = Counter()
    files: list[str] = []
    for at in range(min(raw.FPDFPage_GetAnnotCount(page), _MOST)):
        annotation = raw.FPDFPage_GetAnnot(page, at)
        if not annotation:
            continue
        try:
            reader = _Reader(raw, page, annotation, form)
            found += reader.read(lacks)
            files += reader.files
        finally:
            raw.FPDFPage_CloseAnnot(annotation)
    return found, lacks, files


class _Reader:
    """One annotation."""

    def __init__(self, raw: Any, page: Any, annotation: Any, form: Any) -> None:
        self._raw, self._page, self._it, self._form = raw, page, annotation, form
        self.files: list[str] = []

    def read(self, lacks: Counter[str]) -> Iterator[Added]:
        raw = self._raw
        kind = raw.FPDFAnnot_GetSubtype(self._it)
        if kind == raw.FPDF_ANNOT_POPUP:  # says again what its note says
            return
        if raw.FPDFAnnot_GetFlags(self._it) & _HIDDEN:
            if kind != raw.FPDF_ANNOT_WIDGET or self._value("V"):
                lacks["hidden annotation"] += 1
            return
        if kind == raw.FPDF_ANNOT_WIDGET:
            yield from self._field(lacks)
        elif kind == raw.FPDF_ANNOT_LINK:
            if target := self._target():
                yield Added("link", target, self._marked())
        elif kind == raw.FPDF_ANNOT_FREETEXT:
            if words := self._contents():
                yield Added("typed", words, [self._box()])
        elif kind == raw.FPDF_ANNOT_STRIKEOUT:
            yield Added("struck", self._note("note"), self._marked())
        elif kind in (raw.FPDF_ANNOT_HIGHLIGHT, raw.FPDF_ANNOT_UNDERLINE, raw.FPDF_ANNOT_SQUIGGLY):
            if self._contents():
                yield Added("marked", self._note("note"), self._marked())
        elif kind == raw.FPDF_ANNOT_STAMP:
            name = self._value("Name").removeprefix("SB").removeprefix("#")
            words = self._contents() or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
            yield Added("note", f"[stamp: {words}]" if words else "[stamp]", [self._box()])
        elif kind == raw.FPDF_ANNOT_FILEATTACHMENT:
            self.files.append(self._file())
            if self._contents():
                yield Added("note", self._note("note"), [self._box()])
        elif self._contents():
            called = "insert" if kind == raw.FPDF_ANNOT_CARET else "note"
            yield Added("note", self._note(called), [self._box()])
        elif kind not in (raw.FPDF_ANNOT_TEXT, raw.FPDF_ANNOT_CARET):
            lacks[_CALLED.get(kind, "annotation without words")] += 1

    def _note(self, called: str) -> str:
        """What a note says and who says it; nothing where it is empty."""
        words = " ".join(self._contents().split())
        if not words:
            return ""
        if self._raw.FPDFAnnot_HasKey(self._it, b"IRT") and self._value("RT") != "Group":
            called = "reply"
        author = " ".join(self._value("T").split())
        return f"[{called}{f' by {author}' if author else ''}: {words}]"

    def _contents(self) -> str:
        words = self._value("Contents").strip()
        return words or html.unescape(_TAG.sub(" ", self._value("RC"))).strip()

    def _field(self, lacks: Counter[str]) -> Iterator[Added]:
        raw = self._raw
        if not self._form:
            return
        kind = raw.FPDFAnnot_GetFormFieldType(self._form, self._it)
        if kind in (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON):
            ticked = raw.FPDFAnnot_IsChecked(self._form, self._it)
            yield Added("box", TICKED if ticked else EMPTY, [self._box()])
        elif kind in (raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX):
            yield Added("field", ", ".join(self._options()) or self._form_value() or BLANK, [self._box()])
        elif kind == raw.FPDF_FORMFIELD_TEXTFIELD:
            if raw.FPDFAnnot_GetFormFieldFlags(self._form, self._it) & _PASSWORD:
                lacks["field for a password"] += 1
            else:
                yield Added("field", self._form_value() or BLANK, [self._box()])
        elif kind == raw.FPDF_FORMFIELD_SIGNATURE:
            signed = raw.FPDFAnnot_HasKey(self._it, b"V")
            yield Added("field", "[signed]" if signed else "[not signed]", [self._box()])

    def _form_value(self) -> str:
        value = self._text(self._raw.FPDFAnnot_GetFormFieldValue, self._form, self._it)
        return value.replace("\r\n", "\n").replace("\r", "\n").strip()

    def _options(self) -> list[str]:
        """What is chosen of a list."""
        raw = self._raw
        count = min(raw.FPDFAnnot_GetOptionCount(self._form, self._it), _MOST)
        return [
            self._text(raw.FPDFAnnot_GetOptionLabel, self._form, self._it, at)
            for at in range(count)
            if raw.FPDFAnnot_IsOptionSelected(self._form, self._it, at)
        ]

    def _file(self) -> str:
        """The name of the file that is attached here."""
        file = self._raw.FPDFAnnot_GetFileAttachment(self._it)
        return self._text(self._raw.FPDFAttachment_GetName, file) if file else ""

    def _target(self) -> str:
        """Where a link leads outside the file."""
        raw = self._raw
        link = raw.FPDFAnnot_GetLink(self._it)
        action = raw.FPDFLink_GetAction(link) if link else None
        if not action or raw.FPDFAction_GetType(action) != raw.PDFACTION_URI:
            return ""
        document = self._page.pdf
        size = min(raw.FPDFAction_GetURIPath(document, action, None, 0), _MOST_UNITS)
        buffer = ctypes.create_string_buffer(size)
        raw.FPDFAction_GetURIPath(document, action, buffer, size)
        return " ".join(buffer.raw[: max(size - 1, 0)].decode("utf-8", "replace").split())

    def _value(self, key: str) -> str:
        return self._text(self._raw.FPDFAnnot_GetStringValue, self._it, key.encode())

    def _text(self, get: Any, *which: Any) -> str:
        size = get(*which, None, 0)
        if not 2 < size <= _MOST_UNITS:
            return ""
        buffer = (ctypes.c_ushort * (size // 2 + 1))()
        get(*which, buffer, size)
        return bytes(buffer)[: size - 2].decode("utf-16-le", "replace").replace("\0", "")

    def _box(self) -> Box:
        rectangle = self._raw.FS_RECTF()
        self._raw.FPDFAnnot_GetRect(self._it, rectangle)
        xs, ys = (rectangle.left, rectangle.right), (rectangle.bottom, rectangle.top)
        return min(xs), min(ys), max(xs), max(ys)

    def _marked(self) -> list[Box]:
        """The parts of lines that it marks."""
        raw = self._raw
        found: list[Box] = []
        for at in range(min(raw.FPDFAnnot_CountAttachmentPoints(self._it), _MOST)):
            corners = raw.FS_QUADPOINTSF()
            if raw.FPDFAnnot_GetAttachmentPoints(self._it, at, corners):
                xs = (corners.x1, corners.x2, corners.x3, corners.x4)
                ys = (corners.y1, corners.y2, corners.y3, corners.y4)
                found.append((min(xs), min(ys), max(xs), max(ys)))
        return found or [self._box()]


_CALLED = {
    **dict.fromkeys((4, 5, 6, 7, 8, 15), "drawing"),
    18: "sound",
    19: "film",
    26: "film",
    28: "mark for a redaction",
}
"""By PDFium's number: lines, rectangles, circles, polygons and what was drawn by hand; the rest by name."""
