"""Files in a plain tar, read one after another, with distrust: nothing is made of what an entry declares, and
nothing is read that is not there.

Entries are files, and what says their names or times. A sparse file, which takes more space unpacked than it
has in the archive, a link, a folder, a device or a compressed archive is refused. Python's own `tarfile`
would read all of them, and extended headers of any size. Called by `sakuin.library.archive`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

_BLOCK = 512
_MOST_EXTENDED = 1 << 16
"""Bytes of an extended header."""
_FILE_TYPES, _EXTENDED, _GLOBAL, _LONG_NAME = b"0\0", b"x", b"g", b"L"
_CHUNK = 1 << 20
_HARMLESS = ("path", "mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment", "charset")


class TarError(ValueError):
    """What was read is no tar, or holds what it should not; the text says what."""


@dataclass
class Member:
    """A file in the archive, of `size` bytes, which can be read while it is the newest."""

    name: str
    size: int
    _source: IO[bytes]
    left: int

    def blocks(self) -> Iterator[bytes]:
        """Its bytes, of which each is given once; a `TarError` where the archive ends before them."""
        while self.left:
            data = self._source.read(min(self.left, _CHUNK))
            if not data:
                raise TarError("it ends within a file")
            self.left -= len(data)
            yield data


def members(source: IO[bytes]) -> Iterator[Member]:
    """The files in the tar that `source` is at the beginning of, in order. What of one was not read before
    the next is asked for is passed over."""
    extended: dict[str, str] = {}
    while (header := _header(source)) is not None:
        kind, size = header[156:157], _number(header[124:136])
        if kind in (_EXTENDED, _GLOBAL, _LONG_NAME):
            if size > _MOST_EXTENDED:
                raise TarError(f"a header in it has {size:,} bytes")
            data = _exactly(source, size + -size % _BLOCK)[:size]
            if kind == _EXTENDED:
                extended |= _records(data)
            elif kind == _LONG_NAME:
                extended["path"] = _text(data.rstrip(b"\0"))
            continue
        name = extended.get("path") or _text(header[:100].split(b"\0")[0])
        if kind not in [bytes([one]) for one in _FILE_TYPES] or header[345:346] not in (b"\0", b" "):
            raise TarError(f"{name[:80]!r} in it is no plain file")
        if odd := next((key for key in extended if key not in (*_HARMLESS, "size")), None):
            raise TarError(f"{name[:80]!r} in it has the odd header {odd[:80]!r}")
        if "size" in extended:  # of more than eight gigabytes
            size = _size(extended["size"])
        extended = {}
        member = Member(name, size, source, size)
        yield member
        for _ in member.blocks():
            pass
        _exactly(source, -size % _BLOCK)


def _header(source: IO[bytes]) -> bytes | None:
    """The next header; None at the end."""
    header = source.read(_BLOCK)
    if not header.strip(b"\0"):
        return None
    if len(header) < _BLOCK:
        raise TarError("it ends within a header")
    said = _number(header[148:156])
    if said != sum(header[:148]) + 8 * 32 + sum(header[156:]):
        raise TarError("a header in it is damaged, or it is no tar at all")
    return header


def _number(field: bytes) -> int:
    """A number in octal digits, or, after a byte of 128, in binary."""
    try:
        found = int.from_bytes(field[1:], "big") if field[0] == 128 else int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        found = -1
    if found < 0:
        raise TarError("a header in it is damaged, or it is no tar at all")
    return found


def _size(said: str) -> int:
    if not (said.isascii() and said.isdigit() and len(said) < 16):
        raise TarError("a header in it is damaged")
    return int(said)


def _records(data: bytes) -> dict[str, str]:
    """What an extended header says: lines of their length, a name and a value."""
    found = {}
    while data.strip(b"\0"):
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or len(length) > 5 or not len(length) + 3 <= int(length) <= len(data):
            raise TarError("a header in it is damaged")
        line, data = data[len(length) + 1 : int(length)], data[int(length) :]
        key, _, value = line.rstrip(b"\n").partition(b"=")
        found[_text(key)] = _text(value)
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _exactly(source: IO[bytes], size: int) -> bytes:
    data = source.read(size)
    while len(data) < size:
        more = source.read(size - len(data))
        if not more:
            raise TarError("it ends within a file")
        data += more
    return data
