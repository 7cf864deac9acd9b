"""What a pass's mask says of the tokens that a `RetrievalCache` holds: they are seen as they were read, or
the pass is refused.

The layers with an index attend to all real tokens that they have read, whatever a later mask says. So a mask
that hides some of them, or shows what was padding, would be ignored silently. The mask function is given no
cache, but a layer is asked for the mask's sizes right before, on the same thread: `asked` notes which.

Called by `sakuin.backends.transformers.mask` and `layer`.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:  # transformers' model code brings this file in; the indexes need not come with it
    from sakuin.cache.layer import LayerCache

_MOST = 1 << 24
"""Entries of a mask that are looked at in one piece."""
_INSTEAD = ": read what is to be seen into a new RetrievalCache, or use transformers' DynamicCache"

_thread = threading.local()


def asked(layer: LayerCache) -> None:
    """A layer was asked for the sizes of a mask, which is made next."""
    _thread.layer = weakref.ref(layer)


def check_past(n: int, q_length: int, attention_mask: Tensor | None, making: dict[str, Any]) -> None:
    """Raise `ValueError` unless every query of the pass sees all n cached tokens but the padding.

    attention_mask : bool `(batch, n + q_length or more)`, or None, which leaves padding what it was.
    making : what else the mask function is given.
    """
    reference = getattr(_thread, "layer", None)
    layer = None if reference is None else reference()
    if layer is None:
        return
    known = layer.known_real(n)
    if attention_mask is not None:
        _check_columns(attention_mask[:, :n].bool().cpu(), known)
    function = making.get("mask_function")
    if not _sees_all_before(function) and not _no_layer_uses_it(making):
        _check_function(function, n, q_length, known, making)


def _check_columns(seen: Tensor, known: Tensor | None) -> None:
    if known is None:
        hidden, shown = ~seen, None
    elif known.shape[0] in (1, seen.shape[0]) or seen.shape[0] == 1:
        hidden, shown = known & ~seen, seen & ~known
    else:
        return  # the number of rows is wrong, which the first layer says
    if bool(hidden.any()):
        row, at = hidden.nonzero()[0].tolist()
        raise ValueError(
            f"attention_mask hides {int(hidden.sum())} tokens that the cache has read as real ones (the "
            f"first is token {at} of row {row}), but a RetrievalCache attends to all that it holds{_INSTEAD}"
        )
    if shown is not None and bool(shown.any()):
        row, at = shown.nonzero()[0].tolist()
        raise ValueError(
            f"attention_mask shows {int(shown.sum())} positions that were padding when they were read (the "
            f"first is position {at} of row {row}), which a RetrievalCache does not hold{_INSTEAD}"
        )


def _sees_all_before(function: Any) -> bool:
    """Whether a mask function is known to show each query all tokens before it."""
    from transformers.masking_utils import causal_mask_function, or_masks

    if function is None or function is causal_mask_function:
        return True
    if getattr(function, "__qualname__", "").startswith(f"{or_masks.__name__}."):
        parts = [cell.cell_contents for cell in function.__closure__ or ()]
        return any(causal_mask_function in part for part in parts if isinstance(part, tuple | list))
    return False


def _no_layer_uses_it(making: dict[str, Any]) -> bool:
    """Whether the mask is a window's and the model has no layer with a window: some make a mask of each kind
    whatever their layers are (Qwen2-MoE)."""
    kinds = getattr(making.get("config"), "layer_types", None)
    if making.get("local_size") is None or kinds is None:
        return False
    return not any("sliding" in kind or "chunked" in kind for kind in kinds)


def _check_function(
    function: Any, n: int, q_length: int, known: Tensor | None, making: dict[str, Any]
) -> None:
    """Look at what another mask function than the causal one says of the n cached tokens."""
    from transformers.masking_utils import sdpa_mask

    rows = max(1, _MOST // n)
    given = {name: making[name] for name in ("use_vmap", "device") if name in making}
    for at in range(0, q_length, rows):
        mask = sdpa_mask(
            batch_size=1 if known is None else known.shape[0],
            q_length=min(rows, q_length - at),
            kv_length=n,
            q_offset=n + at,
            kv_offset=0,
            mask_function=function,
            allow_is_causal_skip=False,
            **given,
        )
        seen = torch.ones(1, dtype=torch.bool) if mask is None else mask.cpu()
        if known is not None:
            seen = seen | ~known[:, None, None, :]
        if not bool(seen.all()):
            raise ValueError(
                f"this pass's mask hides some of the {n} cached tokens from some of its queries (packed "
                "sequences, chunks, a window, a custom mask), but a RetrievalCache attends to all that it "
                f"holds{_INSTEAD}"
            )
