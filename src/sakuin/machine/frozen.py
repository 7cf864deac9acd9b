"""Tensors that change no more, in memory that copies of them share until they write (copy-on-write).

Linux maps a file of memory (memfd) into as many places as one likes, and copies of it only the pages that are
written. Called by `sakuin.cache`.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

_PAGE = mmap.PAGESIZE
_FAILED = ctypes.c_void_p(-1).value


class Rows(NamedTuple):
    """A contiguous tensor `(m, capacity, d)` on the CPU, of which the rows from `start` to `end` are to be
    kept; the others may hold anything."""

    tensor: Tensor
    start: int
    end: int


class Frozen:
    """What `of` has kept. The file goes when neither this nor a copy that is not mapped yet is held."""

    def __init__(self, file: int, places: Sequence[tuple[int, Tensor]], size: int) -> None:
        """file : its descriptor. places : where each tensor begins, and one like it. size : bytes."""
        self._file, self._size = file, size
        self._places = [(start, like.shape, like.dtype) for start, like in places]
        weakref.finalize(self, os.close, file)
        self._memory = self._mapped()

    @classmethod
    def of(cls, every: Sequence[Rows]) -> Self | None:
        """Keep these; None where the system has no such memory."""
        if not sys.platform.startswith("linux"):
            return None
        places, size = [], 0
        for rows in every:
            places.append((size, rows.tensor))
            size += -(-rows.tensor.nbytes // _PAGE) * _PAGE
        try:
            file = os.memfd_create("sakuin")
        except (OSError, AttributeError):
            return None
        try:
            os.ftruncate(file, size)
            for (start, _), rows in zip(places, every, strict=True):
                _write(file, start, rows)
        except BaseException as error:
            os.close(file)
            if isinstance(error, OSError):
                return None
            raise
        try:
            return cls(file, places, size)
        except OSError:
            return None

    def tensor(self, i: int) -> Tensor:
        """The i-th of them, not to be written."""
        return self._tensor(self._memory, i)

    def copy(self) -> Copy:
        """A copy that may be written, made when it is first used."""
        return Copy(self)

    def _tensor(self, memory: Tensor, i: int) -> Tensor:
        start, shape, dtype = self._places[i]
        return memory[start : start + shape.numel() * dtype.itemsize].view(dtype).view(shape)

    def _mapped(self) -> Tensor:
        """The whole of it, uint8; who writes has own pages. Raises `OSError` where that cannot be."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
        libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        # Not by `mmap.mmap`, which holds a descriptor of its own for each.
        at = libc.mmap(None, self._size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, self._file, 0)
        if at == _FAILED:
            raise OSError(ctypes.get_errno(), "no memory can be mapped")
        memory = (ctypes.c_uint8 * self._size).from_address(at)
        weakref.finalize(memory, libc.munmap, at, self._size).atexit = False
        with torch.inference_mode(False):  # tensors made in it could not be written outside it later
            return torch.frombuffer(memory, dtype=torch.uint8)


class Copy:
    """Copies of all tensors of a `Frozen`, which lie together."""

    def __init__(self, frozen: Frozen) -> None:
        self._frozen = frozen
        self._memory: Tensor | None = None

    def tensor(self, i: int) -> Tensor:
        """The i-th of them. Raises `OSError` where no memory can be mapped."""
        if self._memory is None:
            self._memory = self._frozen._mapped()
        with torch.inference_mode(False):
            return self._frozen._tensor(self._memory, i)


def _write(file: int, at: int, rows: Rows) -> None:
    """Write the rows that are kept where the tensor has them."""
    m, capacity, d = rows.tensor.shape
    row = d * rows.tensor.dtype.itemsize
    whole = rows.tensor.view(m, capacity * d).view(torch.uint8).numpy()
    for i in range(m):
        left = whole[i, rows.start * row : rows.end * row].data
        place = at + (i * capacity + rows.start) * row
        while left:
            done = os.pwrite(file, left, place)
            left, place = left[done:], place + done


Copies = dict[Frozen, Copy]
"""The copy that each frozen memory has for one fork."""
