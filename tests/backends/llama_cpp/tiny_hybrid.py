"""Recipes of models with short convolutions (LFM2) or gated delta nets (Qwen3-Next, Qwen3.5) beside
attention."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from gguf import MODEL_ARCH, ExpertGatingFuncType, GGUFWriter
from tiny_recipe import Named, Recipe, experts, file_name, write_experts
from torch import Tensor


def _lfm2(writer: GGUFWriter, config: Any) -> None:
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_shortconv_l_cache(config.conv_L_cache)


def _lfm2moe(writer: GGUFWriter, config: Any) -> None:
    _lfm2(writer, config)
    write_experts(writer, config)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    writer.add_leading_dense_block_count(config.num_dense_layers)
    writer.add_expert_gating_func(ExpertGatingFuncType.SIGMOID)


def _lfm2_tensors(name: str, weight: Tensor, config: Any) -> Iterable[Named]:
    if name.endswith("conv.conv.weight"):
        weight = weight.squeeze(1)
    elif name.endswith("expert_bias"):
        name = file_name(name, "exp_probs_b.bias")
    yield from experts(name, weight, config)


def _delta_net(writer: GGUFWriter, config: Any) -> None:
    writer.add_ssm_conv_kernel(config.linear_conv_kernel_dim)
    writer.add_ssm_state_size(config.linear_key_head_dim)
    writer.add_ssm_group_count(config.linear_num_key_heads)
    writer.add_ssm_time_step_rank(config.linear_num_value_heads)
    writer.add_ssm_inner_size(config.linear_value_head_dim * config.linear_num_value_heads)
    interval = config.layer_types.index("full_attention") + 1
    assert all((i + 1) % interval == 0 for i, k in enumerate(config.layer_types) if k == "full_attention")
    writer.add_full_attention_interval(interval)


def _qwen3next(writer: GGUFWriter, config: Any) -> None:
    _delta_net(writer, config)
    write_experts(writer, config)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)


def _qwen35moe(writer: GGUFWriter, config: Any) -> None:
    _qwen3next(writer, config)
    writer.add_rope_dimension_sections(config.rope_parameters["mrope_section"] + [0])


def _qwen35(writer: GGUFWriter, config: Any) -> None:
    _delta_net(writer, config)
    writer.add_rope_dimension_sections(config.rope_parameters["mrope_section"] + [0])


def _delta_net_tensors(name: str, weight: Tensor, config: Any) -> Iterable[Named]:
    """What both share: the decay, the convolution, and norms of which all but one have one more in a file."""
    if name.endswith(".A_log"):
        weight = -weight.exp()
    elif name.endswith(".dt_bias"):
        name = file_name(name, "ssm_dt.bias")
    elif name.endswith("conv1d.weight"):
        weight = weight.squeeze(1)
    elif name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        weight = weight + 1
    yield from experts(name, weight, config)


def _qwen3next_tensors(name: str, weight: Tensor, config: Any) -> Iterable[Named]:
    """transformers has query, key, values and gates of one key head together; llama.cpp all queries first."""
    if not name.endswith("in_proj_qkvz.weight"):
        yield from _delta_net_tensors(name, weight, config)
        return
    values = config.linear_value_head_dim * config.linear_num_value_heads // config.linear_num_key_heads
    parts = [config.linear_key_head_dim, config.linear_key_head_dim, values, values]
    q, k, v, z = weight.unflatten(0, (config.linear_num_key_heads, -1)).split(parts, dim=1)
    yield file_name(name, "attn_qkv.weight"), torch.cat([part.flatten(0, 1) for part in (q, k, v)])
    yield file_name(name, "attn_gate.weight"), z.flatten(0, 1)


def _qwen35_tensors(name: str, weight: Tensor, config: Any) -> Iterable[Named]:
    """transformers has the value heads of one key head together; llama.cpp goes round the key heads."""
    dim, keys = config.linear_value_head_dim, config.linear_key_head_dim * config.linear_num_key_heads

    def turn(rows: Tensor, dim: int) -> Tensor:
        return rows.unflatten(0, (config.linear_num_key_heads, -1, dim)).transpose(0, 1).flatten(0, 2)

    if name.endswith(("in_proj_qkv.weight", "conv1d.weight")):
        weight = torch.cat([weight[: 2 * keys], turn(weight[2 * keys :], dim)])
    elif name.endswith("in_proj_z.weight"):
        weight = turn(weight, dim)
    elif name.endswith(("in_proj_a.weight", "in_proj_b.weight", ".A_log", ".dt_bias")):
        weight = turn(weight, 1)
    elif name.endswith("linear_attn.out_proj.weight"):
        weight = turn(weight.T, dim).T
    yield from _delta_net_tensors(name, weight, config)


_DELTA_NET: dict[str, Any] = {
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "head_dim": 64,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}

_SHARED: dict[str, Any] = {
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 64,
}
_MROPE: dict[str, Any] = {
    "rope_type": "default",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.25,
    "mrope_section": [3, 3, 2],
    "mrope_interleaved": True,
}

HYBRID: dict[str, Recipe] = {
    "lfm2": Recipe(
        "lfm2",
        MODEL_ARCH.LFM2,
        {
            "num_hidden_layers": 4,
            "layer_types": ["conv", "full_attention"] * 2,
            "hidden_size": 128,
            "block_auto_adjust_ff_dim": False,
            "tie_word_embeddings": True,
        },
        rewrite=_lfm2_tensors,
        metadata=_lfm2,
        marked_by_heads=True,
    ),
    "lfm2moe": Recipe(
        "lfm2_moe",
        MODEL_ARCH.LFM2MOE,
        {
            "num_hidden_layers": 4,
            "layer_types": ["conv", "full_attention"] * 2,
            "hidden_size": 128,
            "num_dense_layers": 1,
            "moe_intermediate_size": 32,
            "num_experts": 4,
            "num_experts_per_tok": 3,
            "tie_word_embeddings": True,
        },
        rewrite=_lfm2_tensors,
        metadata=_lfm2moe,
        marked_by_heads=True,
    ),
    "qwen3next": Recipe(
        "qwen3_next",
        MODEL_ARCH.QWEN3NEXT,
        {
            **_DELTA_NET,
            **_SHARED,
        },
        rewrite=_qwen3next_tensors,
        metadata=_qwen3next,
    ),
    "qwen35": Recipe(
        "qwen3_5_text",
        MODEL_ARCH.QWEN35,
        {
            **_DELTA_NET,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "rope_parameters": _MROPE,
        },
        rewrite=_qwen35_tensors,
        metadata=_qwen35,
    ),
    "qwen35moe": Recipe(
        "qwen3_5_moe_text",
        MODEL_ARCH.QWEN35MOE,
        {**_DELTA_NET, **_SHARED, "rope_parameters": _MROPE},
        rewrite=_qwen35_tensors,
        metadata=_qwen35moe,
    ),
}
