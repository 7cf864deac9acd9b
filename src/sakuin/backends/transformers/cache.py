"""`RetrievalCache`: the KV cache that a user passes to a transformers model loaded with
`attn_implementation="sakuin"`.

Full-attention layers are a face of `sakuin.cache.whole`; sliding-window, linear and shared layers stay
transformers' own. What is decided here: which layers a model gets, going back by tokens, copies, and refusing
models that cannot work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers.cache_utils import (
    DYNAMIC_LAYER_TYPE_MAPPING,
    Cache,
    LinearAttentionCacheLayerMixin,
    get_layer_types_and_kwargs,
)

from sakuin.arguments import integer, shown
from sakuin.backends.transformers.layer import RetrievalLayer
from sakuin.backends.transformers.mask import PaddingMask
from sakuin.backends.transformers.other_layers import copy_layer, held_tensors
from sakuin.backends.transformers.passes import WholePasses
from sakuin.backends.transformers.tickets import RunningPass
from sakuin.backends.transformers.window import RopeLimit
from sakuin.cache.layer import LayerCache
from sakuin.cache.sequence import QUERY_STEP
from sakuin.cache.whole import WholeCache
from sakuin.config import RetrievalConfig
from sakuin.copies import CopiedByFork

_PASSED_THROUGH = ("sliding_attention", "linear_attention", "conv", "dummy")


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

    Raises `ValueError` for a model without full-attention layers or with layers that sakuin does not know.
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
        if getattr(model_config, "is_encoder_decoder", False):
            raise ValueError(
                f"RetrievalCache works with decoder-only models; {model_config.model_type!r} is an "
                "encoder-decoder: use transformers' caches"
            )
        text_config = model_config.get_text_config(decoder=True)
        kinds, arguments = get_layer_types_and_kwargs(text_config)
        _check_kinds(kinds)
        whole = WholeCache(
            [number for number, kind in enumerate(kinds) if kind == "full_attention"],
            config if config is not None else RetrievalConfig(),
        )
        others = {
            number: DYNAMIC_LAYER_TYPE_MAPPING[kind](**given)
            for number, (kind, given) in enumerate(zip(kinds, arguments, strict=True))
            if number not in whole.layers
        }
        self._hold(whole, others, RopeLimit.of(text_config))

    def _hold(self, whole: WholeCache, others: Mapping[int, Any], rope_limit: RopeLimit | None) -> None:
        """Be the cache of these layers: those with an index, and transformers' own."""
        self.whole = whole
        self._running, mask = RunningPass(whole.state.undo, rope_limit), PaddingMask()
        faces = {number: RetrievalLayer(inner, self._running, mask) for number, inner in whole.layers.items()}
        super().__init__(layers=[layer for _, layer in sorted({**others, **faces}.items())])

    @property
    def config(self) -> RetrievalConfig:
        """The settings."""
        return self.whole.config

    @property
    def retrieval_layers(self) -> list[LayerCache]:
        """What the layers that have an index hold."""
        return list(self.whole.layers.values())

    # -- for all layers at once ------------------------------------------------------------------------------

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

    def fork(self, config: RetrievalConfig | None = None) -> RetrievalCache:
        """A second cache with the same tokens: it shares the segments, and counts its statistics anew.

        config : other settings for the fork. They must build the same segments: only settings that each step
            reads (`Kind.step_settings`) may differ.
        """
        if config is not None and not isinstance(config, RetrievalConfig):
            raise TypeError(f"config must be a RetrievalConfig or None, got {shown(config)}")
        self.settle()
        other = self.__class__.__new__(self.__class__)
        vars(other).update(vars(self))
        others = {
            number: copy_layer(layer)
            for number, layer in enumerate(self.layers)
            if not isinstance(layer, RetrievalLayer)
        }
        other._hold(self.whole.fork(config), others, self._running.rope_limit)
        other._running.reached = self._running.reached
        return other

    # -- measurements ----------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """What the decode steps spent, means over the steps: as `sakuin.cache.whole.WholeCache.stats`."""
        return self.whole.stats()

    def kv_bytes(self) -> dict[str, int]:
        """Bytes of keys, values and indexes: on the model's `device` (with what is kept for growth), on the
        `host`, and with `offload="disk"` what of them lies on `disk`."""
        own = [layer for layer in self.layers if not isinstance(layer, RetrievalLayer)]
        found = self.whole.nbytes()
        found["device"] += sum(x.nbytes for layer in own for x in held_tensors(layer))
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


def _check_kinds(kinds: list[str]) -> None:
    if "full_attention" not in kinds:
        raise ValueError(
            f"this model has no full-attention layers (it has {', '.join(sorted(set(kinds)))}), so there is "
            "nothing to index: use transformers' DynamicCache"
        )
    for kind in kinds:
        if kind not in ("full_attention", *_PASSED_THROUGH):
            raise ValueError(
                f"layers of type {kind!r} are not supported by a RetrievalCache: use transformers' "
                "DynamicCache"
            )


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
