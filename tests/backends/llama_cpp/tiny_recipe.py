"""How a tiny model of transformers becomes a GGUF file: what all architectures share.

A `Recipe` says what differs: the settings of the model, what else the metadata needs, and how a weight of
transformers becomes tensors of llama.cpp. Names go through the `gguf` package's own table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, RopeScalingType, get_tensor_name_map
from gguf.quants import dequantize, quantize
from tiny_vocabulary import SIZE
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

WINDOW = 64
CONTEXT = 4096
GAIN = 1.2
"""By how much a product of weights makes a vector longer: attention is sharp enough that a forgotten softcap
or sink shows in the logits, and rounding is not blown up from layer to layer."""

SLOWER = 3.0
"""Recurrent layers of fresh models forget within a token or two: these at a twentieth of that rate, so that a
lost state shows."""

Named = tuple[str, Tensor]
Rewrite = Callable[[str, Tensor, Any], Iterable[Named]]
"""From a name and a weight of transformers and the model's config to names and tensors: names that the `gguf`
package's table knows, or of the file (`blk.…`)."""


def as_it_is(name: str, weight: Tensor, config: Any) -> Iterable[Named]:
    yield name, weight


def no_more(model: PreTrainedModel) -> Iterable[Named]:
    return ()


def nothing(writer: GGUFWriter, config: Any) -> None:
    pass


@dataclass(frozen=True)
class Recipe:
    model_type: str
    architecture: MODEL_ARCH
    settings: dict[str, Any] = field(default_factory=dict)
    rewrite: Rewrite = as_it_is
    metadata: Callable[[GGUFWriter, Any], None] = nothing
    extra: Callable[[PreTrainedModel], Iterable[Named]] = no_more
    """Tensors of the file that are no weights of the model."""
    permuted: bool = False
    """Rows of query and key weights are in the order of llama.cpp's RoPE of type NORM, pairs (2i, 2i + 1)."""
    marked_by_heads: bool = False
    """The file says which layers are recurrent by giving them no KV heads."""
    vocabulary: str = "bytes"
    """`bytes`, `pieces` or `spaced pieces` (a space goes before a text)."""


