"""How attention finds its layer.

transformers' attention function is given no cache, but it is given the very tensors that `update` returned.
So `update` tags them with a `Ticket`, and `sakuin.backends.transformers.attention` finds the layer by it. A
tensor without one, while a layer waits for its attention, means that the model changed its keys after caching
them. This is the one private attribute that a tensor carries through the code.

Called by `sakuin.backends.transformers.layer`, `passes`, `cache` and `attention`.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from sakuin.attention.softmax import Softmax
from sakuin.backends.transformers.window import RopeLimit

if TYPE_CHECKING:  # transformers' model code brings this file in; the indexes need not come with it
    from sakuin.cache.layer import Arrival
    from sakuin.cache.undo import UndoLog

NOT_PLAIN = (
    "this model's attention does not use the keys and values that it caches as they are (it expands, splits "
    "or repeats them), and sakuin needs plain keys and values: use transformers' DynamicCache with this model"
)

_thread = threading.local()


@dataclass
class RunningPass:
    """The pass that the layers of one cache are in (`sakuin.backends.transformers.passes`).

    undo : how what it has changed was before it.
    rope_limit : where the model would change the frequencies of its positions; None where it never does.
    config : the model's configuration, which says how it attends.
    waits : whether a layer has cached keys that no attention has asked for yet. reached : whether sakuin's
        attention has ever asked for some.
    stated : whether somebody says where the pass begins and ends. caller : the model, where it does.
    thread : whose pass it is, by its number.
    before : tokens in the cache before the pass. seen : what its layers were given so far.
    last, last_number : the layer that ends it. got_to_the_end : whether that has taken its tokens.
    """

    undo: UndoLog
    rope_limit: RopeLimit | None = None
    config: Any = None
    waits: bool = False
    reached: bool = False
    stated: bool = False
    caller: Any = None
    thread: int = 0
    before: int = 0
    seen: set[Hashable] = field(default_factory=set)
    last: Any = None
    last_number: int = -1
    got_to_the_end: bool = False

    @property
    def under_way(self) -> bool:
        """Whether a pass has begun that is not whole: some layers may have taken its tokens."""
        if self.undo.whole:
            return False
        return self.caller is not None or (bool(self.seen) and not self.got_to_the_end)

    @property
    def is_mine(self) -> bool:
        """Whether it is this thread's pass, as far as is known."""
        return self.thread in (0, threading.get_ident())

    def took(self, layer: Any) -> None:
        """A layer holds what the pass brought."""
        if layer is self.last:
            self.got_to_the_end = True
            # Of layers with recurrent states more may come.
            if not self.stated and not hasattr(layer, "recurrent_states"):
                self.end()

    def end(self) -> None:
        """The pass is whole."""
        self.undo.commit()
        self._clear()

    def take_back(self) -> None:
        """The pass did not happen."""
        self.undo.roll_back()
        self._clear()

    def forget(self) -> None:
        """The cache is empty."""
        self.undo.forget()
        self._clear()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within, an error ends the pass."""
        try:
            yield
        except BaseException:
            self.failed()
            raise

    def failed(self) -> None:
        """An error is on its way to the caller of the model."""
        if self.is_mine and (not self.stated or self.caller is not None):
            self.take_back()

    def _clear(self) -> None:
        if self.caller is not None:
            self.caller, self.stated = None, False
        self.waits = self.got_to_the_end = False
        self.seen = set()

    def why_untaken(self) -> str:
        """Why cached keys never reached sakuin's attention, as far as the configuration tells."""
        if getattr(self.config, "_attn_implementation", None) == "sakuin":
            return (
                "the keys of the last layer never reached sakuin's attention although the model was loaded "
                "with it: its code computes attention by itself (use transformers' DynamicCache with this "
                "model), or the pass was interrupted (repeat it: it was taken back)"
            )
        return (
            'a RetrievalCache works only with attn_implementation="sakuin": the keys of the last layer never '
            'reached sakuin\'s attention. Load the model with attn_implementation="sakuin", or call '
            'model.set_attn_implementation("sakuin"); if the pass was interrupted, repeat it'
        )


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
    # A pass that failed is over, however long somebody keeps its error, and with it the keys.
    if ticket is None or ticket.taken or not ticket.layer.running.waits:
        return None
    return ticket if (ticket.batch, ticket.length) == (batch, length) else None


def forget_tickets() -> None:
    """A pass begins on this thread: what is left of others is not its own."""
    _thread.ticket = None
    _thread.last = None


def ends_pass_on_error(attend: Callable[..., Any]) -> Callable[..., Any]:
    """An attention function, after whose errors the pass of its keys is taken back."""

    @functools.wraps(attend)
    def watched(
        module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any
    ) -> Any:
        try:
            return attend(module, query, key, value, *rest, **named)
        except BaseException:
            ticket = ticket_of(key) or ticket_of(value)
            if ticket is not None:
                ticket.layer.running.failed()
            raise

    return watched


def moved_between_devices(module: torch.nn.Module, key: Tensor) -> bool:
    """Whether `key` looks like a RetrievalCache's keys that one layer shared with another on a second device.

    Moving them there makes new tensors, which no longer say that most of the past is missing from them.
    """
    if not getattr(module, "is_kv_shared_layer", False):
        return False
    running, device = getattr(_thread, "last", None) or (lambda: None, key.device)
    return device != key.device and running() is not None
