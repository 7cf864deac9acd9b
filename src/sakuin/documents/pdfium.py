"""PDFium takes the pages of a PDF apart into lines.

PDFium is C++, gets files from strangers and is for one thread: this runs in `sakuin.documents.child` only.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from ctypes import c_double
from typing import Any

from sakuin.documents.limits import MOST_CHARACTERS, MOST_PAGES

_MOST_BOOKMARKS = 20_000

_LINE_END = re.compile(r"\r\n?|\n")


def take_apart(data: bytes) -> dict[str, Any]:
    """The pages of a PDF, or `{"error": "encrypted" | "damaged" | "long" | "pages"}`.

    pages : for each its `lines`, `[text, size, weight, y]`: size (points) and weight of the first letter's
        font and the height of its baseline, 0, 0 and None where they cannot be told; the count of its
        `pictures`; whether it is `damaged`.
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
            page = {"lines": [], "pictures": 0, "damaged": True}
        length += sum(len(line[0]) for line in page["lines"])
        if length > MOST_CHARACTERS:
            return {"error": "long"}
        pages.append(page)
    return {
        "pages": pages,
        "bookmarks": _bookmarks(pdf),
        "attachments": pdf.count_attachments(),
        "xfa": form in (raw.FORMTYPE_XFA_FULL, raw.FORMTYPE_XFA_FOREGROUND),
    }


def _page(pdf: Any, number: int) -> dict[str, Any]:
    import pypdfium2.raw as raw

    page = pdf[number]
    if pdf.formenv is not None and page.flatten() == raw.FLATTEN_SUCCESS:
        page.close()
        page = pdf[number]  # now with what has been filled into its fields
    pictures = sum(1 for _ in itertools.islice(page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE]), 10_000))
    letters = page.get_textpage()
    text = letters.get_text_range() if letters.count_chars() else ""
    # Letters are counted as the text has them only where none takes two units of UTF-16.
    known = len(text) == letters.count_chars()
    lines, start = [], 0
    for end in [*_LINE_END.finditer(text), None]:
        line = text[start : end.start() if end else None]
        blanks = len(line) - len(line.lstrip())
        size, weight, y = _font(letters, start + blanks) if known and line.strip() else (0.0, 0, None)
        if end or line:
            lines.append([line, size, weight, y])
        start = end.end() if end else start
    letters.close()
    page.close()
    return {"lines": lines, "pictures": pictures, "damaged": False}


def _font(letters: Any, at: int) -> tuple[float, int, float | None]:
    """Size on the page, in points, and weight of a letter's font, and the height of its baseline."""
    import pypdfium2.raw as raw

    matrix = raw.FS_MATRIX()
    # A font's own size says nothing: many writers set it to 1 and scale the text.
    scale = (matrix.c**2 + matrix.d**2) ** 0.5 if raw.FPDFText_GetMatrix(letters, at, matrix) else 1.0
    size = round(raw.FPDFText_GetFontSize(letters, at) * scale, 1)
    x, y = c_double(), c_double()
    placed = raw.FPDFText_GetCharOrigin(letters, at, x, y)
    return size, raw.FPDFText_GetFontWeight(letters, at), round(y.value, 1) if placed else None


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
