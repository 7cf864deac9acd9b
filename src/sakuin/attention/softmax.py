"""How one layer's logits become weights: what attention is told beside queries, keys and values."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Softmax:
    """The softmax of one layer.

    scaling : what inner products are multiplied with.
    softcap : c of `c tanh(z / c)`, which bounds the logits z; None leaves them.
    sinks : a logit for each query head, `(n_query_heads,)`, that enters the sum without a value; None where
        the model has none.
    """

    scaling: float
    softcap: float | None = None
    sinks: Tensor | None = None
