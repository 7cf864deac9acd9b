"""One forward pass through a RetrievalCache: how attention finds its layer, and what all layers of a pass
share.

transformers' attention function is given no cache, but it is given the very tensors that `update` returned.
So `update` tags them with a `Ticket`, and `sakuin.backends.transformers.attention` finds the layer by it. A
tensor without one, while a layer waits for its attention, means that the model changed its keys after caching
them.

Called by `sakuin.backends.transformers.layer`, `sakuin.backends.transformers.cache` and
`sakuin.backends.transformers.attention`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sakuin.cache.sealing import Meter, Sealer
from sakuin.config import RetrievalConfig

if TYPE_CHECKING:
    from sakuin.backends.transformers.layer import RetrievalLayer

NOT_PLAIN = (
    "this model's cache does not hold the keys and values that its attention uses (multi-head latent "
    "attention and the like); "
    "sakuin needs plain keys and values of one head_dim: use transformers' DynamicCache and "
    'attn_implementation="sdpa"'
)

_thread = threading.local()


class Ticket:
    """Ties the tensors that `update` returned to their layer, for one pass."""

    def __init__(self, layer: RetrievalLayer, keys: Tensor, values: Tensor) -> None:
        self.layer = layer
        self.batch, self.length = keys.shape[0], keys.shape[2]
        self.taken = False
        # Layers that share keys and values attend again with the same tensors; they need the past as it was
        # before them.
        self.pasts: dict[int, Iterable[tuple[Tensor, Tensor]]] = {}
        keys._sakuin = values._sakuin = self  # type: ignore[attr-defined]
        _thread.ticket = weakref.ref(self)
        _thread.last = (weakref.ref(layer.shared), keys.device)


def untaken_ticket(batch: int, length: int) -> Ticket | None:
    """The ticket of keys of this shape that this thread's running pass has cached but not attended to yet."""
    reference = getattr(_thread, "ticket", None)
    ticket: Ticket | None = None if reference is None else reference()
    if ticket is None or ticket.taken or (ticket.batch, ticket.length) != (batch, length):
        return None
    return ticket


def moved_between_devices(module: torch.nn.Module, key: Tensor) -> bool:
    """Whether `key` looks like a RetrievalCache's keys that one layer shared with another on a second device.

    Moving them there makes new tensors, which no longer say that most of the past is missing from them.
    """
    if not getattr(module, "is_kv_shared_layer", False):
        return False
    state, device = getattr(_thread, "last", (lambda: None, key.device))
    return device != key.device and state() is not None


class PassState:
    """What the layers of one cache share: settings, the sealing thread, the running pass's mask, tracked
    attention mass."""

    def __init__(self, config: RetrievalConfig, sealer: Sealer) -> None:
        self.config = config
        self.sealer = sealer
        self.meter = Meter()
        self.pending: RetrievalLayer | None = None
        self.record_past = False
        self.rope_limit: tuple[str, int] | None = None
        self.device_path = False  # tests: run the path for models off the CPU on the CPU
        self.mass: Tensor | None = None
        self.mass_above = 0.0
        self._mask: weakref.ref[Tensor] | None = None
        self._columns: Tensor | None = None

    def columns(self, mask: Tensor | None, batch: int, t: int) -> Tensor | None:
        """Which of the pass's tokens are real, bool `(batch, t)` on the CPU; None if all are. Any other mask
        is refused."""
        if mask is None:
            return None
        if self._mask is not None and self._mask() is mask:
            return self._columns
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
        self._columns = None if bool(real.all()) else real
        return self._columns

    def mass_of(self, heads: int, n_tokens: int) -> Tensor | None:
        """The tracked mass, made long enough, `(heads, n_tokens)`; None when it is not tracked."""
        if self.mass is None:
            return None
        more_heads, more = heads - self.mass.shape[0], n_tokens - self.mass.shape[1]
        if more_heads > 0 or more > 0:
            self.mass = torch.nn.functional.pad(self.mass, (0, max(more, 0), 0, max(more_heads, 0)))
        return self.mass[:heads]

    def check_rope(self, before: int, after: int) -> None:
        """Refuse the pass in which the model would change the frequencies of keys that are already cached."""
        if self.rope_limit is None:
            return
        kind, limit = self.rope_limit
        if after > limit and before and (kind == "dynamic" or before <= limit):
            raise ValueError(
                f"rotary embeddings of type {kind!r} change when a sequence grows beyond {limit} tokens "
                f"(here from {before} to {after}), which makes cached keys wrong: keep prompt and answer "
                f"within {limit} tokens or use YaRN scaling"
            )
