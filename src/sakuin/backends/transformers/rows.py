"""Rows of a batch, as the methods of transformers' caches name them: checked before a layer changes.

Used by `sakuin.backends.transformers.passes`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sakuin.arguments import integer, shown
from sakuin.errors import SakuinError

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def repeats(value: Any) -> int:
    """How often each row is repeated: a whole number from 1 on."""
    number = integer(value)
    if number is None or number < 1:
        raise SakuinError(
            f"batch_repeat_interleave takes a whole number of at least 1 for `repeats`, got {shown(value)}."
        )
    return number


def rows(method: str, name: str, value: Any, batch: int | None, *, choosing: bool = False) -> Tensor:
    """Numbers of rows, int64 `(rows,)` on the device that they came on.

    batch : rows of the cache; None where it holds none yet. choosing : whether a row may be counted from the
    end, and a mask, bool `(batch,)`, stand for its rows. Raises `TypeError` where `value` is no such tensor,
    list or tuple, `SakuinError` where a row is none of the batch.
    """
    try:
        held = torch.as_tensor(value) if isinstance(value, Tensor | list | tuple) else None
    except (TypeError, ValueError, RuntimeError):
        held = None
    if held is not None and choosing and held.dtype == torch.bool and held.dim() == 1:
        if batch is not None and len(held) != batch:
            raise SakuinError(f"{method} takes a mask of {batch} rows for `{name}`, got one of {len(held)}.")
        held = held.nonzero()[:, 0]
    if held is not None and not held.numel():
        raise SakuinError(f"{method} needs at least one row in `{name}`, got none.")
    if held is None or held.dim() != 1 or held.dtype not in _WHOLE:
        if isinstance(value, Tensor):
            given = f"one of shape {tuple(value.shape)} and {value.dtype}"
        else:
            given = shown(value)
        raise TypeError(
            f"{method} takes a tensor of whole numbers with one dimension for `{name}`, got {given}."
        )
    low, high = int(held.min()), int(held.max())
    if batch is not None and not ((-batch if choosing else 0) <= low and high < batch):
        odd = low if high < batch else high
        raise SakuinError(
            f"{method} was given row {odd} in `{name}`, and the cache holds {batch} "
            f"row{'s' if batch > 1 else ''}, counted from 0."
        )
    held = held.long()
    return held if batch is None else torch.where(held < 0, held + batch, held)
