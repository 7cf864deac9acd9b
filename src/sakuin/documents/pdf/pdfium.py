"""PDFium takes the pages of a PDF apart into lines.

PDFium is C++, gets files from strangers and is for one thread: this runs in `sakuin.documents.child` only.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
from collections import Counter
from typing import Any

from sakuin.documents.limits import MOST_CHARACTERS, MOST_PAGES
from sakuin.documents.pdf import by_column, columns, empty, placing, rules
from sakuin.documents.pdf.annotations import Added, found_on
from sakuin.documents.pdf.letters import DIVIDED, PageLine, lines_of, turned_box

_MOST_BOOKMARKS = 20_000
_MOST_PASSAGES = 10_000
"""Passages of a page whose letters are looked for."""

_NO_WIDTH = 0.01
"""Points of width below which PDFium passes over a passage."""

_LONGEST_LABEL = 128
"""Bytes of a page's label."""


def take_apart(data: bytes) -> dict[str, Any]:
    """The pages of a PDF, or `{"error": "encrypted" | "damaged" | "long" | "pages"}`.

    pages : for each its `lines`, `[text, size, weight, y]`: size (points) and weight of the first letter's
        font and the height of its baseline, 0, 0 and None where they cannot be told; the count of its
        `pictures`, and of passages whose letters are `lost` with their font; whether it is `damaged`; how
        much of what was put on it is not read, by what it is (`lacks`); its `label`.
    attachments : the names of files in the file.
    bookmarks : `[title, page, level]`, page counted from 0.
    """
    import pypdfium2
    import pypdfium2.raw as raw

    try:
        pdf = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        locked = error.err_code in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY)
        return {"error": "encrypted" if locked else "damaged"}
    if len(pdf) > MOST_PAGES:
        return {"error": "pages"}
    form = pdf.get_formtype()
    if form != raw.FORMTYPE_NONE:
        with contextlib.suppress(pypdfium2.PdfiumError):
            pdf.init_forms()
    pages: list[dict[str, Any]] = []
    length = 0
    for number in range(len(pdf)):
        try:
            page = _page(pdf, number)
        except pypdfium2.PdfiumError:
            page = {
                "lines": [],
                "pictures": 0,
                "lost": 0,
                "damaged": True,
                "lacks": {},
                "files": [],
                "label": "",
            }
        length += sum(len(line[0]) for line in page["lines"])
        if length > MOST_CHARACTERS:
            return {"error": "long"}
        pages.append(page)
    return {
        "pages": pages,
        "bookmarks": _bookmarks(pdf),
        "attachments": [*_attached(pdf), *(name for page in pages for name in page["files"])],
        "xfa": form in (raw.FORMTYPE_XFA_FULL, raw.FORMTYPE_XFA_FOREGROUND),
    }


def _page(pdf: Any, number: int) -> dict[str, Any]:
    import pypdfium2.raw as raw

    page = pdf[number]
    pictures = sum(1 for _ in itertools.islice(page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE]), 10_000))
    letters = page.get_textpage()
    lines = lines_of(letters)
    lost = _without_letters(page, bool(lines))
    letters.close()
    form = pdf.formenv
    added, lacks, files = found_on(page, form.raw if form is not None else None)
    drawn = rules.drawn_on(page) if lines else []
    uprights = rules.uprights_on(page) if lines else []
    page.close()
    angle = Counter(line.main.angle for line in lines).most_common(1)[0][0] if lines else 0
    if added:
        _turn(lines, added, angle)
    placing.strike(lines, rules.struck(lines, drawn))
    lines = columns.order(placing.place(lines, added), drawn)
    lines = by_column.put_into_rows(lines, [] if angle else uprights)
    empty.mark(lines, [] if angle else uprights)
    lines = placing.place_notes(lines, added)
    return {
        "lines": _joined(lines),
        "pictures": pictures,
        "lost": lost,
        "damaged": False,
        "lacks": dict(lacks),
        "files": files,
        "label": _label(pdf, number),
    }


def _without_letters(page: Any, has_lines: bool) -> int:
    """Passages of a page that PDFium passes over, as they are in a font that neither the file nor the machine
    has: its letters are of no width. So are blanks, but they have no height either."""
    import pypdfium2.raw as raw

    lost = 0
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    for drawn in itertools.islice(page.get_objects(filter=[raw.FPDF_PAGEOBJ_TEXT]), _MOST_PASSAGES):
        if not raw.FPDFPageObj_GetBounds(drawn.raw, left, bottom, right, top):
            continue
        if right.value - left.value < _NO_WIDTH and (top.value - bottom.value > 1 or not has_lines):
            font = raw.FPDFTextObj_GetFont(drawn.raw)
            lost += not raw.FPDFFont_GetIsEmbedded(font) and not _is_everywhere(font)
    return lost


def _is_everywhere(font: Any) -> bool:
    """Whether a font is one that every reader of PDF brings."""
    import pypdfium2.raw as raw

    buffer = ctypes.create_string_buffer(64)
    raw.FPDFFont_GetBaseFontName(font, buffer, 64)
    return buffer.value.startswith((b"Helvetica", b"Times", b"Courier", b"Symbol", b"ZapfDingbats"))


def _turn(lines: list[PageLine], added: list[Added], angle: int) -> None:
    """On a page whose text runs another way, its lines and what was put on it as if it ran to the right."""
    if not angle:
        return
    for one in added:
        one.boxes = [turned_box(box, angle) for box in one.boxes]
    for line in lines:
        for word in line.words:
            word.angle = (word.angle - angle) % 4


def _joined(lines: list[PageLine]) -> list[list[Any]]:
    """Text, size, weight and height of the lines; those that end within a word with the one that follows."""
    found: list[list[Any]] = []
    for line in lines:
        main, text = line.main, line.text
        if found and found[-1][0].endswith(DIVIDED):
            found[-1][0] += text
        else:
            first = line.words[0]
            found.append([text, first.size, first.weight, round(main.y, 1)])
    return found


def _label(pdf: Any, number: int) -> str:
    """What a file calls a page; nothing where it does not say."""
    import pypdfium2.raw as raw

    size = min(raw.FPDF_GetPageLabel(pdf, number, None, 0), _LONGEST_LABEL)
    if size <= 2:
        return ""
    buffer = ctypes.create_string_buffer(size)
    raw.FPDF_GetPageLabel(pdf, number, buffer, size)
    return buffer.raw[: size - 2].decode("utf-16-le", "replace").replace("\0", "")


def _attached(pdf: Any) -> list[str]:
    """The names of the files that are attached to a document."""
    import pypdfium2

    found: list[str] = []
    for at in range(min(pdf.count_attachments(), _MOST_BOOKMARKS)):
        try:
            found.append(pdf.get_attachment(at).get_name())
        except pypdfium2.PdfiumError:
            found.append("")
    return found


def _bookmarks(pdf: Any) -> list[list[Any]]:
    import pypdfium2

    found: list[list[Any]] = []
    with contextlib.suppress(pypdfium2.PdfiumError):
        for bookmark in itertools.islice(pdf.get_toc(), _MOST_BOOKMARKS):
            destination = bookmark.get_dest()
            page = destination.get_index() if destination else None
            if page is not None:
                found.append([bookmark.get_title(), page, bookmark.level])
    return found
