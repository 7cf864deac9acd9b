"""What a GGUF file says of itself, without its weights: metadata, tensors, and the parts of a split file.

The file is read by llama.cpp's own `gguf_*` functions. Words of a vocabulary become Python objects only where
they are asked for. Files that sakuin cannot use are refused here, by
`sakuin.backends.llama_cpp.refused`. Called by `shape`, `vocabulary` and `description`, and by whoever loads
the file.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sakuin.backends.llama_cpp import vocabulary_facts
from sakuin.backends.llama_cpp.layouts import HeaderParams
from sakuin.backends.llama_cpp.library import library
from sakuin.backends.llama_cpp.refused import refuse
from sakuin.errors import SakuinError

Scalar = int | float | bool | str
Value = Scalar | tuple[int | float | bool, ...]

_STRING, _ARRAY = 8, 9
_TYPES: dict[int, Any] = {
    0: ctypes.c_uint8,
    1: ctypes.c_int8,
    2: ctypes.c_uint16,
    3: ctypes.c_int16,
    4: ctypes.c_uint32,
    5: ctypes.c_int32,
    6: ctypes.c_float,
    7: ctypes.c_bool,
    10: ctypes.c_uint64,
    11: ctypes.c_int64,
    12: ctypes.c_double,
}
"""GGUF's numbers of its types."""

