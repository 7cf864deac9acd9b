"""Which models a `RetrievalCache` works with, said from the configuration alone, before anything is read.

A cache of keys and values can stand in for another one where attention is plain: softmax over the products of
queries with the cached keys, times the cached values. What a model does otherwise is told here by its
configuration or its class. What neither shows is refused in the first pass (`attention`, `layer`).
"""

from __future__ import annotations

from typing import Any

from transformers.cache_utils import get_layer_types_and_kwargs

from sakuin.backends.transformers.own import attends_by_name, classes_for, sees_later_tokens
from sakuin.index.checks import check_geometry

WITH_INDEX = ("full_attention", "hybrid")
"""Kinds of layers that attend to all tokens; hybrid ones keep a recurrent state beside."""
PASSED_THROUGH = ("sliding_attention", "linear_attention", "conv", "dummy", "hybrid_sliding")
"""Kinds of layers that stay transformers' own."""
CROSS = "cross_attention"
"""The kind that `layer_kinds` gives to layers that attend to an image or another text, not to the tokens."""

_ELSE = ": use transformers' DynamicCache with this model"

_NOT_PLAIN = "{type!r} {what}, and a RetrievalCache needs plain attention to cached keys and values" + _ELSE
# Attention that is not plain, by the setting that only such models have.
_BY_SETTING = {
    "kv_lora_rank": "caches latents that its attention expands (multi-head latent attention)",
    "index_topk": "attends to the keys that an index of its own chooses",
    "indexer_budget": "attends to the keys that an index of its own chooses",
    "index_topk_blocks": "attends to the blocks of keys that an index of its own chooses",
    "lambda_std_dev": "takes the difference of two softmaxes (differential attention)",
    "keep_window_size": "adds to its scores a mask that it computes from all cached values",
    "d_rel": "adds to its scores a bias that it computes from each query and the distance",
}
_BY_TYPE = {
    "jetmoe": "repeats its cached keys and values for each expert of its attention",
}


