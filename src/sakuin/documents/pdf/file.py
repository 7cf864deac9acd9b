"""PDF: its text in reading order, page by page, with the headings that its bookmarks or its fonts show.

PDFium takes the pages apart (`pdfium`). `letters` has their words, `annotations`, `placing` and `rules` what
was put on them, `columns` and `running` their order; `headings` finds headings, `pages` makes running text.
What the file holds that has no text (a scan, a picture) is said here.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from sakuin.documents.document import Document
from sakuin.documents.limits import MOST_CHARACTERS, MOST_PAGES
from sakuin.documents.pdf import headings, pages, pdfium
from sakuin.documents.words import with_and
from sakuin.errors import SakuinError
from sakuin.quantities import counted

_UNREADABLE = re.compile(r"[\ufffd\ue000-\uf8ff\x01-\x08\x0e-\x1f]")
_FONT_REMEDY = "print it into a new PDF with its fonts, or run text recognition (OCR) over it"
_MOST_UNREADABLE = 0.3
_QUOTED = 80
"""Characters of a running line that are said."""

_MOST_NAMES = 8
"""Names of attached files that are said."""

_MOST_RUNS = 20
"""Runs of page numbers that are said."""


def read(data: bytes, name: str) -> Document:
    """The document in the PDF `data`."""
    taken = _taken_apart(data, name)
    found = pages.lines([page["lines"] for page in taken["pages"]])
    notes = _notes(taken, found, data, name)
    dropped = pages.drop_running(found)
    if dropped:
        notes.append(
            f"{name} repeats {with_and([repr(line[:_QUOTED]) for line in dropped[:3]])}"
            f"{' and more' * (len(dropped) > 3)} on its pages, which was read once."
        )
    text, marks = pages.joined(found, headings.find(found, taken["bookmarks"]))
    return Document(name, text, marks, tuple(notes))


def _taken_apart(data: bytes, name: str) -> dict[str, Any]:
    taken = pdfium.take_apart(data)
    remedy = {
        "encrypted": f"{name} is encrypted; save it without a password, for example with qpdf --decrypt.",
        "damaged": f"{name} is damaged or cut short: no pages are found in it; get it once more.",
        "long": f"{name} holds more than {MOST_CHARACTERS:,} characters; split it.",
        "pages": f"{name} says that it has more than {MOST_PAGES:,} pages, and no more are read; split it.",
    }
    if error := taken.get("error"):
        raise SakuinError(remedy[error])
    if not taken["pages"]:
        raise SakuinError(f"{name} is a PDF without pages; get it once more.")
    return taken


def _notes(taken: dict[str, Any], found: pages.Pages, data: bytes, name: str) -> list[str]:
    """What of the file is not in its text; refuses a file that has none."""
    scanned: list[int] = []
    blank: list[int] = []
    damaged: list[int] = []
    unreadable: list[int] = []
    pictures = 0
    for number, (page, lines) in enumerate(zip(taken["pages"], found, strict=True), 1):
        text = "".join(line.text for line in lines)
        if page["damaged"]:
            damaged.append(number)
        elif not text:
            (scanned if page["pictures"] else blank).append(number)
        else:
            pictures += page["pictures"]
            if len(_UNREADABLE.findall(text)) > _MOST_UNREADABLE * len(text):
                unreadable.append(number)
    count = len(found)
    lost = sum(page["lost"] for page in taken["pages"])
    without = len(scanned) + len(blank) + len(damaged) + len(unreadable)
    if without == count:
        why = (
            "its pages are damaged; get it once more"
            if len(damaged) == count
            else "its fonts do not say which letters their signs are; run text recognition (OCR) over it"
            if unreadable
            else f"their font is not in the file; {_FONT_REMEDY}"
            if lost
            else "it is a scan; run text recognition (OCR) over it first, for example with ocrmypdf"
            if scanned
            else "its pages are blank or drawn; run text recognition (OCR) over it first"
        )
        raise SakuinError(f"{name} has no text on its {counted(count, 'page')}: {why}.")
    notes = []
    for numbers, said in (
        (scanned, "without text, a scan or pictures: run text recognition (OCR) over it to have them read"),
        (blank, "without text: blank or drawn"),
        (damaged, "damaged and not read"),
        (
            unreadable,
            "in fonts that do not say which letters their signs are; their text is not to be trusted",
        ),
    ):
        if numbers:
            notes.append(f"{_numbers(numbers)} of {name} {'is' if len(numbers) == 1 else 'are'} {said}.")
    if lost:
        is_, was = ("is", "was") if lost == 1 else ("are", "were")
        notes.append(
            f"{counted(lost, 'passage')} of {name} {is_} in a font that is not in the file, and {was} not "
            f"read: {_FONT_REMEDY}."
        )
    if lacks := _lacks(taken, pictures):
        notes.append(f"not read of {name}: {with_and(lacks)}.")
    if labelled := _labels(taken, name):
        notes.append(labelled)
    if b"%%EOF" not in data[-2048:]:
        notes.append(f"{name} has no end mark and may be cut short; the pages that were found were read.")
    return notes


def _lacks(taken: dict[str, Any], pictures: int) -> list[str]:
    """How much of what is not read, beside pages and their text."""
    lacks = [counted(pictures, "picture")] if pictures else []
    if attached := taken["attachments"]:
        named = [each for each in attached if each]
        said = with_and([*map(repr, named[:_MOST_NAMES]), *["others"] * (len(named) > _MOST_NAMES)])
        lacks.append(counted(len(attached), "attached file") + (f" ({said})" if named else ""))
    put_on: Counter[str] = Counter()
    for page in taken["pages"]:
        put_on.update(page["lacks"])
    lacks += [counted(number, thing) for thing, number in put_on.items()]
    lacks += ["an XFA form"] if taken["xfa"] else []
    return lacks


def _labels(taken: dict[str, Any], name: str) -> str:
    """A sentence where the file numbers its pages otherwise than by counting them."""
    for number, page in enumerate(taken["pages"], 1):
        if page["label"] not in ("", str(number)):
            others = [at for at, page in enumerate(taken["pages"], 1) if page["label"] == "1" and at > 1]
            example, label = (others[0], "1") if others else (number, page["label"][:_QUOTED])
            return (
                f"pages of {name} are counted from its first one; what it prints as page {label} is page "
                f"{example}."
            )
    return ""


def _numbers(numbers: list[int]) -> str:
    """Page numbers in words, runs of them joined: "pages 2, 5-7 and 9"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    said = [f"{first}" if first == last else f"{first}-{last}" for first, last in runs[:_MOST_RUNS]]
    said += ["others"] if len(runs) > _MOST_RUNS else []
    return ("page " if len(numbers) == 1 else "pages ") + with_and(said)
