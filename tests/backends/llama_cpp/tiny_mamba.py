"""Recipes of models with Mamba (Jamba) or Mamba 2 (Falcon-H1, Granite 4, Nemotron-H) beside attention."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from gguf import MODEL_ARCH, GGUFWriter
from tiny_recipe import Named, Recipe, experts, file_name, write_experts
from torch import Tensor


def _mamba2(writer: GGUFWriter, config: Any) -> None:
    writer.add_ssm_conv_kernel(config.mamba_d_conv)
    writer.add_ssm_state_size(config.mamba_d_state)
    writer.add_ssm_group_count(config.mamba_n_groups)
    writer.add_ssm_time_step_rank(config.mamba_n_heads)
    writer.add_ssm_inner_size(config.mamba_n_heads * config.mamba_d_head)


def _mamba2_tensors(name: str, weight: Tensor, config: Any) -> Iterable[Named]:
    if name.endswith(".A_log"):
        weight = -weight.exp()[:, None]
    elif name.endswith((".mamba.D", ".mixer.D")):
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


def _nemotron_h(writer: GGUFWriter, config: Any) -> None:
    writer.add_ssm_conv_kernel(config.conv_kernel)
    writer.add_ssm_state_size(config.ssm_state_size)
    writer.add_ssm_group_count(config.n_groups)
    writer.add_ssm_time_step_rank(config.mamba_num_heads)
    writer.add_ssm_inner_size(config.mamba_num_heads * config.mamba_head_dim)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_layer_norm_rms_eps(config.layer_norm_epsilon)


def _nemotron_h_tensors(name: str, weight: Tensor, config: Any) -> Iterable[Named]:
    """A layer is one thing: Mamba 2, attention or a feed-forward network; the table knows older names."""
    if name.endswith("mixer.norm.weight"):
        yield file_name(name, "ssm_norm.weight"), weight.unflatten(0, (config.n_groups, -1))
        return
    for part, tensor in _mamba2_tensors(name, weight, config):
        yield part.replace("model.", "backbone.", 1), tensor


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


_MAMBA2: dict[str, Any] = {"mamba_n_heads": 4, "mamba_d_head": 64, "mamba_n_groups": 2, "mamba_d_state": 32}

MAMBA: dict[str, Recipe] = {
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
    "nemotron-h": Recipe(
        "nemotron_h",
        MODEL_ARCH.NEMOTRON_H,
        {
            "layer_types": ["linear_attention", "mlp", "full_attention", "mlp"],
            "num_hidden_layers": 4,
            "mamba_num_heads": 4,
            "mamba_head_dim": 32,
            "n_groups": 2,
            "ssm_state_size": 32,
            "time_step_min": 1e-9,  # llama.cpp has no least step
        },
        rewrite=_nemotron_h_tensors,
        metadata=_nemotron_h,
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
