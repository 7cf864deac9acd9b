"""The shape of a model, from its transformers configuration."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.cache_utils import get_layer_types_and_kwargs

from sakuin.backends.shape import LayerKind, ModelShape
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
    kinds, _ = get_layer_types_and_kwargs(text)
    heads = int(text.num_attention_heads)
    # Some have one width for each layer.
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    return ModelShape(
        layers=tuple(_KEPT.get(kind, "none") for kind in kinds),
        n_query_heads=heads,
        n_kv_heads=int(getattr(text, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(text, "head_dim", None) or text.hidden_size // heads),
        sliding_window=int(getattr(text, "sliding_window", None) or 0),
        window=own_window(config),
        trained_window=original_window(config),
        hidden=int(text.hidden_size),
        intermediate=int(max(inner) if isinstance(inner, list) else inner),
        vocabulary=int(text.vocab_size),
        family=str(text.model_type),
    )


def count_weights(config: PreTrainedConfig) -> int:
    """Parameters of the model that `config` describes, tied ones once; nothing is allocated."""
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return sum(parameter.numel() for parameter in model.parameters())
