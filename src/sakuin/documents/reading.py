"""From a path to a document: bytes in, their kind told, the room for it called."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sakuin.documents import kinds, markup, pdf, text, word
from sakuin.documents.document import Document
from sakuin.errors import SakuinError

_READERS: dict[kinds.Kind, Callable[[bytes, str], Document]] = {"pdf": pdf.read, "word": word.read}


def read(path: str | os.PathLike[str], encoding: str | None = None) -> Document:
    """The document in a file; `-` is standard input.

    encoding : of plain text and HTML, any that Python knows (cp932, shift_jis, …). None is UTF-8, for HTML
        what the page declares; `"auto"` guesses where that fails, and the document's notes say what was
        guessed. PDF and Word files carry their own.

    Raises `SakuinError` where the file is missing, unreadable, empty, damaged, encrypted, without text, of a
    kind that is not read, or in another encoding (the likely one is named), and where the extra `documents`
    is missing that PDF, Word and HTML need.
    """
    name = os.fspath(path)
    if name == "-":
        name, data = "standard input", sys.stdin.buffer.read()
    else:
        try:
            data = Path(name).read_bytes()
        except FileNotFoundError:
            raise SakuinError(f"there is no file {name}; check the path.") from None
        except IsADirectoryError:
            raise SakuinError(f"{name} is a folder; name the files in it.") from None
        except PermissionError:
            raise SakuinError(f"{name} may not be read by this user; change its permissions.") from None
        except OSError as error:
            raise SakuinError(f"{name} cannot be read: {error.strerror or error}.") from None
    return _parse(data, name, encoding)


def _parse(data: bytes, name: str, encoding: str | None) -> Document:
    text.check_not_empty(data, name)
    text.check_encoding(encoding)
    kind = kinds.of(data, name)
    if kind == "html":
        document = markup.read(data, name, encoding)
    elif kind in _READERS:
        document = _READERS[kind](data, name)
    else:
        document = _text(data, name, encoding, markdown=kind == "markdown")
    said = kinds.note(kind, name)
    return replace(document, notes=(said, *document.notes)) if said else document


def _text(data: bytes, name: str, encoding: str | None, *, markdown: bool) -> Document:
    try:
        return text.read(data, name, encoding, markdown=markdown)
    except SakuinError:
        if (should := kinds.by_suffix(name)) in _READERS and text.guess(data) is None:
            raise SakuinError(
                f"{name} is not {kinds.CALLED[should]}, as its suffix says, and no text either; get it once "
                "more."
            ) from None
        raise
