"""The next token of several sequences in one pass of a model, each over a `RetrievalCache` of its own.

A `JointCache` is to the model a cache of a batch. Its layers lead each row to the layer of the cache that the
row is of, so that caches of different lengths are neither padded nor copied. Used by
`sakuin.backends.transformers.backend`.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from sakuin.attention.softmax import Softmax
from sakuin.backends.transformers.cache import RetrievalCache
from sakuin.backends.transformers.tickets import RunningPass
from sakuin.cache.layer import Arrival, LayerCache
from sakuin.cache.whole import WholeCache

_NEAR = 1e-2
"""By how much of their spread the logits of a row may differ from those that it has alone, in fp32."""
_NEAR_HALF = 0.3
"""The same in dtypes of 16 bits."""

_fit: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


class _Rows(Arrival):
    """The keys and values of a pass on their way to a layer of each cache."""

    each: list[Arrival]


class _JointLayer(LayerCache):
    """A layer of several caches of one sequence each."""

    def __init__(self, layers: Sequence[LayerCache]) -> None:
        super().__init__(layers[0].state)
        self._layers = layers
        self.rows = [layer.rows[0] for layer in layers]
        self.length = min(layer.length for layer in layers)

    def announce(self, t: int) -> Arrival:
        arrival = _Rows(t)
        arrival.each = [layer.announce(t) for layer in self._layers]
        return arrival

    def attend(
        self,
        arrival: Arrival,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        softmax: Softmax,
        out: Tensor | None = None,
    ) -> Tensor:
        assert isinstance(arrival, _Rows)
        found = [
            layer.attend(one, query[b : b + 1], keys[b : b + 1], values[b : b + 1], softmax)
            for b, (layer, one) in enumerate(zip(self._layers, arrival.each, strict=True))
        ]
        arrival.stored = True
        return torch.cat(found)


class JointCache(RetrievalCache):
    """Several caches as one of a batch, for one pass. Each must hold one sequence and some tokens."""

    def __init__(self, caches: Sequence[RetrievalCache]) -> None:
        whole = WholeCache((), caches[0].config)
        whole.layers = {
            number: _JointLayer([cache.whole.layers[number] for cache in caches])
            for number in caches[0].whole.layers
        }
        self._hold(whole, {}, RunningPass(whole.state.undo, None, caches[0]._running.config))


def fits(model: Any, cache: Any) -> bool:
    """Whether the next token of `cache` can be computed in one pass with those of others: where all layers
    have an index, and positions are given to the model and turn by the same angles at every length."""
    if not isinstance(cache, RetrievalCache) or not _fit.get(model, True):
        return False
    layers = cache.whole.layers
    return (
        len(layers) == len(cache.layers)
        and cache._running.rope_limit is None
        and all(len(layer.rows) == 1 and not any(layer.padded) for layer in layers.values())
        and "position_ids" in inspect.signature(model.forward).parameters
    )


def goes_by_positions(
    model: Any, keyword: str, caches: Sequence[RetrievalCache], tokens: Sequence[int]
) -> bool:
    """Whether each row of one pass is what it would be alone: a model may count positions itself. Tried once
    a model, with forks of the first caches of two lengths."""
    if (known := _fit.get(model)) is not None:
        return known
    near = _NEAR if model.dtype == torch.float32 else _NEAR_HALF
    rows = next_logits(model, keyword, [cache.fork() for cache in caches], tokens)
    for cache, token, row in zip(caches, tokens, rows, strict=True):
        fork, given = cache.fork(), {"use_cache": True, "logits_to_keep": 1}
        with fork.one_pass():
            own = model(input_ids=torch.tensor([[token]], device=model.device), **{keyword: fork}, **given)
        alone = own.logits[0, -1].float()
        if float((alone - row.float()).abs().max()) > near * max(float(alone.std()), 1e-6):
            _fit[model] = False
            return False
    if len({cache.get_seq_length() for cache in caches}) > 1:  # with one length it may be luck
        _fit[model] = True
    return True


def next_logits(model: Any, keyword: str, caches: Sequence[RetrievalCache], tokens: Sequence[int]) -> Tensor:
    """Add a token to each cache, whose first pass this is not: logits `(len(caches), vocabulary)`. Where it
    fails no cache has taken any.

    keyword : what the model's forward calls its cache.
    """
    rows = torch.tensor([[token] for token in tokens], device=model.device)
    positions = torch.tensor([[cache.get_seq_length()] for cache in caches], device=model.device)
    with ExitStack() as passes:
        for cache in caches:
            passes.enter_context(cache.one_pass())
        joint = JointCache(caches)
        passes.enter_context(joint.one_pass())
        given = {keyword: joint, "use_cache": True, "position_ids": positions, "logits_to_keep": 1}
        logits: Tensor = model(input_ids=rows, **given).logits[:, -1]
    return logits
