"""The attention function and the mask function that transformers calls under the name "sakuin".

With a RetrievalCache the keys that arrive are tagged (`sakuin.backends.transformers.layer`) and their layer
does the rest. Without one the name behaves as "sdpa", or as the model's own eager math where sdpa cannot
(softcap, attention sinks). `register` is called by `sakuin.backends.transformers.register` when transformers'
model code is loaded; nothing heavy is imported before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NAME = "sakuin"

# Keywords that models hand to every attention function and that leave the scores as they are.
_HARMLESS = {
    "cache",
    "cache_position",
    "deterministic",
    "layer_idx",
    "logits_to_keep",
    "num_items_in_batch",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "past_key_values",
    "position_embeddings",
    "position_ids",
    "return_dict",
    "sliding_window",
    "token_type_ids",
    "use_cache",
}


def register() -> None:
    """Make the name known to transformers: an attention function and a mask function under one name."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, sakuin_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sakuin_mask)


def sakuin_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers asks for it.

    query `(batch, n_query_heads, t, head_dim)`, key and value as the cache's `update` returned them; returns
    `(batch, t, n_query_heads, head_dim)` in the query's dtype, and None in the place of weights.
    """
    ticket: Any = getattr(key, "_sakuin", None)
    if ticket is None:
        return _with_any_cache(
            module, query, key, value, attention_mask, scaling, dropout, is_causal, softcap, s_aux, kwargs
        )
    layer = ticket.layer
    if getattr(value, "_sakuin", None) is not ticket:
        from sakuin.backends.transformers.tickets import NOT_PLAIN

        raise NotImplementedError(NOT_PLAIN)
    for name, given in kwargs.items():
        if name not in _HARMLESS and given is not None and not isinstance(given, bool | str):
            raise NotImplementedError(
                f"this model passes {name!r} to its attention, which a RetrievalCache does not know and may "
                "change the scores: use transformers' DynamicCache with this model"
            )
    if dropout:
        raise ValueError(
            f"a RetrievalCache is for inference, got attention dropout {dropout}: call model.eval()"
        )
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    if not causal:
        raise ValueError(
            "a RetrievalCache needs causal attention, and this layer's is not: use another cache"
        )
    if query.shape[2] != key.shape[2]:
        raise ValueError(
            f"a RetrievalCache needs as many queries as new keys, got {query.shape[2]} and {key.shape[2]}"
        )
    with torch.no_grad():
        out = layer.attend(
            ticket,
            query,
            key,
            value,
            attention_mask,
            query.shape[-1] ** -0.5 if scaling is None else scaling,
            softcap,
            s_aux,
        )
    if torch.is_grad_enabled() and query.requires_grad:
        out = _Inference.apply(out, query)  # type: ignore[no-untyped-call]
    return out, None


def _with_any_cache(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    dropout: float,
    is_causal: bool | None,
    softcap: float | None,
    s_aux: Tensor | None,
    kwargs: dict[str, Any],
) -> tuple[Tensor, None]:
    from sakuin.backends.transformers.tickets import NOT_PLAIN, moved_between_devices, untaken_ticket

    if moved_between_devices(module, key):
        raise NotImplementedError(
            "this model shares keys between layers on different devices, which a RetrievalCache cannot "
            "follow: put the model on one device"
        )
    if (ticket := untaken_ticket(query.shape[0], query.shape[2])) is not None:
        ticket.layer.shared.pending = None
        raise NotImplementedError(NOT_PLAIN)
    if softcap is None and s_aux is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )
    if kwargs.get("position_bias") is not None:
        raise NotImplementedError(
            "attention with both a position bias and softcap or attention sinks is not supported"
        )
    from sakuin.attention.exact import dense_attention

    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    out = dense_attention(
        query,
        key,
        value,
        mask,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        causal=bool(causal),
        softcap=softcap,
        s_aux=s_aux,
        dropout=dropout,
    )
    return out.transpose(1, 2).contiguous(), None


def sakuin_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> Tensor | None:
    """sdpa's mask; with a RetrievalCache one of the pass's own tokens only, None when none is padding."""
    from transformers.masking_utils import sdpa_mask

    # Only a RetrievalCache says that the keys start where the queries do.
    ours = kv_length == q_length and 0 < kv_offset == q_offset
    if ours and q_length == 0:
        raise ValueError(
            f"this pass has no tokens beyond the {kv_offset} that the cache holds: pass input_ids of all "
            "tokens, or the new ones with an attention_mask over all"
        )
    if ours and attention_mask is not None:
        known = attention_mask.shape[-1]
        if known < kv_offset + q_length:
            raise ValueError(
                f"attention_mask covers {known} tokens, but the cache holds {kv_offset} and this pass adds "
                f"{q_length}: pass a mask of {kv_offset + q_length} columns, or attention_mask=None when "
                "nothing is padded"
            )
    return sdpa_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        attention_mask=attention_mask,
        **kwargs,
    )


class _Inference(torch.autograd.Function):
    """Passes attention through and refuses to differentiate it, so that nobody trains on wrong gradients."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, query: Tensor) -> Tensor:
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(
            "attention through a RetrievalCache has no gradient: train with another cache, or without one"
        )
