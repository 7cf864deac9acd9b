"""Tensors in a file, in the safetensors format: written in one go, read by mapping.

What is written can be read by any reader of safetensors. Two things are stricter than the format asks: every
tensor begins on a cache line (small tensors named `_pad…` fill the gaps), and the data begins on a page. What
is read is mapped read-only and shared, so that a file takes memory only where it is touched and gives it back
when memory is short; safetensors' own reader maps files privately and writable, which counts against limits
as if all of it were memory. Headers are checked before anything is mapped into a tensor: a damaged or
malicious file is refused with one sentence.

Called by `sakuin.cache.offload` and `sakuin.snapshot`. Nothing here knows what the tensors are.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import math
import mmap
import os
import stat
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy
import torch
from torch import Tensor

from sakuin.errors import SakuinError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U16": torch.uint16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LINE = 64
_PAGE = 4096
_MOST_HEADER = 1 << 24
_MOST_DIMENSIONS = 8
_MOST_OF_NOTHING = 1 << 22
"""Most of a dimension of a tensor without numbers, whose bytes in the file bound none of the others."""
_PAD = "_pad"


@dataclass(frozen=True)
class Mapped:
    """A file's tensors, mapped: read-only, gone with the last of them. `metadata` is the header's own."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def write(file: IO[bytes], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[int, str]:
    """Write `tensors` in their order; the number of bytes and their SHA-256."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, tensor in tensors.items():
        if gap := -at % _LINE:
            header[f"{_PAD}{at}"] = {"dtype": "U8", "shape": [gap], "data_offsets": [at, at + gap]}
            at += gap
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % _PAGE)
    digest, size = hashlib.sha256(), 0

    def put(data: bytes | memoryview) -> None:
        nonlocal size
        file.write(data)
        digest.update(data)
        size += len(data)

    put(len(text).to_bytes(8, "little"))
    put(text)
    start = size
    for tensor in tensors.values():
        put(bytes(-(size - start) % _LINE))
        if tensor.numel():
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            put(flat.view(torch.uint8).numpy().data)
    return size, digest.hexdigest()


def file_size(tensors: Iterable[Tensor]) -> int:
    """About what `write` would write, from above."""
    held = list(tensors)
    return sum(tensor.nbytes + _LINE for tensor in held) + _PAGE * (2 + len(held) * 192 // _PAGE)


def open_mapped(path: str | os.PathLike[str], size: int | None = None) -> Mapped:
    """Map the file at `path`.

    size : bytes that it must have, or None.

    Raises `SakuinError` where it is not what it should be, `FileNotFoundError` where it is missing.
    """
    name = os.fspath(path)
    handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not be waited for
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise SakuinError(f"{name} is no regular file: it is damaged.")
        found = about.st_size
        if size is not None and found != size:
            raise SakuinError(f"{name} has {found:,} bytes where {size:,} were written: it is damaged.")
        if found < 8:
            raise SakuinError(f"{name} is too short to be a safetensors file: it is damaged.")
        room = mmap.mmap(handle, found, access=mmap.ACCESS_READ)
    finally:
        os.close(handle)
    header, start = _header(room, found, name)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(name, "its metadata are not strings")
    entries = _checked(header, found - start, name)
    memory = _memory(room, found)
    _mapped.add(memory.data_ptr())
    weakref.finalize(room, _mapped.discard, memory.data_ptr())
    tensors = {}
    for key, (dtype, shape, first, last) in entries.items():
        if key.startswith(_PAD):
            continue
        if first == last:
            tensors[key] = torch.empty(shape, dtype=dtype)
            continue
        if (start + first) % dtype.itemsize:
            raise _damaged(name, "its data does not begin where its numbers can be read")
        tensors[key] = memory[start + first : start + last].view(dtype).view(shape)
    return Mapped(tensors, metadata)


_mapped: set[int] = set()
"""Where in memory the files begin that are mapped now."""


def is_mapped(tensor: Tensor) -> bool:
    """Whether this tensor, or what it is a view of, came from `open_mapped`."""
    return tensor.untyped_storage().data_ptr() in _mapped


def advise_random(tensors: Iterable[Tensor]) -> None:
    """Tell the system that these mapped tensors are read here and there, so that it reads nothing ahead."""
    for tensor in tensors:
        _advise(tensor, mmap.MADV_RANDOM)


def prefetch(tensors: Iterable[Tensor]) -> None:
    """Tell the system that these mapped tensors are about to be read whole."""
    for tensor in tensors:
        _advise(tensor, mmap.MADV_WILLNEED)


def _advise(tensor: Tensor, advice: int) -> None:
    first = tensor.data_ptr() // _PAGE * _PAGE
    length = tensor.data_ptr() + tensor.nbytes - first
    if tensor.nbytes:  # advice is no more than that: where it fails, pages come as they are touched
        with contextlib.suppress(AttributeError):
            _LIBC.madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), ctypes.c_int(advice))


_LIBC = ctypes.CDLL(None)


def _memory(room: mmap.mmap, size: int) -> Tensor:
    """The mapped bytes as a tensor that keeps the mapping alive."""
    # torch remarks on memory that may not be written, and has no other word for it; so it is given the
    # address, in an object that holds the mapping.
    view = numpy.frombuffer(room, dtype=numpy.uint8)
    held = (ctypes.c_ubyte * size).from_address(view.ctypes.data)
    held.mapping = view  # type: ignore[attr-defined]
    return torch.frombuffer(held, dtype=torch.uint8)


def _header(room: mmap.mmap, size: int, name: str) -> tuple[dict[str, Any], int]:
    """The header, and where the data begins."""
    length = int.from_bytes(room[:8], "little")
    if length > min(size - 8, _MOST_HEADER):
        raise _damaged(name, f"its header would have {length:,} bytes")
    try:
        header = json.loads(room[8 : 8 + length])
    except (ValueError, RecursionError):
        raise _damaged(name, "its header is no JSON") from None
    if not isinstance(header, dict):
        raise _damaged(name, "its header is no JSON object")
    return header, 8 + length


def _checked(
    header: dict[str, Any], size: int, name: str
) -> dict[str, tuple[torch.dtype, list[int], int, int]]:
    """Dtype, shape, first and last byte of each tensor; they must fill the `size` bytes of data without
    overlaps or gaps."""
    entries = {}
    for key, entry in header.items():
        try:
            dtype, shape, (first, last) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
            numbers = [*shape, first, last]
        except (KeyError, TypeError, ValueError):
            raise _damaged(name, f"the tensor {key[:80]!r} is not described as it should be") from None
        if len(shape) > _MOST_DIMENSIONS or any(type(n) is not int or not 0 <= n < 1 << 48 for n in numbers):
            raise _damaged(name, f"the tensor {key[:80]!r} has no proper shape or place")
        if 0 in shape and max(shape) > _MOST_OF_NOTHING:
            raise _damaged(name, f"the tensor {key[:80]!r} has no numbers and the shape {tuple(shape)}")
        if last - first != math.prod(shape) * dtype.itemsize or first % dtype.itemsize:
            raise _damaged(name, f"the place of the tensor {key[:80]!r} does not fit its shape")
        entries[key] = (dtype, shape, first, last)
    at = 0
    for _, _, first, last in sorted(entries.values(), key=lambda entry: entry[2:]):
        if first != at:
            raise _damaged(name, f"its tensors overlap or leave a gap at byte {min(first, at):,}")
        at = last
    if at != size:
        raise _damaged(name, f"its tensors take {at:,} bytes and it holds {size:,}")
    return entries


def _damaged(name: str, why: str) -> SakuinError:
    return SakuinError(f"{name} is damaged: {why}.")
