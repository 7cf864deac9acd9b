"""Tiny models of every causal type of the installed transformers, from the defaults of each configuration
class: few layers, small widths, weights from a seed."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
VOCABULARY = 101
LAYERS = 4

# What sizes are called, and how small they get. Only what a configuration class has is set.
_SMALL: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "unpadded_vocab_size"), VOCABULARY),
    **dict.fromkeys(("shape_vocab_size", "pronunciation_vocab_size", "ngram_vocab_size_base"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embedding_size", "emb_dim"), 64),
    **dict.fromkeys(("word_embed_proj_dim", "hidden_size_global"), 64),
    **dict.fromkeys(
        ("input_embedding_size", "output_embedding_size", "lru_width", "attention_hidden_size"), 64
    ),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "dff", "dim_ff", "n_inner", "d_inner"), 64),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "ffn_hidden_size", "feed_forward_size"), 64),
    **dict.fromkeys(("intermediate_size_mlp", "dense_intermediate_size", "mlp_dim"), 64),
    **dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 32
    ),
    **dict.fromkeys(("shared_intermediate_size", "moe_shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers"), LAYERS),
    **dict.fromkeys(
        ("encoder_layers", "num_decoder_layers", "num_encoder_layers", "max_window_layers"), LAYERS
    ),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads", "swa_num_attention_heads"), 4),
    **dict.fromkeys(("num_decoder_attention_heads", "num_encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "kv_n_heads", "num_kv_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(("head_dim", "dim_head", "kv_channels", "attention_head_size", "swa_head_dim"), 16),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "max_target_positions"), 512
    ),
    **dict.fromkeys(("initializer_range", "init_std"), 0.2),
    **dict.fromkeys(("sliding_window", "window_size", "sliding_window_size", "local_attention"), 24),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_top_k", "moe_k"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "num_shared_experts"), 1),
    **dict.fromkeys(("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "v_head_dim", "qk_nope_head_dim", "o_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim", "state_size", "mamba_d_state", "ssm_state_size"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "linear_num_heads"), 4),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), 16),
    **dict.fromkeys(("mamba_n_heads", "n_mamba_heads", "mamba_num_heads"), 4),
    **dict.fromkeys(("mamba_head_dim", "mamba_d_head"), 32),
    **dict.fromkeys(
        ("chunk_size", "mamba_chunk_size", "index_topk", "index_head_dim", "index_block_size"), 16
    ),
    **dict.fromkeys(("num_kv_shared_layers",), 2),
    **dict.fromkeys(("index_n_heads", "index_topk_blocks", "hidden_size_per_layer_input"), 4),
    **dict.fromkeys(("original_max_position_embeddings",), 512),
    "query_pre_attn_scalar": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
    "use_cache": True,
}
# What a type needs beside. Types that are encoders by default attend causally where they are told to.
_BESIDE: dict[str, dict[str, Any]] = {
    **{
        name: {"is_decoder": True}
        for name in (
            "bert",
            "bert-generation",
            "big_bird",
            "camembert",
            "data2vec-text",
            "electra",
            "ernie",
            "megatron-bert",
            "reformer",
            "rembert",
            "roberta",
            "roberta-prelayernorm",
            "roc_bert",
            "roformer",
            "xlm-roberta",
            "xlm-roberta-xl",
            "xmod",
        )
    },
}
# Latents are expanded to a key for each query head.
_BESIDE |= {
    name: {"num_key_value_heads": 4}
    for name in (
        "axk1",
        "axk2",
        "deepseek_v2",
        "deepseek_v3",
        "deepseek_v32",
        "dots3_note_text",
        "glm4_moe_lite",
        "glm_moe_dsa",
        "hy_v4",
        "kimi_linear",
        "longcat_flash",
        "minicpm3",
        "mistral4",
        "sarvam_mla",
        "youtu",
        "bailing_hybrid",
    )
}
_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_BESIDE |= {
    "bamba": {"attn_layer_indices": [1, 3]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "blt": {"encoder_hash_byte_group_vocab": 101},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2, "num_key_value_heads": 4},
    "dots3_note_text": {
        **dict.fromkeys(("num_attention_heads", "swa_num_attention_heads"), 4),
        **dict.fromkeys(("num_key_value_heads", "swa_num_key_value_heads"), 4),
        **dict.fromkeys(("kv_lora_rank", "qk_nope_head_dim"), 8),
    },
    "dory": {
        "n_input_layers": 1,
        "n_output_layers": 1,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "falcon_h1": {"mamba_d_ssm": 128},
    "gemma3n_text": {"intermediate_size": [64] * 4, "activation_sparsity_pattern": [0.0] * 4},
    "gemma4_text": {"global_head_dim": 32, "num_global_key_value_heads": 1},
    "gemma4_unified_text": {"global_head_dim": 32, "num_global_key_value_heads": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {"head_dim": 8, "num_key_value_heads": 4},
    "mamba2": {"head_dim": 32, "n_groups": 1},
    "ministral": {"head_dim": 16},
    "mistral": {"sliding_window": None},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {"n_groups": 1},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 32,
        "indexer_compress_ratio": 4,
    },
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": [16, 48], "axial_pos_shape": [16, 32]},
    "xmod": {"is_decoder": True, "default_language": "en_XX"},
    "zamba": {"attention_hidden_size": 128},
    "zaya": {"num_experts_per_tok": 1},
}
NOT_MADE: dict[str, str] = {
    "dots3_note": "the sizes of its towers follow from one another; `dots3_note_text` is its text model",
    "gemma3n": "its vision tower needs the package timm; `gemma3n_text` is its text model",
    "gemma4_assistant": "a drafter, which attends to the keys and values of another model",
    "gemma4_unified_assistant": "a drafter, which attends to the keys and values of another model",
    "musicgen": "it reads codes of sound, and the Auto class cannot make its model",
    "musicgen_melody": "it reads codes of sound, and the Auto class cannot make its model",
}
"""Types of which no tiny model can be made that way, and why."""


def tiny_config(model_type: str, **changes: Any) -> Any:
    """A small configuration of a type."""
    kind = CONFIG_MAPPING[model_type]
    return kind(**{**_small(kind), **_BESIDE.get(model_type, {}), **changes})


def _small(kind: Any) -> dict[str, Any]:
    names = {each.name for each in dataclasses.fields(kind)}
    default = kind()
    found = {name: small for name, small in _SMALL.items() if name in names and _given(default, name)}
    for name in ("layer_types", "layers_block_type", "mlp_layer_types"):
        stated = getattr(default, name, None)
        if name in names and isinstance(stated, list) and stated:
            found[name] = _few(stated)
    for name in getattr(kind, "sub_configs", {}):
        sub = getattr(default, name, None)
        if sub is not None and dataclasses.is_dataclass(sub):
            found[name] = {
                **_small(type(sub)),
                **_BESIDE.get(sub.model_type, {}),
                "model_type": sub.model_type,
            }
    return found


def _given(default: Any, name: str) -> bool:
    """Whether a size is one: a list of sizes or none at all stays what it is."""
    if name in ("pad_token_id", "bos_token_id", "eos_token_id", "use_cache"):
        return True
    try:
        value = getattr(default, name)
    except Exception:  # sizes that differ from layer to layer
        return False
    return isinstance(value, int | float) and not isinstance(value, bool)


def _few(kinds: list[Any]) -> list[Any]:
    """Each kind of layer twice, in an order that ends with one that attends to everything."""
    each = list(dict.fromkeys(kinds))
    each.sort(key=lambda kind: kind in ("full_attention", "hybrid"))
    return (each * LAYERS)[-max(LAYERS, len(each)) :]


def tiny_model(config: Any, attn_implementation: str | None = None) -> Any:
    """A model of such a configuration; the same weights for every attention implementation and every call."""
    torch.manual_seed(1)
    named = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    model = AutoModelForCausalLM.from_config(config, **named)
    for name, weight in model.named_parameters():
        # Fresh models start with neutral norms and empty sinks; these must matter too.
        if weight.is_floating_point() and ("norm" in name or "sink" in name):
            torch.nn.init.normal_(weight.data, mean=float(weight.data.mean()), std=0.3)
    return model.eval()
