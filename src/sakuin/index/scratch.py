"""Memory that sealing uses again and again.

The kernel hands out new memory page by page, as it is first touched. For a segment's floats that takes longer
than what is computed in them.

A thread that has called `keep_scratch` keeps the memory, and gives it up when it calls `drop_scratch`; in any
other, scratch is new memory each time. Called by `sakuin.index.sketch_seal`, `sakuin.index.query_moment`
and `sakuin.cache.sealing`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import torch
from torch import Tensor


class _Kept(threading.local):
    held: dict[str, Tensor] | None = None


_kept = _Kept()


def scratch(name: str, shape: Sequence[int]) -> Tensor:
    """An fp32 tensor of this shape with any content, to be done with before the thread asks for the same name
    again."""
    if _kept.held is None:
        return torch.empty(shape, dtype=torch.float32, device="cpu")
    size = math.prod(shape)
    held = _kept.held.get(name)
    if held is None or held.numel() < size:
        # Tensors made in inference mode could not be written outside it later.
        with torch.inference_mode(False):
            held = _kept.held[name] = torch.empty(size, dtype=torch.float32, device="cpu")
    return held[:size].view(shape)


def keep_scratch() -> None:
    """From now on this thread keeps its scratch memory."""
    _kept.held = {}


def drop_scratch() -> None:
    """Give up what this thread has kept; it goes on keeping what comes."""
    _kept.held = None if _kept.held is None else {}
