"""The attention function that transformers calls under the name "sakuin".

With a RetrievalCache the keys that arrive are tagged (`sakuin.backends.transformers.tickets`) and their layer
does the rest. Without one the name behaves as "sdpa", or as the model's own eager math where sdpa cannot
(softcap, attention sinks). `register` is called by `sakuin.backends.transformers.register` when transformers'
model code is loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sakuin.attention.exact import dense_attention
from sakuin.attention.softmax import Softmax
from sakuin.backends.transformers.mask import sakuin_mask
from sakuin.backends.transformers.tickets import (
    NOT_PLAIN,
    ends_pass_on_error,
    moved_between_devices,
    ticket_of,
    untaken_ticket,
)

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


@ends_pass_on_error
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
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    softmax = Softmax(query.shape[-1] ** -0.5 if scaling is None else scaling, softcap, s_aux)
    ticket = ticket_of(key)
    if ticket is None:
        _check_not_ours(module, query, key)
        if softcap is None and s_aux is None:
            from transformers.integrations.sdpa_attention import sdpa_attention_forward

            given = {"dropout": dropout, "scaling": scaling, "is_causal": is_causal, **kwargs}
            return sdpa_attention_forward(module, query, key, value, attention_mask, **given)
        if kwargs.get("position_bias") is not None:
            raise NotImplementedError(
                "attention with both a position bias and softcap or attention sinks is not supported"
            )
        out = dense_attention(
            query, key, value, attention_mask, softmax, causal=bool(causal), dropout=dropout
        )
        return out.transpose(1, 2).contiguous(), None
    if ticket_of(value) is not ticket:
        raise NotImplementedError(NOT_PLAIN)
    _check_inference(kwargs, dropout, bool(causal))
    if query.shape[2] != key.shape[2]:
        raise ValueError(
            f"a RetrievalCache needs as many queries as new keys, got {query.shape[2]} and {key.shape[2]}"
        )
    with torch.no_grad():
        out = ticket.layer.attend(ticket, query, key, value, attention_mask, softmax)
    if torch.is_grad_enabled() and query.requires_grad:
        out = _Inference.apply(out, query)  # type: ignore[no-untyped-call]
    return out, None


def _check_not_ours(module: torch.nn.Module, query: Tensor, key: Tensor) -> None:
    """Refuse keys of a RetrievalCache that lost their ticket on the way."""
    if moved_between_devices(module, key):
        raise NotImplementedError(
            "this model shares keys between layers on different devices, which a RetrievalCache cannot "
            "follow: put the model on one device"
        )
    if (ticket := untaken_ticket(query.shape[0], query.shape[2])) is not None:
        ticket.layer.running.waits = False
        raise NotImplementedError(NOT_PLAIN)


def _check_inference(kwargs: dict[str, Any], dropout: float, causal: bool) -> None:
    """Refuse what a RetrievalCache cannot do: keywords that may change the scores, dropout, other masks."""
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
    if not causal:
        raise ValueError(
            "a RetrievalCache needs causal attention, and this layer's is not: use another cache"
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
