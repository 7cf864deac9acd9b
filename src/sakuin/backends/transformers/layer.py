"""transformers' face of a full-attention layer: it takes what `update` brings and hands on how transformers
grows, crops and reorders a cache.

What the layer holds is the business of `sakuin.cache.layer`, how attention finds it that of
`sakuin.backends.transformers.tickets`. Made by `RetrievalCache`, called by transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from sakuin.attention.softmax import Softmax
from sakuin.backends.transformers.mask import PaddingMask
from sakuin.backends.transformers.past_mask import asked
from sakuin.backends.transformers.tickets import NOT_PLAIN, RunningPass, Ticket
from sakuin.cache.layer import LayerCache


class RetrievalLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One full-attention layer of a `RetrievalCache`.

    inner : what it holds. running : the pass that all layers of the cache are in. mask : what the pass's mask
    says of padding.
    """

    is_sliding = False
    is_croppable = True

    def __init__(self, inner: LayerCache, running: RunningPass, mask: PaddingMask) -> None:
        self.inner, self.running, self.mask = inner, running, mask
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def is_initialized(self) -> bool:
        """Whether the layer holds tokens."""
        return self.inner.length > 0

    @is_initialized.setter
    def is_initialized(self, on: bool) -> None:
        """transformers' own constructor sets it; what the layer holds says it."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is made before its tokens come."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Announce the pass's keys and values `(batch, n_kv_heads, t, head_dim)`; attention stores them right
        after."""
        inner, running = self.inner, self.running
        if running.waits:
            raise RuntimeError(running.why_untaken())
        if key_states.shape[:3] != value_states.shape[:3]:
            shapes = f"; this one caches {tuple(key_states.shape)} and {tuple(value_states.shape)}"
            raise NotImplementedError(NOT_PLAIN + shapes)
        batch, _, t, _ = key_states.shape
        if inner.rows and len(inner.rows) != batch:
            raise ValueError(
                f"the cache holds {len(inner.rows)} sequence(s), but the pass has {batch}: call "
                "cache.batch_repeat_interleave or cache.batch_select_indices first, or use a new "
                "RetrievalCache"
            )
        if running.rope_limit is not None:
            running.rope_limit.check(inner.length, inner.length + t)
        running.waits = True  # nothing else changes before `attend`
        Ticket(self, inner.announce(t), key_states, value_states)
        return key_states, value_states

    def attend(
        self,
        ticket: Ticket,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        softmax: Softmax,
    ) -> Tensor:
        """Store the pass's keys and values and attend: query `(batch, n_query_heads, t, head_dim)` to
        `(batch, t, n_query_heads, value_dim)`."""
        ticket.taken = self.running.reached = True
        self.running.waits = False
        batch, _, t, _ = query.shape
        stored = ticket.arrival.stored  # by the layer whose keys this one shares
        if not stored:
            ticket.arrival.real = self.mask.real(mask, batch, t)
        device = query.device.type
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                given = self._in_one_dtype(query, key, value, torch.get_autocast_dtype(device))
                out = self.inner.attend(ticket.arrival, *given, softmax)
        else:
            out = self.inner.attend(ticket.arrival, *self._in_one_dtype(query, key, value), softmax)
        if not stored:
            self.running.took(self)
        return out.transpose(1, 2).to(query.dtype)

    def _in_one_dtype(
        self, query: Tensor, key: Tensor, value: Tensor, cast: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """In the dtype of what the layer holds. cast : that of an empty layer under torch.autocast, where
        models bring queries and keys in fp32 and values in bf16."""
        held = self.inner.dtype or cast
        if held is None:
            if query.dtype == key.dtype == value.dtype:
                return query, key, value
            held = torch.promote_types(torch.promote_types(query.dtype, key.dtype), value.dtype)
        return query.to(held), key.to(held), value.to(held)

    # -- transformers' cache interface -----------------------------------------------------------------------

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        asked(self.inner)
        # Masks cover the pass alone; everything before it is seen by all its real tokens.
        return query_length, self.inner.length

    def get_seq_length(self) -> int:
        return self.inner.length

    def get_max_length(self) -> int:
        return -1

    @property
    def record_past(self) -> bool:
        return self.inner.state.draft

    @record_past.setter
    def record_past(self, on: bool) -> None:
        self.inner.state.draft = on

    def activate_past_recording(self) -> None:
        """The tokens of a pass are a draft until the next one, and are not sealed before."""
        self.inner.state.draft = True

    def reset(self) -> None:
        self.inner.reset()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.inner.choose(beam_idx.tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.inner.choose([row for row in range(len(self.inner.rows)) for _ in range(repeats)])

    def batch_select_indices(self, indices: Tensor) -> None:
        rows = torch.arange(len(self.inner.rows))[torch.as_tensor(indices).cpu()]
        self.inner.choose(rows.tolist())

    def crop(self, tokens_to_remove: int) -> None:
        self.inner.crop(self.inner.length - abs(tokens_to_remove))
