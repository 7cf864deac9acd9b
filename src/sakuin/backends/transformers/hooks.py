"""Attention hooks: what goes into each layer's attention while a model runs, and what comes out of it.

Called by the evaluations, which keep queries, capture traces and audit outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class AttentionCall:
    """One layer's attention in one pass. The tensors are the model's own: clone what is to stay.

    layer : its number. q : after RoPE, `(batch, n_query_heads, t, head_dim)`.
    keys, values : as the cache returned them, `(batch, n_kv_heads, n, head_dim)`.
    out : `(batch, t, n_query_heads, head_dim)`. scaling, softcap, sinks : as the layer attends; `sinks` are
        the model's attention sink logits `(n_query_heads,)`, or None.
    """

    layer: int
    q: Tensor
    keys: Tensor
    values: Tensor
    out: Tensor
    scaling: float
    softcap: float | None
    sinks: Tensor | None


Hook = Callable[[AttentionCall], None]


@contextmanager
def attention_hook(model: Any, hook: Hook) -> Iterator[None]:
    """Within, `hook` is called after each layer's attention in each pass of `model`."""
    from transformers import AttentionInterface, AttentionMaskInterface

    from sakuin.backends.transformers.attention import sakuin_attention
    from sakuin.backends.transformers.mask import sakuin_mask

    def forward(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **rest: Any
    ) -> Any:
        found = sakuin_attention(module, query, key, value, attention_mask, **rest)
        scaling = rest.get("scaling")
        call = AttentionCall(
            module.layer_idx,
            query,
            key,
            value,
            found[0],
            query.shape[-1] ** -0.5 if scaling is None else float(scaling),
            rest.get("softcap"),
            rest.get("s_aux"),
        )
        hook(call)
        return found

    AttentionInterface.register("sakuin_hook", forward)
    AttentionMaskInterface.register("sakuin_hook", sakuin_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation("sakuin_hook")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
