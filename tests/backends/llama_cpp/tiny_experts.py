"""Recipes of models with a mixture of experts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gguf import MODEL_ARCH, GGUFWriter
from tiny_recipe import WINDOW, Named, Recipe, experts, file_name, write_experts, write_window
from torch import Tensor


def _qwen3moe(writer: GGUFWriter, config: Any) -> None:
    write_experts(writer, config)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)


def _gpt_oss(writer: GGUFWriter, config: Any) -> None:
    write_experts(writer, config)
    write_window(writer, config)
    writer.add_expert_feed_forward_length(config.intermediate_size)


def _gpt_oss_tensors(name: str, weight: Tensor, config: Any) -> Iterable[Named]:
    """gpt-oss keeps gate and up in turns, and its experts' weights the other way round."""
    if name.endswith("sinks"):
        yield file_name(name, "attn_sinks.weight"), weight
    elif "experts.gate_up_proj" in name:
        for part, kind in ((weight[..., ::2], "gate"), (weight[..., 1::2], "up")):
            if name.endswith("_bias"):
                yield file_name(name, f"ffn_{kind}_exps.bias"), part
            else:
                yield file_name(name, f"ffn_{kind}_exps.weight"), part.mT
    elif name.endswith("experts.down_proj_bias"):
        yield file_name(name, "ffn_down_exps.bias"), weight
    elif name.endswith("experts.down_proj"):
        yield file_name(name, "ffn_down_exps.weight"), weight.mT
    else:
        yield name, weight


EXPERTS: dict[str, Recipe] = {
    "mixtral": Recipe(
        "mixtral",
        MODEL_ARCH.LLAMA,
        {"sliding_window": None, "num_local_experts": 4, "num_experts_per_tok": 3},
        rewrite=experts,
        metadata=write_experts,
        permuted=True,
        vocabulary="spaced pieces",
    ),
    "qwen3moe": Recipe(
        "qwen3_moe",
        MODEL_ARCH.QWEN3MOE,
        {
            "num_attention_heads": 8,
            "num_experts": 8,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
        },
        rewrite=experts,
        metadata=_qwen3moe,
    ),
    "gpt-oss": Recipe(
        "gpt_oss",
        MODEL_ARCH.GPT_OSS,
        {
            "sliding_window": WINDOW,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "head_dim": 64,
            "num_local_experts": 4,
            "num_experts_per_tok": 3,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "factor": 8.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": True,
                "original_max_position_embeddings": 512,
            },
        },
        rewrite=_gpt_oss_tensors,
        metadata=_gpt_oss,
    ),
}
