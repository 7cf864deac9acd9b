"""Looking on while a model runs: what reaches each layer's attention, and what comes out of it.

Called by `sakuin.evaluate.traces`, `prefilled` and `audit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

See = Callable[[int, Tensor, Tensor, Tensor, float, float | None], None]
Heard = Callable[[int, Tensor, Tensor, Tensor, Tensor, float, float | None, Tensor | None], None]


@contextmanager
def seeing(model: Any, see: See) -> Iterator[None]:
    """Within, `see` is called with each layer's number, query `(batch, n_query_heads, t, head_dim)`, keys and
    values as the cache returned them, scaling and softcap."""

    def without_out(
        number: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        scaling: float,
        softcap: float | None,
        *_: Any,
    ) -> None:
        see(number, q, k, v, scaling, softcap)

    with hearing(model, without_out):
        yield


@contextmanager
def hearing(model: Any, hear: Heard) -> Iterator[None]:
    """As `seeing`, after the attention, with its output `(batch, t, n_query_heads, head_dim)` after the
    values, and the model's attention sink logits or None at the end."""
    from transformers import AttentionInterface, AttentionMaskInterface

    from sakuin.backends.transformers.attention import sakuin_attention
    from sakuin.backends.transformers.mask import sakuin_mask

    def forward(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **rest: Any
    ) -> Any:
        found = sakuin_attention(module, query, key, value, attention_mask, **rest)
        scaling = rest.get("scaling")
        scaling = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
        softcap, s_aux = rest.get("softcap"), rest.get("s_aux")
        hear(module.layer_idx, query, key, value, found[0], scaling, softcap, s_aux)
        return found

    AttentionInterface.register("sakuin_trace", forward)
    AttentionMaskInterface.register("sakuin_trace", sakuin_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation("sakuin_trace")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
