"""Keys, values and queries of a real model over real text: a fact is planted early and asked for at the end.

`real_trace` runs the model once per session and keeps three layers; tests take them as their ground truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from pydoc_data.topics import topics
from typing import Any

import torch
from torch import Tensor

SINK, RECENT = 128, 256
ASKED = 24
"""The last positions of the trace, which ask for the fact and answer."""
TOKENS = 3000
LAYERS = (3, 12, 26)

_FACT = "\n\nThe secret passkey of the archive is 71493. Remember it.\n\n"
_QUESTION = (
    "\n\nQuestion: What is the secret passkey of the archive?"
    "\nAnswer: The secret passkey of the archive is 71493."
)


@dataclass
class Layer:
    """One layer's trace; everything after RoPE. Keys and values bf16 `(n_kv_heads, n, d)` of the offloaded
    tokens, queries fp32 `(n_query_heads, n, d)` of the same positions, `asked` `(n_query_heads, ASKED, d)` of
    the last ones, and `static_lse` `(n_query_heads, ASKED)`, the lse of the sink tokens, the recent window
    and the asked positions up to their own."""

    keys: Tensor
    values: Tensor
    queries: Tensor
    asked: Tensor
    static_lse: Tensor
    scaling: float


_traces: dict[int, Layer] = {}


def real_trace(model: Any, tokenizer: Any) -> dict[int, Layer]:
    """The trace of `LAYERS` of a model, made on the first call."""
    if not _traces:
        _traces.update(_capture(model, tokenizer))
    return _traces


def _capture(model: Any, tokenizer: Any) -> dict[int, Layer]:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    fact, question = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (_FACT, _QUESTION))
    text = "\n\n".join(topics[name] for name in sorted(topics))[: 8 * TOKENS]
    ids = tokenizer(text)["input_ids"][: TOKENS - len(fact) - len(question)]
    ids = ids[: TOKENS // 3] + fact + ids[TOKENS // 3 :] + question
    kept: dict[int, tuple[Tensor, Tensor, Tensor, float]] = {}

    def attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **rest: Any) -> Any:
        if module.layer_idx in LAYERS:
            kept[module.layer_idx] = (
                query[0].float(),
                key[0].bfloat16(),
                value[0].bfloat16(),
                rest["scaling"],
            )
        return sdpa_attention_forward(module, query, key, value, mask, **rest)

    AttentionInterface.register("trace", attention)
    AttentionMaskInterface.register("trace", sdpa_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation("trace")
    try:
        with torch.no_grad():
            model(torch.tensor([ids]), logits_to_keep=1, use_cache=False)
    finally:
        model.set_attn_implementation(before)

    layers = {}
    for layer, (q, k, v, scaling) in kept.items():
        first_asked = len(ids) - ASKED
        z = q[:, first_asked:] @ k.float().repeat_interleave(len(q) // len(k), 0).transpose(1, 2) * scaling
        beside = torch.ones(ASKED, len(ids), dtype=torch.bool).tril(first_asked)
        last = first_asked - RECENT
        beside[:, SINK:last] = False
        layers[layer] = Layer(
            keys=k[:, SINK:last].contiguous(),
            values=v[:, SINK:last].contiguous(),
            queries=q[:, SINK:last].contiguous(),
            asked=q[:, first_asked:].contiguous(),
            static_lse=z.masked_fill(~beside, -torch.inf).logsumexp(-1),
            scaling=scaling,
        )
    return layers
