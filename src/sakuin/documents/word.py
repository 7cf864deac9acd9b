"""Word documents: mammoth makes HTML of them, `markup` makes text of that.

mammoth knows what a plain walk over the paragraphs misses: tracked changes (read as accepted), content
controls, text boxes, footnotes, nested tables. A Word file has no pages of its own: where one ends depends on
the machine that shows it.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from dataclasses import replace
from typing import Any, BinaryIO
from xml.dom import expatbuilder, minidom

from sakuin.documents import kinds, markup
from sakuin.documents.document import Document
from sakuin.documents.limits import MOST_UNPACKED, MOST_XML
from sakuin.documents.words import counted, listed
from sakuin.errors import SakuinError

_LOOKED_AT = 256
"""Bytes at a part's start that show whether it can be XML."""

_BEFORE_XML = b"\xef\xbb\xbf\xff\xfe\0\t\n\r "
"""What may stand before the first tag: blanks, a byte order mark, and the zeros of UTF-16."""

_BACK = re.compile(r'(<a href="#(?:foot|end)note-ref-[^"<>]*">)↑</a>')
"""mammoth's way back from a note."""

_STYLES = "p[style-name='Title'] => h1:fresh\np[style-name='Subtitle'] => p:fresh"


def read(data: bytes, name: str) -> Document:
    """The document in the Word file `data`."""
    import mammoth

    kinds.check_word(data, name)
    lacks, notes = _survey(data, name)
    pictures = 0

    def count(image: object) -> dict[str, str]:
        nonlocal pictures
        pictures += 1
        return {}

    setattr(minidom, "parse", _parse_xml)  # noqa: B010  # for mammoth; this process reads nothing else
    try:
        found = mammoth.convert_to_html(
            io.BytesIO(data), style_map=_STYLES, convert_image=mammoth.images.img_element(count)
        )
    except RecursionError:
        raise SakuinError(f"{name} nests its tables too deeply to be read; save it as PDF.") from None
    except MemoryError:
        raise
    except Exception as error:  # of zip, XML and the library: all mean the same to whoever has the file
        raise SakuinError(
            f"{name} is damaged and cannot be read ({type(error).__name__}: {str(error)[:120]}); open it in "
            "Word and save it anew."
        ) from None
    equations = sum("oMath" in message.message for message in found.messages)
    if pictures:
        lacks.insert(0, counted(pictures, "picture"))
    if equations:
        lacks.insert(0, "equations")
    if not re.search(r"\w", re.sub(r"<[^>]*>", "", found.value)):
        has = f" and holds only {listed(lacks)}" if lacks else ""
        raise SakuinError(
            f"{name} has no text{has}; if it is a scan, run text recognition (OCR) over it first."
        )
    document = markup.lay_out(_BACK.sub(r"\1</a>", found.value), name)
    if lacks:
        notes.append(f"not read of {name}: {listed(lacks)}.")
    return replace(document, notes=tuple(notes))


def _parse_xml(file: BinaryIO) -> Any:
    """minidom's own `parse` gets a long text in pieces of some kilobytes and copies all of it for each."""
    data = file.read()
    builder = expatbuilder.ExpatBuilderNS()
    builder.getParser().buffer_size = max(len(data), 1)
    return builder.parseString(data)


def _check_sizes(archive: zipfile.ZipFile, name: str) -> None:
    """Refuse what unpacks to too much. Any part that can be XML counts as such, whatever it is called: which
    one holds the text the file says itself."""
    parts = archive.infolist()
    whole = sum(part.file_size for part in parts)
    if whole > MOST_UNPACKED:
        raise SakuinError(
            f"{name} unpacks to {whole >> 20:,} MB, and at most {MOST_UNPACKED >> 20:,} MB are read; split "
            "it, or save it as PDF or text."
        )
    size = 0
    for part in parts if whole > MOST_XML else []:
        with archive.open(part) as file:
            head = file.read(_LOOKED_AT).lstrip(_BEFORE_XML)
        if not head or head.startswith(b"<"):
            size += part.file_size
    if size > MOST_XML:
        raise SakuinError(
            f"{name} unpacks to {size >> 20:,} MB of XML, and at most {MOST_XML >> 20} MB are read; split "
            "it, or save it as PDF or text."
        )


def _survey(data: bytes, name: str) -> tuple[list[str], list[str]]:
    """What the parts of the file say is not in its running text, and notes on how it was read."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
            if any(part.flag_bits & 1 for part in parts):
                raise SakuinError(f"{name} is encrypted; save it without a password.")
            _check_sizes(archive, name)
            body = archive.read("word/document.xml") if "word/document.xml" in archive.namelist() else b""
            around = b"".join(
                archive.read(part)
                for part in parts
                if re.fullmatch(r"word/(header|footer)\d*\.xml", part.filename)
            )
            comments = any(part.filename == "word/comments.xml" for part in parts)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError, zlib.error) as error:
        if isinstance(error, SakuinError):
            raise
        raise SakuinError(f"{name} is damaged ({error}); open it in Word and save it anew.") from None
    lacks = ["page headers and footers"] if re.search(rb"<w:t[ >]", around) else []
    lacks += ["comments"] if comments and b"commentReference" in body else []
    notes = []
    if re.search(rb"<w:(ins|del) ", body):
        notes.append(f"{name} has tracked changes, which were read as accepted.")
    return lacks, notes
