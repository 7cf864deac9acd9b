"""Tiny random models of the families that sakuin supports, for tests: real code of transformers, weights from
a seed.

`initializer_range=0.2` makes attention sharp enough that a forgotten softcap or attention sink shows in the
logits.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from sakuin import RetrievalCache, RetrievalConfig
from sakuin.cache.layer import LayerCache

VOCABULARY = 101

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
_SLIDING: dict[str, Any] = {
    "sliding_window": 24,
    "layer_types": ["sliding_attention", "full_attention"],
}

# model_type -> what differs from _COMMON.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {
        **_SLIDING,
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma3_text": {**_SLIDING, "query_pre_attn_scalar": 16},
    "phi3": {"sliding_window": None},
    "granite": {"attention_multiplier": 0.25},
    "gpt_oss": {**_SLIDING, "num_local_experts": 4, "num_experts_per_tok": 2},
    "olmo2": {},
}

# Layers of other kinds beside full attention: keys and values shared between layers, convolutions, linear
# attention.
MIXED: dict[str, dict[str, Any]] = {
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "sliding_window": 24,
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 4,
        "activation_sparsity_pattern": [0.0] * 4,
        "altup_num_inputs": 2,
        "intermediate_size": [64] * 4,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "qwen3_5_text": {"layer_types": ["linear_attention", "full_attention"]},
}


def tiny(model_type: str, attn_implementation: str = "sakuin", **changes: Any) -> PreTrainedModel:
    """A model of a family; the same weights for every attention implementation and every call."""
    settings = {**_COMMON, **FAMILIES.get(model_type, {}), **MIXED.get(model_type, {}), **changes}
    config = CONFIG_MAPPING[model_type](**settings)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attn_implementation)
    for name, weight in model.named_parameters():
        # Fresh models start with neutral norms and empty sinks; these must matter too.
        if "norm" in name or "sinks" in name:
            torch.nn.init.normal_(weight.data, mean=float(weight.data.mean()), std=0.3)
    return model.eval()


def tokens(n: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    """Random token ids `(batch, n)` without the padding id."""
    return torch.randint(2, VOCABULARY, (batch, n), generator=torch.Generator().manual_seed(seed))


CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
BYTES = 256 + 3
"""Words of `byte_tokenizer`."""


def byte_tokenizer(chat: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are bytes, and three words of a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<user>", "<assistant>", "</s>"]
    backend = Tokenizer(BPE({word: i for i, word in enumerate([*specials, *alphabet])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(specials)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": specials[:2]})
    tokenizer.chat_template = CHAT_TEMPLATE if chat else None
    return tokenizer


FLAT = RetrievalConfig(index="flat", sink=4, recent=16, segment=64)
"""Windows so small that most tokens of a test's prompt are in the index, which is exact."""
CLOSE = 1e-4


@torch.no_grad()
def feed(model: PreTrainedModel, cache: Any, ids: torch.Tensor, chunk: int = 100) -> torch.Tensor:
    """Logits of all of `ids`, in chunks."""
    return torch.cat([model(part, cache=cache).logits for part in ids.split(chunk, 1)], 1)


@torch.no_grad()
def full(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Logits of `ids` without any cache."""
    return model(ids, use_cache=False).logits


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= CLOSE)


def prefilled(
    model: PreTrainedModel, n: int, config: RetrievalConfig = FLAT, batch: int = 1, seed: int = 0
) -> RetrievalCache:
    """A cache that holds `tokens(n, batch, seed)`."""
    cache = RetrievalCache(model.config, config)
    feed(model, cache, tokens(n, batch, seed))
    return cache


def layer_of(cache: RetrievalCache) -> LayerCache:
    """The first layer with an index."""
    return cache.retrieval_layers[0]
