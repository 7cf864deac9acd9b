"""Memory for what a step reads in single rows.

In pages of 4 KB each such row costs a walk through the page tables beside the read itself. In pages of 2 MB,
which Linux gives to those who ask for them, few rows do.

Called by `sakuin.index.sketch_seal` and `sakuin.cache.offload`.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sakuin.machine.pages import from_system

_HUGE = 2 << 20
_LINE = 64


def in_large_pages(wanted: Mapping[str, tuple[Sequence[int], torch.dtype]]) -> dict[str, Tensor]:
    """Tensors of these shapes and dtypes with any content, side by side in one piece of memory, each from a
    cache line on. Whole stretches of 2 MB of it are huge pages where the system gives them; where it does
    not, nothing else changes."""
    with torch.inference_mode(False):  # tensors made in it could not be written outside it later
        return _carved(wanted)


def _carved(wanted: Mapping[str, tuple[Sequence[int], torch.dtype]]) -> dict[str, Tensor]:
    starts, end = {}, 0
    for name, (shape, dtype) in wanted.items():
        starts[name] = end
        end += -(-math.prod(shape) * dtype.itemsize // _LINE) * _LINE
    memory = _memory(end)
    return {
        name: memory[starts[name] : starts[name] + math.prod(shape) * dtype.itemsize].view(dtype).view(*shape)
        for name, (shape, dtype) in wanted.items()
    }


def _memory(size: int) -> Tensor:
    """`size` bytes, uint8."""
    # What is never touched, before the first such page and after the last byte, takes no memory.
    pages = from_system(size + _HUGE) if size >= _HUGE else None
    if pages is None:
        return torch.empty(size, dtype=torch.uint8, device="cpu")
    memory = torch.frombuffer(pages, dtype=torch.uint8)
    start = -memory.data_ptr() % _HUGE
    with contextlib.suppress(OSError, AttributeError):  # a kernel or a Python without them
        pages.madvise(mmap.MADV_HUGEPAGE, start, size // _HUGE * _HUGE)
    return memory[start : start + size]
