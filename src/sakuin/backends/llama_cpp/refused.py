"""Which GGUF files sakuin cannot use, and why: told from the header, before anything else is read.

sakuin takes over the attention of layers that keep a key and a value for each token and KV head. What is left
are models that write text, token by token, with such layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from sakuin.errors import SakuinError


class Facts(Protocol):
    """What is asked of a header (`sakuin.backends.llama_cpp.header.Header`, which asks this module)."""

    @property
    def path(self) -> Path: ...
    @property
    def architecture(self) -> str: ...
    @property
    def values(self) -> Mapping[str, Any]: ...
    @property
    def lengths(self) -> Mapping[str, int]: ...
    @property
    def tensors(self) -> tuple[Any, ...]: ...
    @property
    def by_name(self) -> Mapping[str, Any]: ...
    def own(self, name: str) -> str: ...
    def text(self, key: str, default: str = "") -> str: ...
    def number(self, key: str, default: int = 0) -> int: ...
    def real(self, key: str, default: float = 0.0) -> float: ...


_WORKS = "Models that work are those that write text with ordinary attention: Llama, Qwen, Gemma, Mistral."

_ENCODERS = frozenset(
    {"bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3"}
    | {"eurobert", "gemma-embedding", "llama-embed", "t5encoder"}
)
_DRAFTS = frozenset({"eagle3", "dflash", "gemma4-assistant"})
_DIFFUSION = frozenset({"dream", "llada", "llada-moe", "rnd1"})
_MEDIA = frozenset({"clip", "mmproj", "wavtokenizer-dec", "qwen3tts", "pockettts"})
_RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
_SPECIAL = frozenset(
    {"deepseek4", "deepseek32", "glm-dsa", "glm5-next", "dots3note", "minimax-m3", "qwen4exp"}
    | {"hy_v4", "graniteswitch"}
)
_MLA = frozenset({"deepseek2", "mistral4", "minicpm3", "plm", "kimi-linear", "kimi-k3", "bailingmoe3"})
_ALIBI = frozenset({"bloom", "refact"})

_BY_ARCHITECTURE: tuple[tuple[frozenset[str], str], ...] = (
    (_ENCODERS, "it is an encoder, which turns text into vectors and writes none"),
    (frozenset({"t5"}), "it is an encoder with a decoder, whose prompt is not read as a cache of its own"),
    (_DRAFTS, "it is a draft model, which only proposes tokens to the model that it belongs to"),
    (_DIFFUSION, "it is a diffusion model, which does not write token by token"),
    (_MEDIA, "it is for pictures or sound"),
    (_RECURRENT, "its layers keep a state of fixed size, so there are no keys that an index could search"),
    (_SPECIAL, "it chooses by itself which tokens to attend to"),
    (_MLA, "its attention keeps keys and values in a compressed form (MLA)"),
    (_ALIBI, "its attention weighs distances (ALiBi), which an index of keys does not know"),
)
_BY_TYPE = {
    "adapter": "it is an adapter, which changes another model",
    "mmproj": "it is the part of a model that reads pictures or sound",
    "imatrix": "it holds statistics for quantizing a model",
    "vocab": "it holds a vocabulary alone",
}

_SCALINGS = frozenset({"none", "linear", "yarn", "longrope"})
_NOT_NEGATIVE = ("epsilon", "softcapping")
_INPUTS = (("token_embd.weight", "embedding_length"), (".ssm_out.weight", "ssm.inner_size"))
"""Tensors whose rows are as long as a number of the metadata says, and its key."""


def refuse(header: Facts) -> None:
    """Raise `SakuinError` where the file holds something that sakuin cannot use."""
    reason = _reason(header)
    if reason:
        raise SakuinError(f"sakuin cannot use {header.path} ({header.architecture or 'no model'}): {reason}.")


def _reason(header: Facts) -> str:
    kind = header.text("general.type", "model").lower()
    if kind in _BY_TYPE:
        return f"{_BY_TYPE[kind]}; name the model's own file"
    if not header.architecture:
        return "it does not say what kind of model it holds; get another file of the model"
    for architectures, reason in _BY_ARCHITECTURE:
        if header.architecture in architectures:
            return f"{reason}. {_advice(architectures)}".rstrip(".")
    return _by_tensors(header) or _by_metadata(header)


def _advice(architectures: frozenset[str]) -> str:
    if architectures is _DRAFTS or architectures is _MEDIA:
        return "Name the file of the language model"
    return _WORKS


def _by_tensors(header: Facts) -> str:
    if not header.tensors:
        return "it holds a vocabulary and no weights; name the model's own file"
    layers = {name.split(".")[1] for name in header.by_name if name.startswith("blk.")}
    if "0" not in layers and header.number(header.own("nextn_predict_layers")):
        return "it holds the layers alone that predict further tokens (MTP); name the model's own file"
    return "" if "0" in layers else "it has no layers; name the model's own file"


def _by_metadata(header: Facts) -> str:
    """What the metadata tells of a model whose architecture alone is fine."""
    own, works = header.own, _WORKS.rstrip(".")
    if header.number(own("pooling_type")) > 0 or "classifier.output_labels" in header.lengths:
        return f"it was made to judge or embed texts, not to write. {works}"
    if header.values.get(own("attention.causal")) is False:
        return f"its attention also looks ahead, as embedding models do, so it writes no text. {works}"
    if header.number(own("attention.indexer.top_k")) or header.number(own("attention.indexer.head_count")):
        return f"it chooses by itself which tokens to attend to. {works}"
    if header.number(own("attention.kv_lora_rank")) or header.number(own("attention.key_length_mla")):
        return f"its attention keeps keys and values in a compressed form (MLA). {works}"
    # Baichuan's large model has no key for it.
    large = header.architecture == "baichuan" and header.number(own("block_count")) == 40
    if header.real(own("attention.max_alibi_bias")) > 0 or large:
        return f"its attention weighs distances (ALiBi), which an index of keys does not know. {works}"
    return _by_heads(header)


def _by_heads(header: Facts) -> str:
    """Metadata that llama.cpp itself takes for granted, and ends the process where it is missing."""
    layers, width = header.number(header.own("block_count")), header.number(header.own("embedding_length"))
    heads = header.number(header.own("attention.head_count"))
    if not 0 < layers <= 512 or width <= 0 or heads <= 0:
        return (
            f"it states {layers} layers, {heads} query heads and a width of {width}, so it is damaged; fetch "
            "it again"
        )
    keys = header.number(header.own("attention.key_length"), width // heads)
    values = header.number(header.own("attention.value_length"), width // heads)
    if keys != values:
        return f"its keys have {keys} numbers and its values {values}, which must be equal here"
    odd = _odd_number(header)
    return f"it states {odd}, so it is damaged; fetch it again" if odd else ""


def _odd_number(header: Facts) -> str:
    """A number of the architecture with which llama.cpp ends the process or computes no numbers; "" where
    there is none."""
    own = header.own
    for key, value in header.values.items():
        real = isinstance(value, float) and key.startswith(header.architecture + ".")
        if real and not (math.isfinite(value) and (value >= 0 or not key.endswith(_NOT_NEGATIVE))):
            return f"{key} as {value}"
    if own("rope.freq_base") in header.values and header.real(own("rope.freq_base")) <= 0:
        return f"{own('rope.freq_base')} as {header.values[own('rope.freq_base')]}"
    scaling = header.text(own("rope.scaling.type"), "none")
    if scaling not in _SCALINGS:
        return f"{own('rope.scaling.type')} as {scaling[:40]!r}"
    head_dim = header.number(own("attention.key_length"))
    for name, most in (("rope.dimension_count", head_dim), ("rope.dimension_count_swa", 0)):
        turned = header.number(own(name))
        if turned % 2 or turned < 0 or (most and turned > most):
            return f"{own(name)} as {turned} for heads of {most or 'any'} numbers"
    for name, tensor in header.by_name.items():
        key = next((own(key) for end, key in _INPUTS if name.endswith(end)), "")
        if key in header.values and header.number(key) != tensor.shape[0]:
            return f"{key} as {header.number(key)}, and {name} has {tensor.shape[0]}"
    experts, used = header.number(own("expert_count")), header.number(own("expert_used_count"))
    if used > experts or (experts and used <= 0):
        return f"{used} experts of {experts} for a token"
    stacks = (tensor.shape[2] for name, tensor in header.by_name.items() if _is_stack(name, tensor))
    kept = next((n for n in stacks if n != experts), experts)
    return f"{experts} experts and holds {kept}" if kept != experts else ""


def _is_stack(name: str, tensor: Any) -> bool:
    return name.endswith("_exps.weight") and len(tensor.shape) == 3
