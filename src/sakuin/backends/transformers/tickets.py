"""How attention finds its layer.

transformers' attention function is given no cache, but it is given the very tensors that `update` returned.
So `update` tags them with a `Ticket`, and `sakuin.backends.transformers.attention` finds the layer by it. A
tensor without one, while a layer waits for its attention, means that the model changed its keys after caching
them. This is the one private attribute that a tensor carries through the code.

Called by `sakuin.backends.transformers.layer`, `cache` and `attention`.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from sakuin.attention.softmax import Softmax
from sakuin.backends.transformers.window import RopeLimit

if TYPE_CHECKING:  # transformers' model code brings this file in; the indexes need not come with it
    from sakuin.cache.layer import Arrival

NOT_PLAIN = (
    "this model's cache does not hold the keys and values that its attention uses (multi-head latent "
    "attention and the like); sakuin needs plain keys and values of one head_dim: use transformers' "
    'DynamicCache and attn_implementation="sdpa"'
)

_thread = threading.local()


@dataclass
class RunningPass:
    """The pass that the layers of one cache are in.

    waits : whether a layer has cached keys that no attention has asked for yet.
    rope_limit : where the model would change the frequencies of its positions; None where it never does.
    """

    waits: bool = False
    rope_limit: RopeLimit | None = None


class Layer(Protocol):
    """What a ticket leads to."""

    running: RunningPass

    def attend(
        self,
        ticket: Ticket,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        softmax: Softmax,
    ) -> Tensor: ...


class Ticket:
    """Ties the tensors that `update` returned to their layer, for one pass."""

    def __init__(self, layer: Layer, arrival: Arrival, keys: Tensor, values: Tensor) -> None:
        self.layer, self.arrival = layer, arrival
        # Not the tensors themselves: they hold the ticket, and would never be freed by counting references.
        self.batch, self.length = keys.shape[0], keys.shape[2]
        self.taken = False
        keys._sakuin = values._sakuin = self  # type: ignore[attr-defined]
        _thread.ticket = weakref.ref(self)
        _thread.last = (weakref.ref(layer.running), keys.device)


def ticket_of(keys: Tensor) -> Ticket | None:
    """The ticket of a tensor that `update` returned; None of any other."""
    found: Ticket | None = getattr(keys, "_sakuin", None)
    return found


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
    running, device = getattr(_thread, "last", (lambda: None, key.device))
    return device != key.device and running() is not None
