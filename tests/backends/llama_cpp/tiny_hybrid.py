"""Recipes of models with recurrent layers beside attention: short convolutions (LFM2), gated delta nets
(Qwen3-Next and Qwen3.5), Mamba (Jamba) and Mamba 2 (Falcon-H1, Granite 4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from gguf import MODEL_ARCH, GGUFWriter
from tiny_recipe import Named, Recipe, experts, file_name, write_experts
from torch import Tensor


def _lfm2(writer: GGUFWriter, config: Any) -> None:
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_shortconv_l_cache(config.conv_L_cache)


def _lfm2_tensors(name: str, weight: Tensor, config: Any) -> Iterable[Named]:
    yield name, weight.squeeze(1) if name.endswith("conv.conv.weight") else weight


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


def _mamba2(writer: GGUFWriter, config: Any) -> None:
    writer.add_ssm_conv_kernel(config.mamba_d_conv)
    writer.add_ssm_state_size(config.mamba_d_state)
    writer.add_ssm_group_count(config.mamba_n_groups)
    writer.add_ssm_time_step_rank(config.mamba_n_heads)
    writer.add_ssm_inner_size(config.mamba_n_heads * config.mamba_d_head)


def _mamba2_tensors(name: str, weight: Tensor, config: Any) -> Iterable[Named]:
    if name.endswith(".A_log"):
        weight = -weight.exp()[:, None]
    elif name.endswith(".mamba.D"):
        weight = weight[:, None]
    elif name.endswith(".dt_bias"):
        name = file_name(name, "ssm_dt.bias")
    elif name.endswith("conv1d.weight"):
        weight = weight.squeeze(1)
    elif name.endswith("mamba.norm.weight"):
        weight = weight.unflatten(0, (config.mamba_n_groups, -1))
    yield name, weight


def _falcon_h1_tensors(name: str, weight: Tensor, config: Any) -> Iterable[Named]:
    """Falcon-H1 multiplies by constants on the way; in a file they are part of the weights."""
    inner, groups = config.mamba_n_heads * config.mamba_d_head, config.mamba_n_groups * config.mamba_d_state
    into = torch.repeat_interleave(
        torch.tensor(config.ssm_multipliers),
        torch.tensor([inner, inner, groups, groups, config.mamba_n_heads]),
    )
    factors = {
        "feed_forward.gate_proj.weight": config.mlp_multipliers[0],
        "feed_forward.down_proj.weight": config.mlp_multipliers[1],
        "self_attn.q_proj.weight": config.attention_in_multiplier,
        "self_attn.k_proj.weight": config.attention_in_multiplier * config.key_multiplier,
        "self_attn.v_proj.weight": config.attention_in_multiplier,
        "self_attn.o_proj.weight": config.attention_out_multiplier,
        "mamba.in_proj.weight": into[:, None] * config.ssm_in_multiplier,
        "mamba.out_proj.weight": config.ssm_out_multiplier,
    }
    factor = next((f for end, f in factors.items() if name.endswith(end)), 1.0)
    yield from _mamba2_tensors(name, weight * factor, config)


def _granite_hybrid(writer: GGUFWriter, config: Any) -> None:
    _mamba2(writer, config)
    write_experts(writer, config)
    writer.add_expert_shared_feed_forward_length(config.shared_intermediate_size)
    writer.add_logit_scale(config.logits_scaling)
    writer.add_residual_scale(config.residual_multiplier)
    writer.add_embedding_scale(config.embedding_multiplier)
    writer.add_attention_scale(config.attention_multiplier)
    writer.add_rope_scaling_finetuned(False)  # how this architecture says that there is no RoPE


def _granite_hybrid_tensors(name: str, weight: Tensor, config: Any) -> Iterable[Named]:
    if name.endswith("shared_mlp.input_linear.weight"):
        gate, up = weight.chunk(2)
        yield file_name(name, "ffn_gate_shexp.weight"), gate
        yield file_name(name, "ffn_up_shexp.weight"), up
    elif name.endswith("router.weight"):
        yield file_name(name, "ffn_gate_inp.weight"), weight
    else:
        for part, tensor in experts(name, weight, config):
            yield from _mamba2_tensors(part, tensor, config)


def _jamba(writer: GGUFWriter, config: Any) -> None:
    write_experts(writer, config)
    writer.add_ssm_conv_kernel(config.mamba_d_conv)
    writer.add_ssm_state_size(config.mamba_d_state)
    writer.add_ssm_time_step_rank(config.mamba_dt_rank)
    writer.add_ssm_inner_size(config.mamba_expand * config.hidden_size)


def _jamba_tensors(name: str, weight: Tensor, config: Any) -> Iterable[Named]:
    if name.endswith(".A_log"):
        weight = -weight.exp()
    elif name.endswith("conv1d.weight"):
        weight = weight.squeeze(1)
    yield from experts(name, weight, config)


_DELTA_NET: dict[str, Any] = {
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "head_dim": 64,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
_MAMBA2: dict[str, Any] = {"mamba_n_heads": 4, "mamba_d_head": 64, "mamba_n_groups": 2, "mamba_d_state": 32}

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
    "qwen3next": Recipe(
        "qwen3_next",
        MODEL_ARCH.QWEN3NEXT,
        {
            **_DELTA_NET,
            "num_experts": 8,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 64,
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
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.25,
                "mrope_section": [3, 3, 2],
                "mrope_interleaved": True,
            },
        },
        rewrite=_qwen35_tensors,
        metadata=_qwen35,
    ),
    "falcon-h1": Recipe(
        "falcon_h1",
        MODEL_ARCH.FALCON_H1,
        {
            **_MAMBA2,
            "mamba_d_ssm": 256,
            "mlp_multipliers": [0.8, 1.2],
            "key_multiplier": 1.5,
            "attention_in_multiplier": 0.9,
            "attention_out_multiplier": 1.1,
            "ssm_multipliers": [0.9, 1.1, 0.8, 1.2, 0.7],
            "ssm_in_multiplier": 1.2,
            "ssm_out_multiplier": 0.5,
        },
        rewrite=_falcon_h1_tensors,
        metadata=_mamba2,
    ),
    "granitehybrid": Recipe(
        "granitemoehybrid",
        MODEL_ARCH.GRANITE_HYBRID,
        {
            **_MAMBA2,
            "num_hidden_layers": 4,
            "layer_types": ["linear_attention", "full_attention"] * 2,
            "hidden_size": 128,
            "num_key_value_heads": 1,
            "num_local_experts": 4,
            "num_experts_per_tok": 3,
            "shared_intermediate_size": 64,
            "attention_multiplier": 0.25,
            "residual_multiplier": 0.5,
            "embedding_multiplier": 3.0,
            "logits_scaling": 2.0,
        },
        rewrite=_granite_hybrid_tensors,
        metadata=_granite_hybrid,
        permuted=True,
        marked_by_heads=True,
    ),
    "jamba": Recipe(
        "jamba",
        MODEL_ARCH.JAMBA,
        {
            "num_hidden_layers": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "hidden_size": 128,
            "num_experts": 4,
            "num_experts_per_tok": 3,
            "mamba_d_state": 16,
        },
        rewrite=_jamba_tensors,
        metadata=_jamba,
        marked_by_heads=True,
    ),
}
