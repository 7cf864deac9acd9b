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

from sakuin.backends.transformers.own import asks_for_its_own, own_implementation
from sakuin.backends.transformers.past_mask import check_past
from sakuin.backends.transformers.tickets import forget_tickets


class KeysStart(int):
    """Where the keys of a pass start that goes through a `RetrievalCache`, which says so by this type: the
    mask function is given this number, and no cache."""

    whole = True


class WindowStart(KeysStart):
    """The same of layers that have no index, and attend to a window."""

    whole = False


def sakuin_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> Tensor | None:
    """The mask that the model would have been given without sakuin; with a RetrievalCache sdpa's, of the
    pass's own tokens only, None when none is padding."""
    from transformers.masking_utils import eager_mask, sdpa_mask

    forget_tickets()
    config = kwargs.get("config")
    own = "sdpa" if config is None else own_implementation(config)
    start = kv_offset if isinstance(kv_offset, KeysStart) else None
    if start is None or not start.whole:
        # A window's layer of a model that is not sdpa's goes to `dense_attention`, which takes bools and has
        # no causality of its own. And a model that looks for "sdpa", to know what no mask means, gets masks.
        needed = own == "eager" if start is not None else config is not None and asks_for_its_own(config)
        if needed:
            kwargs["allow_is_causal_skip"] = False
    make_mask = sdpa_mask if start is not None or own == "sdpa" else eager_mask
    ours = start is not None and start.whole and kv_offset > 0
    if start is not None and start.whole and kwargs.get("allow_is_bidirectional_skip"):
        raise ValueError(
            "a RetrievalCache needs causal attention, and the tokens of this pass see later ones too: use "
            "another cache"
        )
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
    mask: Tensor | None = make_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        attention_mask=attention_mask,
        **kwargs,
    )
    return mask


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