_SHORT = 1024
"""Arrays of so many numbers, or fewer, are values like others: those that say something of each layer."""
_VERSIONS = (2, 3)
_OLD = {b"ggml": "GGML", b"lmgg": "GGML", b"ggmf": "GGMF", b"ggjt": "GGJT", b"tjgg": "GGJT", b"algg": "GGLA"}
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file.

    type : as ggml names it: "f32", "q4_K". shape : in ggml's order, the length of a row first. file, offset :
        which of the header's files holds it, and where in it its bytes begin.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    nbytes: int
    file: int
    offset: int

    @property
    def n_elements(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """The metadata and the tensors of a GGUF file, or of all parts of a split one.

    files : in order; llama.cpp is given the first, and finds the others.
    values : the metadata by key, without arrays of strings (`strings`) and long ones (`long`).
    lengths : of every array, by key. long : arrays of more than 1024 numbers, by key. kinds : of every value
        whether it is "one" or, of an array, "strings" or the letter of its dtype (i, u, f, b).
    """

    files: tuple[Path, ...]
    values: Mapping[str, Value]
    lengths: Mapping[str, int]
    long: Mapping[str, NDArray[Any]] = field(repr=False)
    tensors: tuple[Tensor, ...] = field(repr=False)
    kinds: Mapping[str, str] = field(repr=False)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Header:
        """The header of a file; of a split one any part may be named.

        Raises `SakuinError` where it is none, is cut off or damaged, lacks a part, or holds something that
        sakuin cannot use.
        """
        first = _first_part(Path(path))
        header = _read_one(first, 0)
        n_parts = header.number("split.count", 1)
        if n_parts > 1:
            header = _with_parts(header, n_parts)
        refuse(header)
        vocabulary_facts.check(header)
        return header

    @property
    def path(self) -> Path:
        """The file to load."""
        return self.files[0]

    @property
    def architecture(self) -> str:
        """What llama.cpp calls the kind of model, or "" where the file does not say."""
        return self.text("general.architecture")

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @cached_property
    def by_name(self) -> Mapping[str, Tensor]:
        """The tensors by their names."""
        return {tensor.name: tensor for tensor in self.tensors}

    def own(self, name: str) -> str:
        """The key by which the architecture states `name`."""
        return f"{self.architecture}.{name}"

    def text(self, key: str, default: str = "") -> str:
        """A string; `default` where the file has none of that key."""
        value = self.values.get(key, default)
        return value if isinstance(value, str) else default

    def number(self, key: str, default: int = 0) -> int:
        """A whole number, or the largest of an array; `default` where the file has none of that key."""
        value = self.values.get(key, default)
        if isinstance(value, tuple):
            value = max(value, default=default)
        return default if isinstance(value, str) else self._whole(key, value)

    def real(self, key: str, default: float = 0.0) -> float:
        """A number; `default` where the file has none of that key."""
        value = self.values.get(key, default)
        return default if isinstance(value, str | tuple) else float(value)

    def per_layer(self, key: str, n_layers: int, default: int = 0) -> list[int]:
        """A number for each layer, which the file states as one for all or as an array. Raises `SakuinError`
        where the array is too short."""
        value = self.values.get(key, default)
        if not isinstance(value, tuple):
            return [self.number(key, default)] * n_layers
        if len(value) < n_layers:
            raise SakuinError(
                f"{self.path} states {key} for {len(value)} layers of {n_layers}, so it is damaged; fetch it "
                "again."
            )
        return [self._whole(key, each) for each in value[:n_layers]]

    def _whole(self, key: str, value: int | float | bool) -> int:
        if not math.isfinite(value):
            raise SakuinError(f"{self.path} states {key} as {value}, so it is damaged; fetch it again.")
        return int(value)

    def strings(self, key: str) -> list[bytes]:
        """The array of strings of that key, read from the file; empty where there is none."""
        with _opened(self.path) as context:
            lib = library()
            at = lib.gguf_find_key(context, key.encode())
            if at < 0 or lib.gguf_get_kv_type(context, at) != _ARRAY:
                return []
            if lib.gguf_get_arr_type(context, at) != _STRING:
                return []
            return [lib.gguf_get_arr_str(context, at, i) for i in range(lib.gguf_get_arr_n(context, at))]


def _first_part(path: Path) -> Path:
    """`path`, or the first part of the split file that it is a part of."""
    _check_magic(path)
    found = _PART.search(path.name)
    if found is None or int(found[1]) == 1 or found.end() != len(path.name):
        return path
    first = _part(path, found, 1, int(found[2]))
    if first.is_file():
        _check_magic(first)
        return first
    raise SakuinError(
        f"{path} is part {int(found[1])} of {int(found[2])} of a model, and the first part, {first.name}, is "
        "not beside it; fetch all parts."
    )


def _part(path: Path, found: re.Match[str], number: int, of: int) -> Path:
    return path.with_name(f"{path.name[: found.start()]}-{number:05d}-of-{of:05d}{path.name[-5:]}")


def _with_parts(first: Header, n_parts: int) -> Header:
    path = first.path
    found = _PART.search(path.name)
    if found is None or int(found[2]) != n_parts:
        raise SakuinError(
            f"{path} is the first of {n_parts} parts, so its name must end in -00001-of-{n_parts:05d}.gguf "
            "for the others to be found; give the parts the names that they were published under."
        )
    files, tensors = [path], list(first.tensors)
    for number in range(2, n_parts + 1):
        part = _part(path, found, number, n_parts)
        if not part.is_file():
            raise SakuinError(
                f"the model {path.name} has {n_parts} parts and {part.name} is not beside it; fetch all "
                "parts."
            )
        _check_magic(part)
        more = _read_one(part, number - 1)
        files.append(part)
        tensors += more.tensors
    expected = first.number("split.tensors.count", len(tensors))
    if expected != len(tensors):
        raise SakuinError(
            f"the {n_parts} parts of {path.name} have {len(tensors)} tensors instead of {expected}, so they "
            "do not belong together; fetch all parts again."
        )
    return replace(first, files=tuple(files), tensors=tuple(tensors))


def _check_magic(path: Path) -> None:
    """Raise `SakuinError` where `path` is no GGUF file that this library reads."""
    try:
        with path.open("rb") as file:
            head = file.read(24)
    except FileNotFoundError as error:
        raise SakuinError(f"there is no file {path}; check the path of the model.") from error
    except OSError as error:
        raise SakuinError(f"{path} cannot be read: {error.strerror}.") from error
    if head[:4] in _OLD:
        raise SakuinError(
            f"{path} is a model in the format {_OLD[head[:4]]} of before August 2023, which nothing reads "
            "any more; get the model as a GGUF file."
        )
    if head[:4] != b"GGUF":
        raise SakuinError(
            f"{path} is not a GGUF file (it does not begin with the letters GGUF); check the path, or fetch "
            "it again."
        )
    if len(head) < 24:
        raise SakuinError(f"{path} ends after {len(head)} bytes, within its header; fetch it again.")
    (version,) = struct.unpack_from("<I", head, 4)
    if version & 0xFFFF == 0 and version:
        raise SakuinError(
            f"{path} was made for machines with the other byte order (big-endian); get the ordinary file of "
            "the model."
        )
    if version not in _VERSIONS:
        age = "is older than" if version < _VERSIONS[0] else "is newer than"
        raise SakuinError(
            f"{path} is of version {version} of the GGUF format, which {age} what can be read here (2 and "
            "3); get a current file of the model."
        )


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    lib = library()
    context = lib.gguf_init_from_file(os.fsencode(path), HeaderParams(True, None))
    if not context:
        raise SakuinError(
            f"the header of {path} cannot be read ({_plain(lib.said())}): the file is cut off, damaged, or "
            "newer than this llama.cpp; fetch it again."
        )
    try:
        yield context
    finally:
        lib.gguf_free(context)


def _plain(said: str) -> str:
    """What the library said without the name of its function."""
    return re.sub(r"^\w+: ", "", said)


def _read_one(path: Path, number: int) -> Header:
    lib = library()
    values: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    long: dict[str, NDArray[Any]] = {}
    kinds: dict[str, str] = {}
    with _opened(path) as context:
        for at in range(lib.gguf_get_n_kv(context)):
            key = _text(lib.gguf_get_key(context, at))
            kind = lib.gguf_get_kv_type(context, at)
            kinds[key] = _kind(context, at)
            if kind == _STRING:
                values[key] = _text(lib.gguf_get_val_str(context, at))
            elif kind == _ARRAY:
                lengths[key] = lib.gguf_get_arr_n(context, at)
                if kinds[key] != "strings":
                    numbers = _numbers(context, at)
                    if len(numbers) > _SHORT:
                        long[key] = numbers
                    else:
                        values[key] = tuple(numbers.tolist())
            elif kind in _TYPES:
                values[key] = _TYPES[kind].from_address(lib.gguf_get_val_data(context, at)).value
        tensors = tuple(_tensors(context, number))
    _check_whole(path, tensors)
    return Header((path,), values, lengths, long, tensors, kinds)


def _kind(context: int, at: int) -> str:
    lib = library()
    if lib.gguf_get_kv_type(context, at) != _ARRAY:
        return "one"
    item = lib.gguf_get_arr_type(context, at)
    return "strings" if item == _STRING else str(np.dtype(_TYPES[item]).kind)


def _numbers(context: int, at: int) -> NDArray[Any]:
    lib = library()
    kind, n = _TYPES[lib.gguf_get_arr_type(context, at)], lib.gguf_get_arr_n(context, at)
    if not n:
        return np.empty(0, kind)
    return np.ctypeslib.as_array((kind * n).from_address(lib.gguf_get_arr_data(context, at))).copy()


def _tensors(context: int, number: int) -> Iterator[Tensor]:
    lib = library()
    base = lib.gguf_get_data_offset(context)
    for at in range(lib.gguf_get_n_tensors(context)):
        shape = lib.gguf_get_tensor_ne(context, at)[:4]
        while len(shape) > 1 and shape[-1] == 1:
            shape.pop()
        yield Tensor(
            _text(lib.gguf_get_tensor_name(context, at)),
            _text(lib.ggml_type_name(lib.gguf_get_tensor_type(context, at))),
            tuple(shape),
            lib.gguf_get_tensor_size(context, at),
            number,
            base + lib.gguf_get_tensor_offset(context, at),
        )


def _check_whole(path: Path, tensors: tuple[Tensor, ...]) -> None:
    size = path.stat().st_size
    end = max((tensor.offset + tensor.nbytes for tensor in tensors), default=0)
    if end > size:
        raise SakuinError(
            f"{path} is cut off: {end - size:,} of the {end:,} bytes that its header names are missing; "
            "fetch it again."
        )


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")
