"""Attention hooks on a model of transformers: its attention function, wrapped for as long as they are set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from sakuin.attention.softmax import Softmax
from sakuin.backends.hooks import AttentionCall, AttentionHook
from sakuin.backends.transformers.attention import sakuin_attention
from sakuin.backends.transformers.mask import sakuin_mask

_NAME = "sakuin_hook"


@contextmanager
def attention_hook(model: Any, hook: AttentionHook) -> Iterator[None]:
    """Within, `hook` is called after each layer's attention in each pass of `model`."""

    def forward(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **rest: Any
    ) -> Any:
        found = sakuin_attention(module, query, key, value, attention_mask, **rest)
        scaling = rest.get("scaling")
        softmax = Softmax(
            query.shape[-1] ** -0.5 if scaling is None else float(scaling),
            rest.get("softcap"),
            rest.get("s_aux"),
        )
        hook(AttentionCall(module.layer_idx, query, key, value, found[0], softmax))
        return found

    AttentionInterface.register(_NAME, forward)
    AttentionMaskInterface.register(_NAME, sakuin_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
