"""Memory straight from the system, which goes back to it as soon as nobody holds it.

What malloc gets back it keeps, in holes between what is still used, and of tensors that grow chunk by chunk
in every layer of a model the holes were larger than the tensors. Called by `sakuin.cache`,
`sakuin.index.large_pages` and `sakuin.backends.llama_cpp.backend`.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

_LEAST = 256 << 10
"""Bytes of a tensor that is worth pages of its own."""


def from_system(size: int) -> mmap.mmap | None:
    """`size` bytes, zero and writable, at the beginning of a page; what is never touched takes no memory.

    None where the system has no such memory left, or is not Linux: malloc says so in its own words, or has a
    little less to find.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        return None


def new_tensor(shape: Sequence[int], like: Tensor) -> Tensor:
    """A tensor with any content, of `like`'s dtype and on its device; a large one on the CPU is memory from
    the system. It can be written in place inside and outside of inference mode."""
    size = math.prod(shape) * like.dtype.itemsize
    with torch.inference_mode(False):  # tensors made in it could not be written outside it later
        if like.device.type == "cpu" and size >= _LEAST and (pages := from_system(size)) is not None:
            return torch.frombuffer(pages, dtype=like.dtype).view(*shape)
        return torch.empty(*shape, dtype=like.dtype, device=like.device)


def close_holes() -> None:
    """Give what malloc keeps in holes back to the system, where the C library can: two milliseconds after a
    pass of a 0.5B model."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(ctypes.c_size_t(0))
