"""What an attention hook is given: what goes into a layer's attention in one pass, and what comes out of it.

Evaluations look on so (`sakuin.backends.base.Backend.attention_hook`): they keep queries, capture traces and
audit outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sakuin.attention.softmax import Softmax


@dataclass(frozen=True)
class AttentionCall:
    """One layer's attention in one pass. The tensors are the model's own: clone what is to stay.

    layer : its number. q : after RoPE, `(batch, n_query_heads, t, head_dim)`.
    keys, values : as the cache returned them, `(batch, n_kv_heads, n, head_dim)`.
    out : `(batch, t, n_query_heads, head_dim)`. softmax : scaling, softcap and attention sinks.
    """

    layer: int
    q: Tensor
    keys: Tensor
    values: Tensor
    out: Tensor
    softmax: Softmax


AttentionHook = Callable[[AttentionCall], None]
