"""`RetrievalCache`: the KV cache that a user passes to a transformers model loaded with
`attn_implementation="sakuin"`.

Full-attention layers are `sakuin.backends.transformers.layer.RetrievalLayer`; sliding-window, linear and
shared layers stay transformers' own. What is decided here: which layers a model gets, what holds for all of
them at once (crop, fork, statistics), and refusing models that cannot work.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    DYNAMIC_LAYER_TYPE_MAPPING,
    Cache,
    LinearAttentionCacheLayerMixin,
    get_layer_types_and_kwargs,
)

from sakuin.backends.transformers.layer import RetrievalLayer
from sakuin.backends.transformers.tickets import PassState
from sakuin.cache.offload import bytes_on_disk
from sakuin.cache.sealing import Sealer
from sakuin.cache.sequence import QUERY_STEP
from sakuin.cache.step_log import summarize
from sakuin.config import STEP_SETTINGS, RetrievalConfig

_PASSED_THROUGH = ("sliding_attention", "linear_attention", "conv", "dummy")


class RetrievalCache(Cache):
    """A KV cache whose old tokens lie in host memory behind an index, for decoders of transformers.

    Parameters
    ----------
    model_config
        The model's configuration (`model.config`).
    config
        `RetrievalConfig`; the defaults if left out.

    Use it as any transformers cache, with a model loaded with `attn_implementation="sakuin"`:
    `model.generate(**inputs, cache=RetrievalCache(model.config))`.

    Raises `ValueError` for a model without full-attention layers or with layers that sakuin does not know.
    """

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
        self.config = config if config is not None else RetrievalConfig()
        self._state = PassState(self.config, Sealer())
        text_config = model_config.get_text_config(decoder=True)
        self._state.rope_limit = _rope_limit(text_config)
        super().__init__(layers=_layers(text_config, self._state))

    # -- for all layers at once ------------------------------------------------------------------------------

    @property
    def retrieval_layers(self) -> list[RetrievalLayer]:
        """The layers that have an index."""
        return [layer for layer in self.layers if isinstance(layer, RetrievalLayer)]

    def reset(self) -> None:
        """Forget all tokens and statistics."""
        self._state.pending = None
        self._state.mass = None if self._state.mass is None else torch.zeros(0, 0)
        super().reset()  # type: ignore[no-untyped-call]

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the newest `-tokens_to_remove` tokens (a negative count, as in transformers' own caches).

        Checks every layer before it changes one: `ValueError` if there are not so many tokens, `RuntimeError`
        if a layer no longer has the tokens that would be its window afterwards (call
        `activate_past_recording` before the pass that may be undone).
        """
        if tokens_to_remove > 0:
            raise ValueError(
                f"crop takes a negative number of tokens to remove, got {tokens_to_remove}; to keep the "
                "first n tokens call cache.crop(n - cache.get_seq_length())"
            )
        length, remove = self.get_seq_length(), -tokens_to_remove
        if remove > length:
            raise ValueError(f"cannot remove {remove} tokens from a cache of {length}")
        for position, layer in enumerate(self.layers):
            _check_croppable(position, layer, length, remove)
        super().crop(tokens_to_remove)
        if self._state.mass is not None and self.retrieval_layers[0].rows:
            self._state.mass = self._state.mass[:, : self.retrieval_layers[0].rows[0].n_tokens].contiguous()

    def flush(self) -> None:
        """Wait until all that the background thread was given is indexed; an error there is raised here."""
        for layer in self.retrieval_layers:
            for row in layer.rows:
                row.flush()

    def seal(self) -> None:
        """Seal all that lies outside the recent window, and wait: after a document, before its questions."""
        rows = [row for layer in self.retrieval_layers for row in layer.rows]
        for row in rows:
            row.start_sealing_rest()
        for row in rows:
            row.flush()

    def fill(self, source: Cache, queries: Mapping[int, Tensor]) -> None:
        """Hold the tokens that the model has read through another cache, as after a prefill through this one.

        source : transformers' own cache of one sequence.
        queries : for each full-attention layer those of the positions that are multiples of 4, after RoPE,
            `(n_query_heads, m, head_dim)`.
        """
        if self.get_seq_length():
            raise ValueError(
                f"this cache holds {self.get_seq_length()} tokens already: fill a new RetrievalCache"
            )
        n = source.get_seq_length()
        for number, layer in enumerate(self.layers):
            theirs: Any = source.layers[number]
            if not isinstance(layer, RetrievalLayer):
                self.layers[number] = copy_layer(theirs)
                continue
            if theirs.keys.shape[0] != 1:
                raise ValueError(f"fill takes a cache of one sequence, got {theirs.keys.shape[0]} of them")
            known, needed = queries[number].shape[1], -(-n // QUERY_STEP)
            if known != needed:
                raise ValueError(
                    f"{n} tokens need queries of {needed} positions (every {QUERY_STEP}th), got {known} for "
                    f"layer {number}"
                )
            layer.fill(theirs.keys, theirs.values, queries[number])

    def fork(self, config: RetrievalConfig | None = None) -> RetrievalCache:
        """A second cache with the same tokens: it shares the segments, and counts its statistics anew.

        config : other settings for the fork. They must build the same segments: only settings that each step
            reads (`sakuin.config.STEP_SETTINGS`) may differ.
        """
        config = self.config if config is None else _like(self.config, config)
        other = object.__new__(RetrievalCache)
        other.__dict__.update(self.__dict__)
        other.config = config
        other._state = PassState(config, self._state.sealer)
        other._state.rope_limit = self._state.rope_limit
        other._state.device_path = self._state.device_path
        other.layers = [
            layer.fork(other._state) if isinstance(layer, RetrievalLayer) else copy_layer(layer)
            for layer in self.layers
        ]
        if config != self.config:
            for row in (row for layer in other.retrieval_layers for row in layer.rows):
                row.config, row.index = config, row.index.fork()
                row.index.config = config
        return other

    # -- measurements ----------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """What the decode steps spent, means over the steps.

        `index`: the kind of index that holds the offloaded tokens, which `"auto"` has chosen (where sequences
        or layers differ, all kinds, with commas); `steps`: passes of one token or a few; `exact`, `codes`:
        shares of the offloaded tokens attended so; `coverage`: share of the softmax mass in the static part
        or attended exactly or from codes; `error`: the index's own estimate, or None; `touched_bytes` of a
        token over all layers; `touched_share` of the offloaded keys and values at 2 bytes a number; `seconds`
        of a step over all layers; `layers`: a list of the same, with each one's `layer`.
        """
        found = [(i, layer) for i, layer in enumerate(self.layers) if isinstance(layer, RetrievalLayer)]
        whole = self._kind([layer for _, layer in found]) | summarize([layer.log for _, layer in found])
        whole["layers"] = [
            {"layer": i, **self._kind([layer]), **summarize([layer.log])} for i, layer in found
        ]
        return whole

    def _kind(self, layers: list[RetrievalLayer]) -> dict[str, Any]:
        kinds = {row.index.kind for layer in layers for row in layer.rows}
        return {"index": ", ".join(sorted(kinds)) or self.config.index}

    def kv_bytes(self) -> dict[str, int]:
        """Bytes of keys, values and indexes: on the model's `device` (with the room kept for growth), on the
        `host`, and with `offload="disk"` what of them lies on `disk`."""
        device = host = 0
        indexes, files = {}, {}
        for layer in self.layers:
            if isinstance(layer, RetrievalLayer):
                for row in layer.rows:
                    device += row.device_bytes
                    host += row.host_bytes
                    indexes[id(row.index)] = row.index.nbytes
                    files[id(row.index)] = bytes_on_disk(row.index)
            else:
                device += sum(x.nbytes for x in _tensors(layer))
        disk = sum(files.values())
        found = {"device": device, "host": host + sum(indexes.values()) - disk}
        return found | {"disk": disk} if self.config.offload == "disk" else found

    @property
    def index_seconds(self) -> float:
        """Seconds that building indexes took so far, on the background thread."""
        return self._state.meter.seconds

    def track_mass(self, on: bool = True, above: float = 0.0) -> None:
        """From now on add up the attention that each token of the first sequence receives in decode steps (or
        stop).

        above : count only what lies above this share of a KV head's attention in a step and layer (mean over
            its query heads). 0.1 leaves what retrieves, and none of what is spread over many tokens.
        """
        self._state.mass_above = above
        if not on:
            self._state.mass = None
        elif self._state.mass is None:
            self._state.mass = torch.zeros(0, 0)

    def mass(self) -> Tensor:
        """Attention mass of each token, summed over layers, decode steps and the query heads of a group, fp32
        `(n_kv_heads, n_tokens)`; of each step and layer only what `track_mass` counts."""
        if self._state.mass is None:
            raise RuntimeError("attention mass is not tracked: call cache.track_mass(True) before decoding")
        return self._state.mass.clone()


def _like(config: RetrievalConfig, other: RetrievalConfig) -> RetrievalConfig:
    """`other`, if what it builds is what `config` builds."""
    for name in (field.name for field in fields(RetrievalConfig)):
        before, now = getattr(config, name), getattr(other, name)
        if before != now and (name not in STEP_SETTINGS or config.index == "auto"):
            raise ValueError(
                f"a fork cannot change {name} from {before!r} to {now!r}, with which other segments would be "
                "built: prefill a new RetrievalCache"
            )
    return other


def _layers(text_config: Any, state: PassState) -> list[Any]:
    kinds, arguments = get_layer_types_and_kwargs(text_config)
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
    return [
        RetrievalLayer(state) if kind == "full_attention" else DYNAMIC_LAYER_TYPE_MAPPING[kind](**given)
        for kind, given in zip(kinds, arguments, strict=True)
    ]


def _rope_limit(text_config: Any) -> tuple[str, int] | None:
    """The kind of rotary embedding whose frequencies depend on the length, and the length where they change;
    else None."""
    parameters = getattr(text_config, "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    limits = []
    for one in nested or [parameters]:
        kind = one.get("rope_type", "default")
        if kind in ("dynamic", "longrope"):
            limit = one.get("original_max_position_embeddings") or text_config.max_position_embeddings
            limits.append((int(limit), str(kind)))
    if not limits:
        return None
    limit, kind = min(limits)
    return kind, limit


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


def _tensors(layer: Any) -> list[Tensor]:
    held = [layer.keys, layer.values] if hasattr(layer, "keys") else []
    for states in (getattr(layer, "conv_states", {}), getattr(layer, "recurrent_states", {})):
        held += list(states.values())
    return [x for x in held if isinstance(x, Tensor)]


def copy_layer(layer: Any) -> Any:
    """A copy of one of transformers' cache layers that shares no memory with it."""
    # Not deepcopy: it refuses tensors that were made with gradients on.
    other = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, Tensor):
            setattr(other, name, value.detach().clone())
        elif isinstance(value, dict):
            setattr(
                other, name, {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in value.items()}
            )
    return other
