"""Passes of transformers' models through a `RetrievalCache`: whole, for all layers, or as if never begun.

What a pass that fails has changed is taken back (`sakuin.cache.undo`): at once where sakuin's own code fails
or `sakuin.backends.transformers.backend` runs the model, else before the cache is used again; until then it
says the length that it had before.

A model tells its cache where a call begins and ends (`sakuin.backends.transformers.calls`), but for its first
one. There, and under modules that no hook reaches, a pass ends with the last layer that takes tokens, and one
that stopped before is seen when a layer comes again that has had its turn.

The base class of `sakuin.backends.transformers.cache.RetrievalCache`.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicSlidingWindowLayer,
    LinearAttentionCacheLayerMixin,
)

from sakuin.backends.transformers import rows
from sakuin.backends.transformers.calls import ToldOfCalls, is_called_in, watch_caller
from sakuin.backends.transformers.layer import RetrievalLayer
from sakuin.backends.transformers.past_mask import asked
from sakuin.backends.transformers.support import layers_up_to_the_last
from sakuin.backends.transformers.tickets import RunningPass
from sakuin.cache.undo import GoBack
from sakuin.cache.whole import WholeCache

_CUT_SHORT = (
    "the first pass through this RetrievalCache did not get to its last layer, number {last}: it was "
    "stopped, or the model leaves layers out and cannot be used with a RetrievalCache. It was taken back, "
    "and the cache is empty: pass all tokens again"
)
_OF_ANOTHER_THREAD = (
    "another thread's pass runs through this RetrievalCache: give each thread a cache of its own "
    "(cache.fork()), or let them take turns"
)


class WholePasses(Cache, ToldOfCalls):
    """A cache of transformers that passes go through whole or not at all."""

    whole: WholeCache
    _running: RunningPass

    # -- what transformers calls in a pass -------------------------------------------------------------------

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Take a layer's new keys and values."""
        with self._running.watched():
            layer = self._enter(layer_idx, layer_idx)
            found = super().update(key_states, value_states, layer_idx, *args, **kwargs)
            if not isinstance(layer, RetrievalLayer):  # those take them in their attention
                self._running.took(layer)
        return found

    def update_conv_state(
        self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any
    ) -> Tensor:
        """Take a layer's new convolution state."""
        with self._running.watched():
            layer = self._enter(layer_idx, ("conv", layer_idx, state_idx))
            found: Tensor = super().update_conv_state(conv_states, layer_idx, state_idx, **kwargs)
            self._took_state(layer)
        return found

    def update_recurrent_state(
        self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any
    ) -> Tensor:
        """Take a layer's new recurrent state."""
        with self._running.watched():
            layer = self._enter(layer_idx, ("recurrent", layer_idx, state_idx))
            found: Tensor = super().update_recurrent_state(recurrent_states, layer_idx, state_idx, **kwargs)
            self._took_state(layer)
        return found

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """A layer's convolution state, into which the model may write itself."""
        self._lend(layer_idx)
        found: Tensor | None = super().get_conv_state(layer_idx, state_idx)
        return found

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """A layer's recurrent state, into which the model may write itself."""
        self._lend(layer_idx)
        found: Tensor | None = super().get_recurrent_state(layer_idx, state_idx)
        return found

    def _lend(self, layer_idx: int) -> None:
        if self._running.stated:
            self._running.undo.add(self.layers[layer_idx], None)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens that the cache holds; those of a pass count when it is whole."""
        if self._running.under_way:
            return self._running.before
        return super().get_seq_length(layer_idx)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Keys that a mask covers, and where they start."""
        running = self._running
        layer = self.layers[layer_idx] if layer_idx < len(self.layers) else None
        if running.under_way and isinstance(layer, DynamicSlidingWindowLayer):
            layer = copy.copy(layer)
            layer.cumulative_length = running.before
            found: tuple[int, int] = layer.get_mask_sizes(query_length)
            return found
        if running.under_way and isinstance(layer, RetrievalLayer):
            asked(layer.inner)
            return query_length, running.before
        return super().get_mask_sizes(query_length, layer_idx)

    def call_begins(self, model: torch.nn.Module) -> None:
        running = self._running
        self._check_alone()
        if running.stated and (running.caller is None or (running.caller is not model and not running.seen)):
            return  # the backend said so, or the model around this one
        running.thread = threading.get_ident()
        self.settle()
        running.undo.begin()
        running.stated, running.caller, running.before = True, model, super().get_seq_length()

    def call_ended(self, model: torch.nn.Module, well: bool) -> None:
        running = self._running
        if running.caller is not model or not running.is_mine:
            return
        waits = running.waits
        if well and not waits:
            running.end()
            return
        running.take_back()
        if well:
            raise RuntimeError(running.why_untaken())

    # -- for all layers at once ------------------------------------------------------------------------------

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Choose rows of the batch, for beam search. beam_idx : their numbers, `(rows,)`."""
        chosen = rows.rows("reorder_cache", "beam_idx", beam_idx, self._n_rows())
        with self._all_layers():
            super().reorder_cache(chosen)  # type: ignore[arg-type]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of the batch."""
        times = rows.repeats(repeats)
        with self._all_layers():
            super().batch_repeat_interleave(times)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch. indices : their numbers, or a mask, `(rows,)`."""
        chosen = rows.rows("batch_select_indices", "indices", indices, self._n_rows(), choosing=True)
        with self._all_layers():
            super().batch_select_indices(chosen)

    def _n_rows(self) -> int | None:
        """Rows of the batch; None before the first pass."""
        self.settle()
        held = (layer.inner.rows for layer in self.layers if isinstance(layer, RetrievalLayer))
        return next((len(each) for each in held if each), None)

    def reset(self) -> None:
        """Forget all tokens and statistics."""
        self._running.undo.lost = True  # should an interrupt come before all layers are done
        super().reset()  # type: ignore[no-untyped-call]
        self.whole.reset()
        self._running.forget()

    @contextmanager
    def one_pass(self) -> Iterator[None]:
        """Within, one pass of the model: where it fails at any point, the cache is as it was before."""
        self.settle()
        running = self._running
        running.thread = threading.get_ident()
        running.undo.begin()
        running.stated, running.before = True, super().get_seq_length()
        try:
            yield
            running.end()
        except BaseException:
            running.take_back()
            raise
        finally:
            running.stated = False

    def settle(self) -> None:
        """Take back what a pass has changed that was stopped on its way. Raises `RuntimeError` where that
        cannot be."""
        running = self._running
        if running.got_to_the_end and not running.stated:
            running.end()
        untold, last = bool(running.seen) and not running.stated, running.last_number
        cut_short = untold and running.undo.open and not running.before
        running.take_back()
        running.undo.settle()
        if cut_short:
            raise RuntimeError(_CUT_SHORT.format(last=last))

    @contextmanager
    def _all_layers(self) -> Iterator[None]:
        """Within, all layers change, or none does."""
        self.settle()
        undo = self._running.undo
        with undo.at_once(self.whole.layers.values()):
            for layer in self.layers:
                if not isinstance(layer, RetrievalLayer) or isinstance(layer, LinearAttentionCacheLayerMixin):
                    undo.add(layer, _restorer(layer))
            yield

    # -- inside ----------------------------------------------------------------------------------------------

    def _enter(self, layer_idx: int, key: Hashable) -> Any:
        """Before a layer is given what a pass brings; key : which of the things that a layer is given."""
        running, layer = self._running, self.layers[layer_idx]
        if running.seen and not running.stated:
            self._check_alone()
        if key in running.seen and not running.stated:
            self._end_of_last()
        if not running.seen:
            if not running.stated:
                running.thread = threading.get_ident()
                running.undo.begin()
                running.before = super().get_seq_length()
                watch_caller(self)
            running.last, running.last_number = self._last_layer()
        running.seen.add(key)
        if isinstance(layer, LinearAttentionCacheLayerMixin):
            # Its states are written in place, and copies would take as long as a step itself.
            running.undo.add(layer, None)
        elif not isinstance(layer, RetrievalLayer):
            running.undo.add(layer, _restorer(layer))
        return layer

    def _check_alone(self) -> None:
        """Refuse what comes while a pass of another thread is under way. One that was stopped is not."""
        running = self._running
        if running.under_way and not running.is_mine and is_called_in(running.thread, self):
            raise RuntimeError(_OF_ANOTHER_THREAD)

    def _took_state(self, layer: Any) -> None:
        if not isinstance(layer, CacheLayerMixin):  # where it attends too, its tokens count
            self._running.took(layer)

    def _end_of_last(self) -> None:
        """A pass begins, and the last one has not ended: it is taken back."""
        running = self._running
        if running.waits and (not running.reached or len(self.whole.layers) == 1):
            running.take_back()
            raise RuntimeError(running.why_untaken())
        self.settle()

    def _last_layer(self) -> tuple[Any, int]:
        """The last of the layers that take part in a pass: of those that hold tokens, where any does."""
        taking = [
            (number, layer)
            for number, layer in enumerate(self.layers[: layers_up_to_the_last(self._running.config)])
            if isinstance(layer, RetrievalLayer | DynamicSlidingWindowLayer | LinearAttentionCacheLayerMixin)
        ]
        holding = [each for each in taking if _holds(each[1])]
        number, layer = (holding or taking)[-1]
        return layer, number


def _holds(layer: Any) -> bool:
    if isinstance(layer, CacheLayerMixin) and layer.get_seq_length():
        return True
    return any(getattr(layer, "has_previous_state", {}).values())


def _restorer(layer: Any) -> GoBack:
    """A function that lets one of transformers' layers be what it is now, where it makes new tensors rather
    than writing into those that it has."""
    held = {name: dict(x) if isinstance(x, dict) else x for name, x in vars(layer).items()}

    def back() -> None:
        vars(layer).update({name: dict(x) if isinstance(x, dict) else x for name, x in held.items()})

    return back