def layer_kinds(text_config: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """The kind of each layer of a cache as transformers names them, and what it is made with."""
    kinds, arguments = get_layer_types_and_kwargs(text_config)
    crossing = getattr(text_config, "cross_attention_layers", None) or ()
    kinds = [CROSS if number in crossing else kind for number, kind in enumerate(kinds)]
    order = _model_layers(text_config)
    return [kinds[number] for number in order], [arguments[number] for number in order]


def _model_layers(text_config: Any) -> list[int]:
    """For each layer of a cache the model's layer that it serves: itself, and after all of them those that
    are run again, with keys of their own each time (Dory)."""
    layers = list(range(text_config.num_hidden_layers))
    if getattr(text_config, "recurrent_kv_cache_mode", None) == "per_loop":
        start = text_config.n_input_layers
        layers += layers[start : start + text_config.n_recurrent_layers] * (text_config.n_recurrent_loops - 1)
    return layers


def layers_up_to_the_last(text_config: Any) -> int | None:
    """How many layers of a cache there are up to the one that the model runs last: behind it lie the keys of
    layers that are run again before. None is all of them."""
    layers = _model_layers(text_config)
    last = text_config.num_hidden_layers - 1
    return last + 1 if layers[-1] < last else None


def check_supported(model_config: Any) -> None:
    """Raise a `ValueError` with the reason where a RetrievalCache cannot work with such models."""
    if getattr(model_config, "is_encoder_decoder", False):
        raise ValueError(
            f"RetrievalCache works with decoder-only models; {model_config.model_type!r} is an "
            "encoder-decoder: use transformers' caches"
        )
    text_config = model_config.get_text_config(decoder=True)
    if not hasattr(text_config, "num_hidden_layers"):
        raise ValueError(
            f"{text_config.model_type!r} is several decoders in one, each with layers of its own, and a "
            f"RetrievalCache serves one{_ELSE}"
        )
    for setting, what in _BY_SETTING.items():
        # A configuration whose layers differ in a setting says it for each of them alone.
        if any(getattr(layer, setting, None) for layer in text_config.per_layer_config):
            raise ValueError(_NOT_PLAIN.format(type=text_config.model_type, what=what))
    if getattr(text_config, "recurrent_kv_cache_mode", None) == "last_loop":
        what = "reads by itself the cached keys of layers that it runs again (mode 'last_loop')"
        raise ValueError(_NOT_PLAIN.format(type=text_config.model_type, what=what))
    if text_config.model_type in _BY_TYPE:
        what = _BY_TYPE[text_config.model_type]
        raise ValueError(_NOT_PLAIN.format(type=text_config.model_type, what=what))
    _check_interface(text_config)
    _check_kinds(layer_kinds(text_config)[0])
    _check_sizes(text_config)


def _check_interface(text_config: Any) -> None:
    # Which classes are loaded differs, and not each says all: one reason is looked for after another.
    classes = classes_for(type(text_config))
    takes_caches = (getattr(cls, "_supports_default_dynamic_cache", None) for cls in classes)
    if any(takes is not None and not takes() for takes in takes_caches):
        raise ValueError(
            f"{text_config.model_type!r} keeps its past in a form of its own, and takes none of "
            "transformers' caches nor a RetrievalCache: use it without a cache argument"
        )
    if not all(attends_by_name(cls) for cls in classes):
        raise ValueError(
            f"{text_config.model_type!r} computes attention in code of its own, which does not go "
            f"through transformers' attention interface, and never reaches a RetrievalCache{_ELSE}"
        )
    if sees_later_tokens(text_config):
        raise ValueError(
            f"{text_config.model_type!r} is an encoder here, whose tokens attend to later ones: set "
            "is_decoder=True in its configuration, or use it without a RetrievalCache"
        )


def _check_kinds(kinds: list[str]) -> None:
    for kind in kinds:
        if kind not in (*WITH_INDEX, *PASSED_THROUGH, CROSS):
            raise ValueError(f"layers of type {kind!r} are not supported by a RetrievalCache{_ELSE}")
    if not set(kinds) & set(WITH_INDEX):
        raise ValueError(
            f"this model has no full-attention layers (it has {', '.join(sorted(set(kinds)))}), so there is "
            "nothing to index: use transformers' DynamicCache"
        )


def _check_sizes(text_config: Any) -> None:
    """The limits of the indexes, for the layers that get one."""
    for layer in _with_index(text_config):
        if not hasattr(layer, "num_attention_heads"):
            continue  # who names it otherwise is told by the first pass
        n_query_heads, n_kv_heads, head_dim, value_dim = head_sizes(layer)
        check_geometry(n_kv_heads, head_dim, max(1, n_query_heads // n_kv_heads), value_dim)


def _with_index(text_config: Any) -> list[Any]:
    """The configurations of the layers that attend to all tokens; heads may differ from layer to layer."""
    kinds, _ = layer_kinds(text_config)
    each = list(text_config.per_layer_config)
    layers = zip(kinds, _model_layers(text_config), strict=True)
    return [each[number] for kind, number in layers if kind in WITH_INDEX]


def head_sizes(layer: Any) -> tuple[int, int, int, int]:
    """Query heads, KV heads, and the head_dim of keys and of values, of a layer by its configuration."""
    heads = layer.num_attention_heads
    kv_heads = getattr(layer, "num_key_value_heads", None) or heads
    head_dim = getattr(layer, "head_dim", None) or layer.hidden_size // heads
    value_dim = getattr(layer, "v_head_dim", None) or head_dim
    return int(heads), int(kv_heads), int(head_dim), int(value_dim)


def whole_layer(text_config: Any) -> Any:
    """The configuration of the first layer that attends to all tokens; the model's where there is none."""
    return next(iter(_with_index(text_config)), text_config)
