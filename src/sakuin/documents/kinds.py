"""What a file is, told by its content; its suffix is only believed where the content does not say.

Files that hold no text that sakuin reads are refused here, each in a sentence that says what to do with it.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from pathlib import PurePath
from typing import Literal

from sakuin.errors import SakuinError

Kind = Literal["text", "markdown", "html", "pdf", "word", "csv", "sheets", "mail"]

CALLED: dict[Kind, str] = {
    "text": "plain text",
    "markdown": "plain text",
    "html": "HTML",
    "pdf": "a PDF",
    "word": "a Word document",
    "csv": "plain text",
    "sheets": "a workbook",
    "mail": "an e-mail",
}
_SUFFIXES: dict[str, Kind] = {
    ".pdf": "pdf",
    ".docx": "word",
    ".docm": "word",
    ".dotx": "word",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".md": "markdown",
    ".markdown": "markdown",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".xlsx": "sheets",
    ".xlsm": "sheets",
    ".xltx": "sheets",
    ".xlsb": "sheets",
    ".xls": "sheets",
    ".xlt": "sheets",
    ".ods": "sheets",
    ".eml": "mail",
    ".mht": "mail",
    ".mhtml": "mail",
}
_MAY_BE_HTML = (
    "",
    ".txt",
    ".text",
    ".pdf",
    ".docx",
    ".doc",
    ".xlsx",
    ".xls",
    ".ods",
    ".csv",
    ".asp",
    ".aspx",
    ".jsp",
    ".php",
    ".cgi",
)
"""Suffixes under which a page from the web is found; a template or a program that begins with a tag is
none.
"""

_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body)[\s>]", re.I)
_HTML_WITHIN = 4096
_TAG = re.compile(rb"<(?:!doctype|/?[a-z])[^<>]*>", re.I)
_PDF_WITHIN = 1024
"""Bytes at a file's start within which readers of PDF accept its mark."""

_BINARY_STARTS = {
    b"\x7fELF": "a program",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"II*\0": "a picture",
    b"MM\0*": "a picture",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"GGUF": "a model",
}
_HEADERS_WITHIN = 1 << 16
_HEADERS = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:From [^\n]*\n|\r?\n){0,3}(?:[!-9;-~]{1,76}:[^\n]*\n(?:[ \t][^\n]*\n)*)+"
)
_KNOWN_HEADER = re.compile(
    rb"^(?:From|To|Subject|Date|Received|Return-Path|MIME-Version|Content-Type|Message-ID):", re.I | re.M
)
_MIME = re.compile(rb"^MIME-Version:\s*1\.0", re.I | re.M)
_IN_A_ZIP = (
    ("ppt/", "a PowerPoint presentation", "save it as PDF"),
    ("META-INF/container.xml", "an e-book", "save it as HTML or PDF"),
    ("content.xml", "an OpenDocument file", "save it as DOCX or PDF"),
)
_OLD = b"\xd0\xcf\x11\xe0"
"""What office documents of the time before 2007 begin with, and such as have a password."""

_OLD_WORKBOOKS = ("Workbook", "Book")
_IN_OLD = {
    "EncryptedPackage": "an office document with a password; save it without one",
    "WordDocument": "a Word document of the old format (.doc); save it as DOCX or PDF",
    "PowerPoint Document": "a PowerPoint presentation of the old format (.ppt); save it as PDF",
    "VisioDocument": "a drawing of the old format; save it as PDF",
    "__properties_version1.0": "an e-mail of Outlook (.msg); save it as text or HTML",
}
"""What stands in old office documents beside workbooks, and what to say of them."""

_ENTRY = 128
"""Bytes of an entry of that list, which begin with its name."""

_IN_WORKBOOKS = (b"xl/workbook", b"application/vnd.oasis.opendocument.spreadsheet")


def suffix(name: str) -> str:
    """The suffix of a file's name, in small letters."""
    return PurePath(name).suffix.lower()


def by_suffix(name: str) -> Kind:
    """What a file of this name should be."""
    return _SUFFIXES.get(suffix(name), "text")


