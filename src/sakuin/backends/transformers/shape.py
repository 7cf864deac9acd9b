"""The shape of a model, from its transformers configuration."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from sakuin.backends.shape import LayerKind, ModelShape
from sakuin.backends.transformers.support import head_sizes, layer_kinds, whole_layer
from sakuin.backends.transformers.window import original_window, own_window

_KEPT: dict[str, LayerKind] = {
    "full_attention": "full",
    "indexed_attention": "full",
    "hybrid": "full",
    "hybrid_sliding": "sliding",
    "dummy": "none",
    "sliding_attention": "sliding",
    "chunked_attention": "sliding",
    "linear_attention": "recurrent",
    "conv": "recurrent",
}


def shape_of(config: PreTrainedConfig) -> ModelShape:
    """The shape of the model that `config` describes; nothing is loaded."""
    text: Any = config.get_text_config(decoder=True)
    kinds, _ = layer_kinds(text)
    # Some have sizes of their own for each layer, and refuse to say one for all.
    whole, layers = whole_layer(text), list(text.per_layer_config)
    heads, kv_heads, head_dim, value_dim = head_sizes(whole)
    inner = getattr(whole, "intermediate_size", None) or 4 * text.hidden_size
    return ModelShape(
        layers=tuple(_KEPT.get(kind, "none") for kind in kinds),
        n_query_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=head_dim,
        value_dim=value_dim,
        sliding_window=max(int(getattr(layer, "sliding_window", None) or 0) for layer in layers),
        window=own_window(config),
        trained_window=original_window(config),
        hidden=int(text.hidden_size),
        intermediate=int(max(inner) if isinstance(inner, list) else inner),
        vocabulary=int(text.vocab_size),
        family=str(text.model_type),
        mixed=any(kind in ("hybrid", "hybrid_sliding") for kind in kinds),
    )


def count_weights(config: PreTrainedConfig) -> int:
    """Parameters of the model that `config` describes, tied ones once; nothing is allocated."""
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return sum(parameter.numel() for parameter in model.parameters())
