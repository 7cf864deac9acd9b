"""From a path to a document: bytes in, their kind told, the room for it called.

Plain text is decoded here, in time that grows with its length and no faster. All else is taken apart in a
process of its own (`sakuin.documents.apart`).
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import replace
from typing import BinaryIO

from sakuin.documents import apart, encodings, extra, kinds, text
from sakuin.documents.document import Document
from sakuin.documents.limits import MOST_BYTES, MOST_CHARACTERS, check_length
from sakuin.errors import SakuinError
from sakuin.storage.paths import is_address, named, resolved, shortened

NO_FILE = "-"
"""The path of what comes by standard input or a pipe."""

_STEP = 1 << 20
_BYTES_A_CHARACTER = 4
"""At most, in any encoding that is read."""


def read(path: str | os.PathLike[str], encoding: str | None = None) -> Document:
    """The document in a file; `-` is standard input.

    encoding : of plain text and HTML, any that Python knows (cp932, shift_jis, …). None is UTF-8, for HTML
        what the page declares; `"auto"` guesses where that fails, and the document's notes say what was
        guessed. PDF and Word files carry their own.

    Raises `SakuinError` where the file is missing, unreadable, empty, damaged, encrypted, without text, of a
    kind that is not read, or in another encoding (the likely one is named); where it holds more than
    512 MB or 64 million characters, has more than 100,000 pages, or takes too much memory or time to be taken
    apart; and where the extra `documents` is missing that PDF, Word and HTML need.

    PDF, Word, HTML and Markdown files are taken apart in a process of their own. It runs nothing of the
    current folder, and ends with this one.
    """
    if isinstance(path, str | os.PathLike) and os.fspath(path) == "-":
        return parsed(_standard_input(), "standard input", encoding, NO_FILE)
    try:
        name = named(path)
        shown = shortened(name)
        with open(path, "rb") as file:
            held = os.fstat(file.fileno())
            if stat.S_ISREG(held.st_mode) and held.st_size > MOST_BYTES:
                raise _too_long(shown)
            data = _bytes_of(file, shown)
            place = resolved(path) if stat.S_ISREG(held.st_mode) else NO_FILE
    except (FileNotFoundError, NotADirectoryError):
        if is_address(path):
            raise _address(shown) from None
        if not name.strip():
            what = "a blank" if name else "an empty"
            raise SakuinError(
                f"there is no file of {what} name ({name!r:.40}); name the one to read."
            ) from None
        raise SakuinError(f"there is no file {shown}; check the path.") from None
    except IsADirectoryError:
        raise SakuinError(f"{shown} is a folder; name the files in it.") from None
    except PermissionError:
        raise SakuinError(f"{shown} may not be read by this user; change its permissions.") from None
    except OSError as error:
        raise SakuinError(f"{shown} cannot be read: {error.strerror or error}.") from None
    except (TypeError, ValueError) as error:
        if isinstance(error, SakuinError):
            raise
        raise SakuinError(f"{shortened(repr(path))} is no path of a file ({error}).") from None
    return parsed(data, name, encoding, place)


def parsed(data: bytes, name: str, encoding: str | None, path: str) -> Document:
    """The document in `data`, as `read` gives it of a file. path : as a `Document` has it."""
    return replace(_parse(data, name, encoding), path=path)


def _address(name: str) -> SakuinError:
    if name.lower().startswith("file:"):
        return SakuinError(f"{name} is an address; name the path of the file itself.")
    return SakuinError(
        f"{name} is an address, and sakuin fetches nothing: save the page or file first, with a browser, "
        "`curl -O` or wget, and name that file."
    )


def _standard_input() -> bytes:
    name = "standard input"
    if sys.stdin is None:
        raise SakuinError(f"{name} is closed; name a file, or send one to it.")
    try:
        return _bytes_of(sys.stdin.buffer, name)
    except OSError as error:
        raise SakuinError(f"{name} cannot be read: {error.strerror or error}.") from None


def _bytes_of(file: BinaryIO, name: str) -> bytes:
    """All that `file` holds. It may be a device or a pipe without end: read in steps, up to the limit."""
    pieces: list[bytes] = []
    left = MOST_BYTES
    while piece := file.read(_STEP):
        left -= len(piece)
        if left < 0:
            raise _too_long(name)
        pieces.append(piece)
    return b"".join(pieces)


def _too_long(name: str) -> SakuinError:
    return SakuinError(f"{name} holds more than {MOST_BYTES >> 20} MB, and no more are read; split it.")


def _parse(data: bytes, name: str, encoding: str | None) -> Document:
    text.check_not_empty(data, name)
    text.check_encoding(encoding)
    kind = kinds.of(data, name)
    if kind == "text":
        document = _text(data, name, encoding)
    else:
        extra.check(kind, name)
        document = apart.parse(data, kind, name, encoding)
    said = kinds.note(kind, name)
    return replace(document, notes=(said, *document.notes)) if said else document


def _text(data: bytes, name: str, encoding: str | None) -> Document:
    if len(data) > _BYTES_A_CHARACTER * MOST_CHARACTERS:
        check_length(len(data) // _BYTES_A_CHARACTER, name)
    try:
        return text.read(data, name, encoding)
    except SakuinError:
        if (should := kinds.by_suffix(name)) in ("pdf", "word", "sheets") and encodings.looks_binary(data):
            raise SakuinError(
                f"{name} is not {kinds.CALLED[should]}, as its suffix says, and no text either; get it once "
                "more."
            ) from None
        raise
