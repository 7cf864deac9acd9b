"""Recipes of dense models with attention in every layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from gguf import MODEL_ARCH, GGUFWriter, RopeScalingType
from tiny_recipe import CONTEXT, WINDOW, Named, Recipe, head_dim, plus_one, write_window
from transformers import PreTrainedModel

TRAINED = 256
"""Positions that a model with scaled RoPE was trained on, as it says: fewer than tests use."""


def _softcaps(writer: GGUFWriter, config: Any) -> None:
    write_window(writer, config)
    writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _phi3(writer: GGUFWriter, config: Any) -> None:
    writer.add_rope_scaling_orig_ctx_len(config.max_position_embeddings)
    writer.add_sliding_window(0)


def _phi3_long(writer: GGUFWriter, config: Any) -> None:
    writer.add_rope_scaling_type(RopeScalingType.LONGROPE)
    writer.add_rope_scaling_orig_ctx_len(TRAINED)
    writer.add_rope_scaling_attn_factors(config.rope_parameters["attention_factor"])
    writer.add_sliding_window(0)


def _long_factors(model: PreTrainedModel) -> Iterable[Named]:
    for kind in ("long", "short"):
        factors = model.config.rope_parameters[f"{kind}_factor"]
        yield f"rope_factors_{kind}.weight", torch.tensor(factors, dtype=torch.float32)


def _llama3_factors(model: PreTrainedModel) -> Iterable[Named]:
    """By how much Llama 3 slows each pair of dimensions down."""
    dim = head_dim(model.config)
    plain = model.config.rope_parameters["rope_theta"] ** -(torch.arange(0, dim, 2) / dim)
    yield "rope_freqs.weight", plain / model.model.rotary_emb.inv_freq


def _granite(writer: GGUFWriter, config: Any) -> None:
    writer.add_logit_scale(config.logits_scaling)
    writer.add_residual_scale(config.residual_multiplier)
    writer.add_embedding_scale(config.embedding_multiplier)
    writer.add_attention_scale(config.attention_multiplier)


def _cohere2(writer: GGUFWriter, config: Any) -> None:
    write_window(writer, config)
    writer.add_logit_scale(config.logit_scale)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_rope_scaling_type(RopeScalingType.NONE)


def _sliding(*kinds: str) -> dict[str, Any]:
    return {
        "sliding_window": WINDOW,
        "num_hidden_layers": len(kinds),
        "layer_types": [f"{kind}_attention" for kind in kinds],
    }


HEADS: dict[str, Recipe] = {
    "wide heads": Recipe(
        "qwen3",
        MODEL_ARCH.QWEN3,
        {"head_dim": 512, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2},
    ),
    "one KV head": Recipe(
        "llama",
        MODEL_ARCH.LLAMA,
        {"num_attention_heads": 32, "num_key_value_heads": 1, "num_hidden_layers": 2},
        permuted=True,
    ),
}
"""Of shapes that other tests need not run with."""

DENSE: dict[str, Recipe] = {
    "llama": Recipe("llama", MODEL_ARCH.LLAMA, permuted=True),
    "llama3": Recipe(
        "llama",
        MODEL_ARCH.LLAMA,
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": TRAINED,
            }
        },
        extra=_llama3_factors,
        permuted=True,
    ),
    # llama.cpp reads it as a Llama and attends to everything, whatever the window.
    "mistral": Recipe(
        "mistral",
        MODEL_ARCH.LLAMA,
        {"sliding_window": None, "num_attention_heads": 8, "head_dim": 64},
        permuted=True,
        vocabulary="spaced pieces",
    ),
    "qwen2": Recipe(
        "qwen2", MODEL_ARCH.QWEN2, {"hidden_size": 224, "num_attention_heads": 7, "num_key_value_heads": 1}
    ),
    "qwen3": Recipe("qwen3", MODEL_ARCH.QWEN3, {"num_attention_heads": 16, "num_key_value_heads": 1}),
    "gemma2": Recipe(
        "gemma2",
        MODEL_ARCH.GEMMA2,
        {
            **_sliding("sliding", "full", "sliding", "full"),
            "head_dim": 64,
            "query_pre_attn_scalar": 64,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 30.0,
            "tie_word_embeddings": True,
        },
        rewrite=plus_one,
        metadata=_softcaps,
        vocabulary="pieces",
    ),
    "gemma3": Recipe(
        "gemma3_text",
        MODEL_ARCH.GEMMA3,
        {
            **_sliding("sliding", "sliding", "full", "sliding"),
            "num_key_value_heads": 1,
            "query_pre_attn_scalar": 32,
            "tie_word_embeddings": True,
        },
        rewrite=plus_one,
        metadata=write_window,
        vocabulary="pieces",
    ),
    "phi3": Recipe(
        "phi3",
        MODEL_ARCH.PHI3,
        {"sliding_window": None, "hidden_size": 128, "num_key_value_heads": 4},
        metadata=_phi3,
        vocabulary="spaced pieces",
    ),
    # Beyond TRAINED the long factors hold: llama.cpp goes by n_ctx, transformers by where a pass ends.
    "phi3-long": Recipe(
        "phi3",
        MODEL_ARCH.PHI3,
        {
            "sliding_window": None,
            "hidden_size": 128,
            "original_max_position_embeddings": TRAINED,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "factor": CONTEXT / TRAINED,
                "attention_factor": 1.2,
                "short_factor": [1.0 + 0.05 * i for i in range(16)],
                "long_factor": [1.0 + 0.5 * i for i in range(16)],
                "original_max_position_embeddings": TRAINED,
            },
        },
        metadata=_phi3_long,
        extra=_long_factors,
        vocabulary="spaced pieces",
    ),
    "olmo3": Recipe(
        "olmo3",
        MODEL_ARCH.OLMO2,
        {
            **_sliding("sliding", "full", "sliding"),
            "hidden_size": 128,
            "num_key_value_heads": 4,
        },
        metadata=write_window,
    ),
    "smollm3": Recipe(
        "smollm3",
        MODEL_ARCH.SMOLLM3,
        # The fourth layer has no RoPE.
        {"num_hidden_layers": 4, "tie_word_embeddings": True},
        permuted=True,
    ),
    "olmo2": Recipe(
        "olmo2", MODEL_ARCH.OLMO2, {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1}
    ),
    "granite": Recipe(
        "granite",
        MODEL_ARCH.GRANITE,
        {
            "num_attention_heads": 12,
            "attention_multiplier": 0.25,
            "residual_multiplier": 0.5,
            "embedding_multiplier": 3.0,
            "logits_scaling": 2.0,
        },
        metadata=_granite,
        permuted=True,
    ),
    "cohere2": Recipe(
        "cohere2",
        MODEL_ARCH.COHERE2,
        {
            **_sliding("sliding", "full", "sliding"),
            "hidden_size": 256,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "logit_scale": 0.5,
            "tie_word_embeddings": True,
        },
        metadata=_cohere2,
    ),
    # llama.cpp knows a window of Exaone 4 only in models of 64 layers.
    "exaone4-sliding": Recipe(
        "exaone4",
        MODEL_ARCH.EXAONE4,
        {
            **_sliding(*["sliding", "sliding", "sliding", "full"] * 16),
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
        },
        metadata=write_window,
    ),
    "exaone4": Recipe(
        "exaone4",
        MODEL_ARCH.EXAONE4,
        {
            "sliding_window": None,
            "sliding_window_pattern": None,
            "layer_types": ["full_attention"] * 3,
            "hidden_size": 160,
            "num_attention_heads": 5,
            "num_key_value_heads": 1,
        },
    ),
}
