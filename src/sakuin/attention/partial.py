"""Partial attention: the output over some of the tokens, with what is needed to merge it with the rest.

For a set S of tokens with scaled logits z: ``lse = log sum exp z`` and ``out = sum exp(z - lse) v``. Merging
disjoint sets by their lse is exact, in any order (docs/method.md). Indexes return these; the attention
function merges them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Stats:
    """What one call of `attend` or `decode` spent.

    exact, codes : share of the offloaded tokens attended exactly / from value codes, fp32 `(n_kv_heads, t)`.
        Groups of more than 16 query heads are attended in parts; then it is the mean over these.
    coverage : share of the softmax mass (static part included) attended exactly or from codes, by estimate,
        fp32 `(n_query_heads, t)`.
    touched_bytes : bytes read from the index and the offloaded keys and values, over all KV heads and
        positions.
    offloaded_bytes : bytes of the offloaded keys and values at 2 bytes a number, over all KV heads and
        positions: what `touched_bytes` is compared with.
    error : the index's own estimate of the relative L2 error of its output, fp32 `(n_query_heads, t)`, or
        None if it makes none. From `decode` it is that of the whole step's output; from `attend` that of
        `out`, times the share of the softmax that lies in the index. How keys and values are rounded to be
        stored (`kv_dtype`) is not in it.
    """

    exact: Tensor
    codes: Tensor
    coverage: Tensor
    touched_bytes: int
    offloaded_bytes: int
    error: Tensor | None = None

    @property
    def touched_share(self) -> float:
        """`touched_bytes` as a share of the offloaded keys and values in 2 bytes a number."""
        return self.touched_bytes / self.offloaded_bytes if self.offloaded_bytes else 0.0


ESTIMATED, RESCORED, CODED, EXACT = range(4)
"""How a token entered the attention: with its list's mean value by its sketch; the same, scored again from
its code; from its value code; from its true key and value."""


@dataclass
class Trace:
    """What one call of `attend(..., trace=True)` did with each token; tokens by their position in the index.

    tier : uint8 `(n_kv_heads, t, n_tokens)`, one of `ESTIMATED`, `RESCORED`, `CODED`, `EXACT`.
    weight : the token's share of the whole softmax (static part included) by its best score, mean over the
        query group, fp32 `(n_kv_heads, t, n_tokens)`.
    """

    tier: Tensor
    weight: Tensor

    def ids(self, head: int, position: int, *tiers: int) -> Tensor:
        """The tokens of some tiers for one KV head and query position, int64, in order."""
        of = self.tier[head, position]
        return torch.isin(of, torch.tensor(tiers, dtype=of.dtype)).nonzero()[:, 0]


@dataclass
class PartialAttention:
    """Attention over some of the tokens: `out` fp32 `(n_query_heads, t, value_dim)`, `lse` fp32
    `(n_query_heads, t)`.

    Where a query sees none of the tokens, `out` is 0 and `lse` is -inf. `trace` is there where it was asked
    for.
    """

    out: Tensor
    lse: Tensor
    stats: Stats | None = None
    trace: Trace | None = None


def merge(parts: Sequence[PartialAttention]) -> PartialAttention:
    """The attention over the union of disjoint sets of tokens, exactly.

    `parts` share shapes: `out` `(..., t, value_dim)`, `lse` `(..., t)`. The result carries no stats.
    """
    if not isinstance(parts, Sequence) or not all(isinstance(part, PartialAttention) for part in parts):
        raise TypeError(f"merge takes a list of PartialAttention, got {type(parts).__name__}")
    if not parts:
        raise ValueError("merge needs at least one partial attention, got none")
    shape = parts[0].out.shape
    for part in parts:
        if part.out.shape != shape or part.lse.shape != shape[:-1]:
            raise ValueError(
                f"merge needs parts of one shape; got out {tuple(part.out.shape)} and lse "
                f"{tuple(part.lse.shape)} beside out {tuple(shape)}"
            )
    if len(parts) == 1:
        return PartialAttention(parts[0].out, parts[0].lse)
    lses = torch.stack([part.lse for part in parts])
    lse = lses.logsumexp(0)
    # A row that sees nothing anywhere has lse -inf; its weights must be 0, not NaN.
    weights = (lses - lse.masked_fill(lse == -torch.inf, 0.0)).exp()
    out = torch.zeros_like(parts[0].out)
    for part, weight in zip(parts, weights, strict=True):
        out += part.out * weight[..., None]
    return PartialAttention(out, lse)
