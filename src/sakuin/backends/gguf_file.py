"""The header of a GGUF file, read without llama.cpp or the package `gguf`: where each value of its metadata
stands, and where each tensor's bytes are.

No more than `sakuin.backends.gguf_fingerprint` needs, which calls it. What is in a file for a model is in
`sakuin.backends.llama_cpp.header`.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sakuin.errors import SakuinError

_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""GGUF's numbers of its types, in the letters of `struct`."""
_ALIGNMENT = 32


@dataclass(frozen=True)
class Place:
    """A tensor: what its header says of it, and where in the file its bytes are, with what fills them up to
    the next tensor's."""

    name: str
    type: int
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class GgufHeader:
    """The metadata, each value as the bytes of its type and its content; and the tensors, in the order of
    their names."""

    path: Path
    values: dict[str, bytes] = field(repr=False)
    tensors: tuple[Place, ...] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> GgufHeader:
        """Raises `SakuinError` where the file is none, or is cut off."""
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data).header(path)
        except OSError as error:
            raise SakuinError(f"{path} cannot be read: {error.strerror or error}.") from error
        except (struct.error, ValueError, KeyError, RecursionError) as error:
            raise SakuinError(f"{path} is no whole GGUF file; fetch it again.") from error

    def text(self, key: str) -> str:
        """A string; "" where there is none of that key."""
        kind, raw = self._value(key)
        return raw[8:].decode("utf-8", "replace") if kind == _STRING else ""

    def number(self, key: str, default: float = 0) -> float:
        """A number, or the largest of an array; `default` where there is none of that key."""
        kind, raw = self._value(key)
        count = 1
        if kind == _ARRAY:
            kind, count = struct.unpack_from("<IQ", raw)
            raw = raw[12:]
        if kind not in _NUMBERS or not count:
            return default
        return float(max(struct.unpack_from(f"<{count}{_NUMBERS[kind]}", raw)))

    def _value(self, key: str) -> tuple[int, bytes]:
        raw = self.values.get(key)
        return (int.from_bytes(raw[:4], "little"), raw[4:]) if raw else (-1, b"")


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def header(self, path: Path) -> GgufHeader:
        if self._data[:4] != b"GGUF":
            raise ValueError("no GGUF file")
        self._forward(8)
        n_tensors, n_values = self._take("<QQ")
        values = {}
        for _ in range(n_values):
            key, start = self._string(), self._at
            (kind,) = self._take("<I")
            self._skip(kind)
            values[key] = self._data[start : self._at]
        found = [(self._string(), *self._tensor()) for _ in range(n_tensors)]
        bare = GgufHeader(path, values, ())
        alignment = int(bare.number("general.alignment", _ALIGNMENT))
        base = self._at + -self._at % alignment
        return GgufHeader(path, values, tuple(sorted(self._places(found, base), key=lambda one: one.name)))

    def _places(self, found: list[tuple[str, tuple[int, ...], int, int]], base: int) -> Iterator[Place]:
        found = sorted(found, key=lambda one: one[3])
        ends = [base + offset for *_, offset in found[1:]] + [len(self._data)]
        for (name, shape, kind, offset), end in zip(found, ends, strict=True):
            if not base + offset <= end <= len(self._data):
                raise ValueError(name)
            yield Place(name, kind, shape, base + offset, end)

    def _take(self, form: str) -> tuple[int, ...]:
        found = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return found

    def _string(self) -> str:
        (n,) = self._take("<Q")
        self._forward(n)
        return self._data[self._at - n : self._at].decode("utf-8", "replace")

    def _tensor(self) -> tuple[tuple[int, ...], int, int]:
        (n,) = self._take("<I")
        shape = self._take(f"<{n}Q")
        kind, offset = self._take("<IQ")
        return shape, kind, offset

    def _skip(self, kind: int) -> None:
        if kind == _STRING:
            (n,) = self._take("<Q")
            self._forward(n)
        elif kind == _ARRAY:
            inner, n = self._take("<IQ")
            if inner in _NUMBERS:
                self._forward(n * struct.calcsize(_NUMBERS[inner]))
            else:
                for _ in range(n):
                    self._skip(inner)
        else:
            self._forward(struct.calcsize(_NUMBERS[kind]))

    def _forward(self, n: int) -> None:
        self._at += n
        if self._at > len(self._data):
            raise ValueError("the file ends within its header")
