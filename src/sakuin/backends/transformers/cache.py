"""`RetrievalCache`: the KV cache that a user passes to a transformers model loaded with
`attn_implementation="sakuin"`.

Full-attention layers are a face of `sakuin.cache.whole`; sliding-window, linear and shared layers stay
transformers' own. What is decided here: which layers a model gets, going back by tokens, copies, and refusing
models that cannot work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    DYNAMIC_LAYER_TYPE_MAPPING,
    Cache,
    CacheLayerMixin,
    LinearAttentionCacheLayerMixin,
)

from sakuin.arguments import integer, shown
from sakuin.backends.transformers.hybrid import HybridRetrievalLayer
from sakuin.backends.transformers.layer import RetrievalLayer
from sakuin.backends.transformers.mask import KeysStart, PaddingMask, WindowStart
from sakuin.backends.transformers.other_layers import CrossLayer, copy_layer, cross_layer, held_tensors
from sakuin.backends.transformers.passes import WholePasses
from sakuin.backends.transformers.support import CROSS, WITH_INDEX, check_supported, layer_kinds
from sakuin.backends.transformers.tickets import RunningPass
from sakuin.backends.transformers.window import RopeLimit
from sakuin.cache.layer import LayerCache
from sakuin.cache.sequence import QUERY_STEP
from sakuin.cache.whole import WholeCache
from sakuin.config import RetrievalConfig
from sakuin.copies import CopiedByFork, twin


class RetrievalCache(CopiedByFork, WholePasses):
    """A KV cache whose old tokens lie in host memory behind an index, for decoders of transformers.

    Parameters
    ----------
    model_config
        The model's configuration (`model.config`).
    config
        `RetrievalConfig`; the defaults if left out.

    Use it as any transformers cache, with a model loaded with `attn_implementation="sakuin"`:
    `model.generate(**inputs, cache=RetrievalCache(model.config))`.

    A pass is whole or did not happen: what is refused, fails or is interrupted before the last layer has its
    tokens leaves the cache as it was, and `get_seq_length()` says which. `copy.copy` and `copy.deepcopy` of a
    cache are forks.

    Raises `ValueError` for models that it cannot work with, with the reason: no full-attention layers, layers
    or attention that sakuin does not know, heads that the indexes do not take.
    """

    _instead = "read the text with sakuin.Context, which context.save(path) keeps"

    def __init__(self, model_config: Any, config: RetrievalConfig | None = None) -> None:
        if not hasattr(model_config, "get_text_config"):
            raise TypeError(
                "RetrievalCache takes the model's configuration first (model.config), got "
                f"{type(model_config).__name__}"
            )
        if config is not None and not isinstance(config, RetrievalConfig):
            raise TypeError(f"the second argument must be a RetrievalConfig, got {type(config).__name__}")
        check_supported(model_config)
        text_config = model_config.get_text_config(decoder=True)
        kinds, arguments = layer_kinds(text_config)
        whole = WholeCache(
            [number for number, kind in enumerate(kinds) if kind in WITH_INDEX],
            config if config is not None else RetrievalConfig(),
        )
        others = {
            number: cross_layer() if kind == CROSS else DYNAMIC_LAYER_TYPE_MAPPING[kind](**given)
            for number, (kind, given) in enumerate(zip(kinds, arguments, strict=True))
            if kind != "full_attention"
        }
        self._hold(whole, others, RunningPass(whole.state.undo, RopeLimit.of(text_config), text_config))

    def _hold(self, whole: WholeCache, others: Mapping[int, Any], running: RunningPass) -> None:
        """Be the cache of these layers: those with an index, and transformers' own. Where a number is among
        both, the layer has an index and transformers' states."""
        self.whole = whole
        self._running, mask = running, PaddingMask()
        faces: dict[int, RetrievalLayer] = {}
        for number, inner in whole.layers.items():
            face = inner, self._running, mask
            if number in others:
                states = others[number]
                both = HybridRetrievalLayer(*face, number_of_states=states.number_of_states)
                both.take_states(states)
                faces[number] = both
            else:
                faces[number] = RetrievalLayer(*face)
            if any(isinstance(layer, CrossLayer) for layer in others.values()):
                # Models with such layers ask every layer whether its keys are empty, and go by it in these.
                faces[number].keys = torch.empty(0)
        super().__init__(layers=[layer for _, layer in sorted({**others, **faces}.items())])

    @property
    def config(self) -> RetrievalConfig:
        """The settings."""
        return self.whole.config

    @property
    def retrieval_layers(self) -> list[LayerCache]:
        """What the layers that have an index hold."""
        return list(self.whole.layers.values())

    def __bool__(self) -> bool:
        """False for models whose positions change beyond some length (longrope): before a pass beyond it,
        transformers' `generate` gives such a model no cache in the place of one that is true. A
        RetrievalCache is kept, and refuses the pass in which cached keys would become wrong."""
        limit = self._running.rope_limit
        return limit is None or limit.kind != "longrope"

    # -- for all layers at once ------------------------------------------------------------------------------

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """How many keys a mask covers, and where they start."""
        length, start = super().get_mask_sizes(query_length, layer_idx)
        # Asked about a layer without tokens, transformers answers about the first that has some.
        asked = [self.layers[layer_idx], *self.layers]
        about = next((layer for layer in asked if isinstance(layer, CacheLayerMixin)), None)
        return length, KeysStart(start) if isinstance(about, RetrievalLayer) else WindowStart(start)

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the newest `-tokens_to_remove` tokens (a negative count, as in transformers' own caches).

        Checks every layer before it changes one: `ValueError` if there are not so many tokens, `RuntimeError`
        if a layer no longer has the tokens that would be its window afterwards (call
        `activate_past_recording` before the pass that may be undone).
        """
        if integer(tokens_to_remove) is None:
            raise TypeError(f"crop takes a number of tokens, got {shown(tokens_to_remove)}")
        if tokens_to_remove > 0:
            raise ValueError(
                f"crop takes a negative number of tokens to remove, got {tokens_to_remove}; to keep the "
                "first n tokens call cache.crop(n - cache.get_seq_length())"
            )
        self.settle()
        length, remove = self.get_seq_length(), -tokens_to_remove
        if remove > length:
            raise ValueError(f"cannot remove {remove} tokens from a cache of {length}")
        for position, layer in enumerate(self.layers):
            _check_croppable(position, layer, length, remove)
        with self._all_layers():
            super().crop(tokens_to_remove)
            self.whole.crop_mass()

    def flush(self) -> None:
        """Wait until all that was given to be sealed is indexed; an error there is raised here."""
        self.settle()
        self.whole.flush()

    def seal(self) -> None:
        """Seal all that lies outside the recent window, and wait: after a document, before its questions."""
        self.settle()
        self.whole.seal()

    def fill(self, source: Cache, queries: Mapping[int, Tensor]) -> None:
        """Hold the tokens that the model has read through another cache, as after a prefill through this one.

        source : transformers' own cache of one sequence.
        queries : for each full-attention layer those of the positions that are multiples of 4, after RoPE,
            `(n_query_heads, m, head_dim)`.
        """
        if not isinstance(source, Cache) or not isinstance(queries, Mapping):
            raise TypeError(
                "fill takes a cache of transformers and the queries of each full-attention layer by number, "
                f"got {shown(source)} and {shown(queries)}"
            )
        if self.get_seq_length():
            raise ValueError(
                f"this cache holds {self.get_seq_length()} tokens already: fill a new RetrievalCache"
            )
        for number, layer in enumerate(self.layers):
            theirs: Any = source.layers[number]
            if not isinstance(layer, RetrievalLayer):
                self.layers[number] = copy_layer(theirs)
                continue
            if theirs.keys.shape[0] != 1:
                raise ValueError(f"fill takes a cache of one sequence, got {theirs.keys.shape[0]} of them")
            n, known = theirs.keys.shape[2], queries[number].shape[1]
            if known != (needed := -(-n // QUERY_STEP)):
                raise ValueError(
                    f"{n} tokens need queries of {needed} positions (every {QUERY_STEP}th), got {known} for "
                    f"layer {number}"
                )
            layer.inner.fill(theirs.keys[0], theirs.values[0], queries[number])
            if isinstance(layer, HybridRetrievalLayer):
                layer.take_states(theirs)

    def fork(self, config: RetrievalConfig | None = None) -> RetrievalCache:
        """A second cache with the same tokens: it shares the segments, and counts its statistics anew.

        config : other settings for the fork. They must build the same segments: only settings that each step
            reads (`Kind.step_settings`) may differ.
        """
        if config is not None and not isinstance(config, RetrievalConfig):
            raise TypeError(f"config must be a RetrievalConfig or None, got {shown(config)}")
        self.settle()
        other = twin(self)
        others = {
            number: layer if isinstance(layer, HybridRetrievalLayer) else copy_layer(layer)
            for number, layer in enumerate(self.layers)
            if isinstance(layer, HybridRetrievalLayer) or not isinstance(layer, RetrievalLayer)
        }
        whole, before = self.whole.fork(config), self._running
        running = RunningPass(whole.state.undo, before.rope_limit, before.config, reached=before.reached)
        other._hold(whole, others, running)
        return other

    # -- measurements ----------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """What the decode steps spent, means over the steps: as `sakuin.cache.whole.WholeCache.stats`."""
        return self.whole.stats()

    def kv_bytes(self) -> dict[str, int]:
        """Bytes of keys, values and indexes: on the model's `device` (with what is kept for growth), on the
        `host`, and with `offload="disk"` what of them lies on `disk`."""
        found = self.whole.nbytes()
        found["device"] += sum(x.nbytes for layer in self.layers for x in held_tensors(layer))
        return found

    @property
    def index_seconds(self) -> float:
        """Seconds that building indexes took so far, on whichever thread."""
        return self.whole.index_seconds

    def track_mass(self, on: bool = True, above: float = 0.0) -> None:
        """From now on add up the attention that each token of the first sequence receives in decode steps (or
        stop).

        above : count only what lies above this share of a KV head's attention in a step and layer (mean over
            its query heads). 0.1 leaves what retrieves, and none of what is spread over many tokens.
        """
        self.whole.track_mass(on, above)

    def mass(self) -> Tensor:
        """Attention mass of each token, summed over layers, decode steps and the query heads of a group, fp32
        `(n_kv_heads, n_tokens)`; of each step and layer only what `track_mass` counts."""
        return self.whole.mass()


def _check_croppable(position: int, layer: Any, length: int, remove: int) -> None:
    if isinstance(layer, LinearAttentionCacheLayerMixin):
        if remove and not (layer.record_past and layer.is_croppable):
            raise RuntimeError(
                f"layer {position} (linear attention) cannot go back by {remove} tokens: fork the cache "
                "before the pass instead"
            )
    elif getattr(layer, "is_sliding", False) and length >= layer.sliding_window:
        kept = 0 if layer.keys is None else layer.keys.shape[-2]
        needed = min(layer.sliding_window - 1, length - remove)
        if not layer.record_past or kept - remove < needed:
            raise RuntimeError(
                f"layer {position} has a sliding window of {layer.sliding_window} tokens and no longer holds "
                f"the window as it was {remove} tokens ago: call cache.activate_past_recording() before the "
                "pass that may be undone, or fork the cache"
            )