_COMMON: dict[str, Any] = {
    "vocab_size": SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": False,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}


# Parts of names of weights that stay F32 in any file.
_EXACT = ("norm", "conv", "router", "mlp.gate.weight", "gate_inp", "ssm_a", "ssm_d", "A_log", "bias", "sinks")
_TURNED = ("q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias")


def make(recipe: Recipe, seed: int) -> PreTrainedModel:
    """The model with random weights in fp32, in evaluation."""
    settings = {**_COMMON, **recipe.settings}
    settings.setdefault("initializer_range", GAIN / settings["hidden_size"] ** 0.5)
    config = CONFIG_MAPPING[recipe.model_type](**settings)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    for name, weight in model.named_parameters():
        # Fresh models start with neutral norms, biases and sinks; these must matter too.
        if "norm" in name or "sinks" in name or name.endswith("bias"):
            torch.nn.init.normal_(weight.data, mean=float(weight.data.mean()), std=0.3)
        if name.endswith("dt_bias"):
            torch.nn.init.normal_(weight.data, std=0.3)
        elif name.endswith("A_log"):
            weight.data -= SLOWER
    for name, buffer in model.named_buffers():
        if name.endswith("expert_bias"):
            torch.nn.init.normal_(buffer, std=0.1)
    return model.eval()


def round_to(model: PreTrainedModel, qtype: GGMLQuantizationType) -> None:
    """Round the weights of `model` in place to what a file of `qtype` keeps: both are the same model."""
    for name, weight in model.named_parameters():
        if is_quantized(name, weight):
            # The experts of gpt-oss are stored the other way round.
            turned = model.config.model_type == "gpt_oss" and ".experts." in name
            rows = weight.data.mT if turned else weight.data
            rounded = torch.from_numpy(dequantize(quantize(rows.contiguous().numpy(), qtype), qtype))
            weight.data.copy_(rounded.mT if turned else rounded)


def is_quantized(name: str, weight: Tensor) -> bool:
    """Whether a file of F16 or Q8_0 keeps this weight so. `name` of transformers or of the file."""
    return weight.dim() >= 2 and weight.shape[-1] % 32 == 0 and not any(word in name for word in _EXACT)


def tensors(recipe: Recipe, model: PreTrainedModel) -> Iterator[Named]:
    """Names and tensors of the file, fp32."""
    config = model.config
    table = get_tensor_name_map(recipe.architecture, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if recipe.permuted and name.endswith(_TURNED):
            weight = permute(weight, head_dim(config))
        for renamed, tensor in recipe.rewrite(name, weight, config):
            known = renamed.startswith(("blk.", "token_embd", "output"))
            found = renamed if known else table.get_name(renamed, (".weight", ".bias"))
            if found is None:
                raise KeyError(f"{recipe.model_type}: no name in GGUF for {renamed}")
            yield found, tensor.contiguous()
    yield from recipe.extra(model)


def head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def permute(weight: Tensor, dim: int) -> Tensor:
    """Rows (i, i + dim/2) of each head, which transformers turns together, to (2i, 2i + 1)."""
    return weight.unflatten(0, (-1, 2, dim // 2)).transpose(1, 2).reshape(weight.shape)


def plus_one(name: str, weight: Tensor, config: Any) -> Iterable[Named]:
    """Gemma multiplies by one more than its norms' weights; llama.cpp by what stands in the file."""
    yield name, weight + 1 if name.endswith("norm.weight") else weight


def experts(name: str, weight: Tensor, config: Any) -> Iterable[Named]:
    """Experts as transformers stacks them, gate above up: two tensors in a file."""
    if name.endswith("experts.gate_up_proj"):
        gate, up = weight.chunk(2, dim=1)
        yield file_name(name, "ffn_gate_exps.weight"), gate
        yield file_name(name, "ffn_up_exps.weight"), up
    elif name.endswith("experts.down_proj"):
        yield file_name(name, "ffn_down_exps.weight"), weight
    else:
        yield name, weight


def file_name(name: str, tensor: str) -> str:
    """`blk.3.<tensor>` for a weight `model.layers.3.…`."""
    return f"blk.{layer_of(name)}.{tensor}"


def layer_of(name: str) -> int:
    return int(name.split("layers.")[1].split(".")[0])


def write_common(writer: GGUFWriter, recipe: Recipe, config: Any) -> None:
    """The metadata that every architecture has, and those of its own."""
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_vocab_size(config.vocab_size)
    writer.add_head_count(config.num_attention_heads)
    width, kv_heads = config.intermediate_size, config.num_key_value_heads
    if recipe.marked_by_heads:
        kv_heads = [kv_heads if kind == "full_attention" else 0 for kind in config.layer_types]
        if "mlp" in config.layer_types:
            width = [width if kind == "mlp" else 0 for kind in config.layer_types]
    writer.add_feed_forward_length(width)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    eps = getattr(config, "rms_norm_eps", None)
    if eps is not None:
        writer.add_layer_norm_rms_eps(eps)
    write_rope(writer, config)
    recipe.metadata(writer, config)


def write_rope(writer: GGUFWriter, config: Any) -> None:
    rope = getattr(config, "rope_parameters", None) or {}
    full = rope.get("full_attention", rope)
    if "rope_theta" in full:
        writer.add_rope_freq_base(full["rope_theta"])
        writer.add_rope_dimension_count(int(head_dim(config) * full.get("partial_rotary_factor", 1.0)))
    if "rope_theta" in rope.get("sliding_attention", {}):
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
    if full.get("rope_type") == "yarn":
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(full["factor"])
        writer.add_rope_scaling_orig_ctx_len(full["original_max_position_embeddings"])


def write_window(writer: GGUFWriter, config: Any) -> None:
    """The window, and which layers have it."""
    writer.add_sliding_window(config.sliding_window)
    writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])


def write_experts(writer: GGUFWriter, config: Any) -> None:
    count = getattr(config, "num_local_experts", None) or config.num_experts
    writer.add_expert_count(count)
    writer.add_expert_used_count(config.num_experts_per_tok)
