"""The attention function that transformers calls under the name "sakuin".

With a RetrievalCache the keys that arrive are tagged (`sakuin.backends.transformers.tickets`) and their layer
does the rest. Without one the name does what the model would have done if nobody had named an implementation
(`sakuin.backends.transformers.own`). `register` is called by `sakuin.backends.transformers.register` when
transformers' model code is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sakuin.attention.exact import dense_attention
from sakuin.attention.softmax import Softmax
from sakuin.backends.transformers.mask import sakuin_mask
from sakuin.backends.transformers.own import attends_by_sdpa, own_function
from sakuin.backends.transformers.tickets import (
    NOT_PLAIN,
    Ticket,
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
_SPARSE = ("indices", "block_indices", "sinks")
"""Keywords by which models that choose keys, or have a sink, tell kernels of theirs what masks do not say."""
_IN_ORDER = ("scaling", "dropout")
"""What an attention function takes after the mask, by position."""


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
    *given: Any,
    **named: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention as transformers asks for it.

    query `(batch, n_query_heads, t, head_dim)`, key and value as the cache's `update` returned them, then
    `scaling`, `dropout`, `is_causal`, `softcap`, `s_aux` and whatever else the model hands over; returns
    `(batch, t, n_query_heads, head_dim)` in the query's dtype, and the weights where the model's own
    attention gives them, else None.
    """
    ticket = ticket_of(key)
    if ticket is None:
        _check_not_ours(module, query, key)
        return _own(module, query, key, value, attention_mask, *given, **named)
    if ticket_of(value) is not ticket:
        raise NotImplementedError(NOT_PLAIN)
    said = _Said.of(module, query, given, named)
    _check_inference(module, said)
    if query.shape[2] > key.shape[2]:
        raise ValueError(
            f"a RetrievalCache needs no more queries than new keys, got {query.shape[2]} and {key.shape[2]}"
        )
    with torch.no_grad():
        out = _attend(ticket, query, key, value, attention_mask, said.softmax)
    if torch.is_grad_enabled() and query.requires_grad:
        out = _Inference.apply(out, query)  # type: ignore[no-untyped-call]
    return out, None


def _attend(
    ticket: Ticket, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, softmax: Softmax
) -> Tensor:
    """The layer's attention, contiguous: some models give it another shape by `view`."""
    missing = key.shape[2] - query.shape[2]
    if missing and not ticket.arrival.stored:
        raise ValueError(
            f"a RetrievalCache needs as many queries as new keys, got {query.shape[2]} and {key.shape[2]}"
        )
    # Layers that share another's keys may be asked for the last positions alone. The arrival knows its
    # padding.
    padded = torch.nn.functional.pad(query, (0, 0, missing, 0)) if missing else query
    out = ticket.layer.attend(ticket, padded, key, value, None if missing else mask, softmax)
    return out[:, missing:].contiguous()


@dataclass(frozen=True)
class _Said:
    """What a model says of a layer's attention beside its tensors."""

    softmax: Softmax
    causal: bool
    dropout: float
    other: dict[str, Any]

    @classmethod
    def of(
        cls, module: torch.nn.Module, query: Tensor, given: tuple[Any, ...], named: dict[str, Any]
    ) -> _Said:
        all_said = {**dict(zip(_IN_ORDER, given, strict=False)), **named}
        scaling = all_said.pop("scaling", None)
        causal = all_said.pop("is_causal", None)
        softmax = Softmax(
            query.shape[-1] ** -0.5 if scaling is None else scaling,
            all_said.pop("softcap", None),
            all_said.pop("s_aux", None),
        )
        causal = getattr(module, "is_causal", True) if causal is None else causal
        return cls(softmax, bool(causal), all_said.pop("dropout", None) or 0.0, all_said)


def _own(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *given: Any,
    **named: Any,
) -> tuple[Tensor, Tensor | None]:
    """What the model would have been given without sakuin."""
    found = own_function(module)
    said = _Said.of(module, query, given, named)
    if attends_by_sdpa(module):
        if lost := next((name for name in _SPARSE if said.other.get(name) is not None), None):
            raise NotImplementedError(
                f"this model passes {lost!r} to its attention, which sdpa ignores: load it without "
                'attn_implementation="sakuin"'
            )
        dense = said.softmax.softcap is not None or said.softmax.sinks is not None
    else:
        # A bool mask although it adds masks: a window's layer in a pass through a RetrievalCache. Such passes
        # are long, and so are the scores of all their positions: never all at once.
        dense = mask is not None and mask.dtype == torch.bool
    if not dense:
        out, weights = found(module, query, key, value, mask, *given, **named)
        return out, weights
    if unknown := _unknown(said):
        raise NotImplementedError(
            f"attention with softcap, attention sinks or a window does not know {unknown!r}, which this "
            "model passes to it"
        )
    out = dense_attention(query, key, value, mask, said.softmax, causal=said.causal, dropout=said.dropout)
    return out.transpose(1, 2).contiguous(), None


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


def _unknown(said: _Said) -> str | None:
    """A keyword that may change the scores in a way that sakuin does not know."""
    for name, value in said.other.items():
        if name not in _HARMLESS and value is not None and not isinstance(value, bool | str):
            return name
    return None


def _check_inference(module: torch.nn.Module, said: _Said) -> None:
    """Refuse what a RetrievalCache cannot do: keywords that may change the scores, dropout, other masks."""
    if unknown := _unknown(said):
        raise NotImplementedError(
            f"this model passes {unknown!r} to its attention, which a RetrievalCache does not know and may "
            "change the scores: use transformers' DynamicCache with this model"
        )
    if said.dropout:
        raise ValueError(
            f"a RetrievalCache is for inference, got attention dropout {said.dropout}: call model.eval()"
        )
    # Where the model's own attention adds masks, the mask alone says what is seen.
    if not said.causal and attends_by_sdpa(module):
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