def of(data: bytes, name: str) -> Kind:
    """What `data`, a file called `name`, is. Raises `SakuinError` where it is nothing that can be read. A zip
    archive is "word" here; whether it holds a document, `check_word` sees."""
    should = by_suffix(name)
    head = data[:_PDF_WITHIN]
    if b"%PDF-" in head and (should == "pdf" or head.lstrip(b"\xef\xbb\xbf\r\n\t ").startswith(b"%PDF-")):
        return "pdf"
    if data.startswith(b"PK\x03\x04"):
        # The names of what is in an archive stand in it as they are.
        of_sheets, of_word = any(name in data for name in _IN_WORKBOOKS), b"word/document" in data
        return "sheets" if (should == "sheets" if of_sheets == of_word else of_sheets) else "word"
    if data.startswith(_OLD):
        return _old(data, name)
    _refuse(data, name)
    if _is_mail(data, name):
        return "mail"
    if should == "html":
        # Words without a single tag would lose their line ends as HTML.
        return "html" if _TAG.search(data) or b"\0" in head else "text"
    if suffix(name) in _MAY_BE_HTML and _begins_as_html(data):
        return "html"
    return should if should in ("markdown", "csv") else "text"


def note(kind: Kind, name: str) -> str | None:
    """A sentence where a file's suffix and its content disagree."""
    should = by_suffix(name)
    if CALLED[kind] == CALLED[should] or (
        should == "text" and suffix(name) not in (*_MAY_BE_HTML, ".rtf")[1:]
    ):
        return None
    return f"{name} is {CALLED[kind]} in spite of its suffix {suffix(name)}, and was read as such."


def _is_mail(data: bytes, name: str) -> bool:
    """Whether headers of an e-mail or a web archive stand at the start. Under other suffixes they must name
    the format too: a text may begin with "From:"."""
    found = _HEADERS.match(data[:_HEADERS_WITHIN])
    if found is None or _KNOWN_HEADER.search(found[0]) is None:
        return False
    if by_suffix(name) == "mail":
        return True
    return suffix(name) in ("", ".txt", ".doc", ".html", ".htm") and _MIME.search(found[0]) is not None


def _old(data: bytes, name: str) -> Kind:
    """A workbook of the old format (.xls); `SakuinError` for all else that looks like one from outside."""
    places = {entry: _entry_in(data, entry) for entry in (*_OLD_WORKBOOKS, *_IN_OLD)}
    found = sorted((place, entry) for entry, place in places.items() if place >= 0)
    within = [entry for _, entry in found]
    # Documents lie in one another; the outermost is listed first, and the beginning of a file may list none.
    if by_suffix(name) == "sheets" and (not within or any(entry in within for entry in _OLD_WORKBOOKS)):
        return "sheets"
    first = within[0] if within else ""
    if first in _OLD_WORKBOOKS:
        return "sheets"
    said = _IN_OLD.get(first, "an office document of the old format; save it as DOCX, XLSX or PDF")
    raise SakuinError(f"{name} is {said}.")


def _entry_in(data: bytes, entry: str) -> int:
    """Where an old office document lists what is in it by this name; -1 where it does not."""
    long = entry.encode("utf-16-le") + b"\0\0"
    place = data.find(long)
    while place >= 0 and place % _ENTRY:
        place = data.find(long, place + 1)
    return place


def _begins_as_html(data: bytes) -> bool:
    """Whether the first tag is one that HTML begins with, after comments and what XML begins with."""
    head = data.removeprefix(b"\xef\xbb\xbf")[:_HTML_WITHIN].lstrip()
    if head.startswith(b"<?xml"):
        head = head.partition(b">")[2].lstrip()
    while head.startswith(b"<!--"):
        head = head[4:].partition(b"-->")[2].lstrip()
    return _HTML.match(head) is not None


def _refuse(data: bytes, name: str) -> None:
    if data.startswith(b"{\\rtf"):
        raise SakuinError(f"{name} is an RTF document; save it as DOCX or PDF.")
    for start, called in _BINARY_STARTS.items():
        if data.startswith(start):
            raise SakuinError(f"{name} is {called}, not text; extract its text first.")


def check_word(data: bytes, name: str) -> None:
    """Raise `SakuinError` where the zip archive `data` is no Word document."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inside = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error):
        if by_suffix(name) == "word":
            raise SakuinError(
                f"{name} is damaged or cut short: it begins as a Word document, and its end is missing; get "
                "it once more, or open it in Word and save it anew."
            ) from None
        raise SakuinError(f"{name} is a damaged zip archive, not text; get it once more.") from None
    if "[Content_Types].xml" in inside and any(entry.startswith("word/") for entry in inside):
        return
    for entry, called, remedy in _IN_A_ZIP:
        if any(each.startswith(entry) for each in inside):
            raise SakuinError(f"{name} is {called}, which sakuin does not read; {remedy}.")
    raise SakuinError(f"{name} is a zip archive, not text; unpack it and name the files in it.")
