"""Reading documents: files or standard input, decoded, refused in words where they are no text.

A `Document` is a name and its text. Offsets of evidence count characters of this text, exactly as decoded:
line ends are not translated; only a byte order mark at the start is taken off. What a model makes of the text
is the business of `sakuin.context`.
"""

from __future__ import annotations

import codecs
import os
import sys
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sakuin.errors import SakuinError

_BINARY_STARTS = {
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive or an office document",
    b"\x7fELF": "a program",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"GGUF": "a model",
    b"\xd0\xcf\x11\xe0": "an old office document",
}
_BOMS = (  # the longer ones first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MOST_CONTROLS = 0.01
_TEXT_CONTROLS = frozenset("\t\n\v\f\r\x1b")


@dataclass(frozen=True)
class Document:
    """A named text."""

    name: str
    text: str

    def line(self, offset: int) -> int:
        """The line, counted from 1, that holds the character at `offset`."""
        return bisect_right(self._line_starts, offset)

    def extended(self, text: str) -> Document:
        """The document with `text` after its end."""
        return replace(self, text=self.text + text)

    def as_dict(self) -> dict[str, Any]:
        """Name and text as JSON can hold them; `from_dict` takes it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Document:
        """The document that `as_dict` wrote."""
        return cls(**values)

    @cached_property
    def _line_starts(self) -> list[int]:
        starts = [0]
        at = self.text.find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = self.text.find("\n", at + 1)
        return starts


def read(path: str | os.PathLike[str], encoding: str = "utf-8") -> Document:
    """The document in a file; `-` is standard input.

    Raises `SakuinError` where the file is missing, unreadable, empty, binary or in another encoding, which it
    then guesses.
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
    return Document(name, decode(data, name, encoding))


def decode(data: bytes, name: str, encoding: str = "utf-8") -> str:
    """The text in `data`; `name` is what errors call it."""
    if not data.strip():
        raise SakuinError(f"{name} is empty; there is nothing to ask about.")
    if kind := next((kind for start, kind in _BINARY_STARTS.items() if data.startswith(start)), None):
        raise SakuinError(f"{name} is {kind}, not text; extract its text first.")
    try:
        text = data.decode(encoding)
    except LookupError:
        raise SakuinError(
            f"there is no text encoding named {encoding!r}; usual ones are utf-8, cp932, euc_jp, utf-16 and "
            "cp1252."
        ) from None
    except UnicodeError as error:
        raise SakuinError(_not_in(data, name, encoding, error)) from None
    text = text.removeprefix("\ufeff")
    if _is_binary(text):
        if (likely := _guess(data)) and likely.startswith("utf-"):
            raise SakuinError(
                f"{name} is not {encoding} text; it looks like {likely}: pass --encoding {likely}."
            )
        raise SakuinError(f"{name} is binary, not text; extract its text first.")
    if not text.strip():
        raise SakuinError(f"{name} holds only blanks; there is nothing to ask about.")
    return text


def _not_in(data: bytes, name: str, encoding: str, error: UnicodeError) -> str:
    where = ""
    if isinstance(error, UnicodeDecodeError):
        where = (
            f" (byte 0x{data[error.start]:02x} at offset {error.start})" if error.start < len(data) else ""
        )
    likely = _guess(data)
    if likely is None:
        return f"{name} is not {encoding} text{where} and looks binary; extract its text first."
    return f"{name} is not {encoding} text{where}; it looks like {likely}: pass --encoding {likely}."


def _is_binary(text: str) -> bool:
    if "\0" in text:
        return True
    sample = text[: 1 << 16]
    controls = sum(1 for char in sample if char < " " and char not in _TEXT_CONTROLS)
    return controls > _MOST_CONTROLS * len(sample)


def _guess(data: bytes) -> str | None:
    """The encoding that `data`, which is not UTF-8, is likely in; None where it looks binary."""
    for mark, name in _BOMS:
        if data.startswith(mark):
            return name
    sample = data[: 1 << 16]
    if b"\0" in sample:
        return _guess_utf16(sample)
    if b"\x1b$" in sample and max(sample) < 0x80:
        return "iso2022_jp"
    scores = {name: _japanese(sample, name) for name in ("cp932", "euc_jp")}
    best = max(scores, key=lambda name: scores[name])
    if scores[best] > 0.5:
        return best
    for name in ("utf-8", "cp1252", "latin-1"):
        if (text := _decoded(sample, name)) is not None:
            return None if _is_binary(text) or _letters(text) < 0.5 else name
    return None


def _guess_utf16(sample: bytes) -> str | None:
    """UTF-16 without a mark, of Western text: every other byte is zero."""
    even = sample[: len(sample) // 2 * 2]
    if len(even) < 4:
        return None
    zeros = even[0::2].count(0), even[1::2].count(0)
    name = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    text = _decoded(even, name)
    if text is None or _is_binary(text) or max(zeros) < 0.3 * (len(even) // 2) or _letters(text) < 0.5:
        return None
    return name


def _decoded(sample: bytes, name: str) -> str | None:
    """`sample` decoded, forgiving only a character that its end cuts."""
    decoder = codecs.getincrementaldecoder(name)()
    try:
        return decoder.decode(sample)
    except UnicodeDecodeError:
        return None


def _japanese(sample: bytes, name: str) -> float:
    """How much `sample` looks like Japanese if it is in the encoding `name`, 0 to 1.

    Text in the wrong one of the two encodings comes out as half-width kana and rare signs, and Western text
    has no kana.
    """
    text = _decoded(sample, name)
    foreign = [char for char in text or "" if char > "\x7f"]
    kana = sum(1 for char in foreign if "\u3040" <= char <= "\u30ff")
    if not foreign or kana < 0.05 * len(foreign):
        return 0.0
    usual = sum(
        1
        for char in foreign
        if "\u3000" <= char <= "\u30ff" or "\u4e00" <= char <= "\u9fff" or "\uff01" <= char <= "\uff5e"
    )
    return usual / len(foreign)


def _letters(text: str) -> float:
    """Share of the characters that are letters, digits, blanks or ASCII signs."""
    return sum(1 for char in text if char.isalnum() or char.isspace() or " " <= char <= "~") / max(
        len(text), 1
    )
