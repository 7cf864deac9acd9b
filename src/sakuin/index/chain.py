"""What indexes do alike with their chain of sealed segments, whatever the segments hold.

Called by `sakuin.index.sketch` and `sakuin.index.ivf`.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized

from torch import Tensor


def in_order(keys: Tensor, values: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values `(n_kv_heads, n, head_dim)` of a segment in order of position; `order`
    `(n_kv_heads, n)` is the position of each row."""
    back = order.long().argsort(1)[:, :, None].expand_as(keys)
    return keys.gather(1, back), values.gather(1, back)


def whole_within(segments: Sequence[Sized], n_tokens: int) -> tuple[int, int]:
    """How many segments lie whole within the first `n_tokens` tokens, and how many tokens those hold."""
    kept, at = 0, 0
    while kept < len(segments) and at + len(segments[kept]) <= n_tokens:
        at += len(segments[kept])
        kept += 1
    return kept, at
