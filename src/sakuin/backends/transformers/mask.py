"""Masks of a pass through a `RetrievalCache`: the mask function that transformers calls, and what a mask says
of padding.

A mask covers the pass's own tokens alone: everything before them is seen by all its real tokens, so that no
mask grows with the context.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from sakuin.backends.transformers.past_mask import check_past
from sakuin.backends.transformers.tickets import forget_tickets


def sakuin_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> Tensor | None:
    """sdpa's mask; with a RetrievalCache one of the pass's own tokens only, None when none is padding."""
    from transformers.masking_utils import sdpa_mask

    # Only a RetrievalCache says that the keys start where the queries do.
    ours = kv_length == q_length and 0 < kv_offset == q_offset
    forget_tickets()
    if ours and q_length == 0:
        raise ValueError(
            f"this pass has no tokens beyond the {kv_offset} that the cache holds: pass input_ids of all "
            "tokens, or the new ones with an attention_mask over all"
        )
    if ours and attention_mask is not None:
        known = attention_mask.shape[-1]
        if known < kv_offset + q_length:
            raise ValueError(
                f"attention_mask covers {known} tokens, but the cache holds {kv_offset} and this pass adds "
                f"{q_length}: pass a mask of {kv_offset + q_length} columns, or attention_mask=None when "
                "nothing is padded"
            )
    if ours:
        check_past(kv_offset, q_length, attention_mask, kwargs)
    return sdpa_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        attention_mask=attention_mask,
        **kwargs,
    )


class PaddingMask:
    """Which tokens of a pass are real, read off its mask. All layers of a pass are given the same mask: it is
    looked at once."""

    def __init__(self) -> None:
        self._mask: weakref.ref[Tensor] | None = None
        self._real: Tensor | None = None

    def real(self, mask: Tensor | None, batch: int, t: int) -> Tensor | None:
        """Which of the pass's tokens are real, bool `(batch, t)` on the CPU; None if all are. Any other mask
        is refused."""
        if mask is None:
            return None
        if self._mask is not None and self._mask() is mask:
            return self._real
        if mask.dtype != torch.bool or mask.dim() != 4 or mask.shape[-2:] != (t, t):
            raise ValueError(
                f"a RetrievalCache needs the ordinary causal mask; got a mask of {mask.dtype} with shape "
                f"{tuple(mask.shape)} for {t} new tokens: pass a two-dimensional attention_mask (batch, all "
                "tokens so far) or none"
            )
        real = mask[:, 0, -1, :]
        causal = torch.ones((t, t), dtype=torch.bool, device=mask.device).tril_()
        if not torch.equal(mask, (causal & real[:, None, :])[:, None].expand_as(mask)):
            raise ValueError(
                "a RetrievalCache needs the ordinary causal mask, but this pass has another pattern (packed "
                "sequences, image tokens that see each other, a custom mask): use transformers' "
                "DynamicCache for it"
            )
        real = real.cpu().expand(batch, t)
        self._mask = weakref.ref(mask)
        self._real = None if bool(real.all()) else real
        return self._real
