"""The attention that each token of a sequence receives while it is decoded: where answers were looked up.

Evidence is made of it (`sakuin.context.lookup`). Called by `sakuin.cache.layer` and `sakuin.cache.whole`.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from sakuin.cache.undo import GoBack


class TrackedMass:
    """Sums over layers, decode steps and the query heads of a group, fp32 `(n_kv_heads, n_tokens)`.

    above : count only what lies above this share of a KV head's attention in a step and layer (mean over its
        query heads). 0.1 leaves what retrieves, and none of what is spread over many tokens.
    """

    def __init__(self, above: float = 0.0) -> None:
        self.above = above
        self.sums = torch.zeros(0, 0)

    def of(self, n_kv_heads: int, n_tokens: int) -> Tensor:
        """The sums so far, made long enough, `(n_kv_heads, n_tokens)`; written in place."""
        more_heads, more = n_kv_heads - self.sums.shape[0], n_tokens - self.sums.shape[1]
        if more_heads > 0 or more > 0:
            self.sums = torch.nn.functional.pad(self.sums, (0, max(more, 0), 0, max(more_heads, 0)))
        return self.sums[:n_kv_heads]

    def into(self, sums: Tensor) -> Tensor:
        """Where a step adds its mass: `sums` themselves, or a tensor of its own for `count`."""
        return torch.zeros_like(sums) if self.above > 0 else sums

    def count(self, sums: Tensor, step: Tensor, group_size: int) -> None:
        """Add what counts of a step's mass, as `into` gave it, to `sums`."""
        if step is not sums:
            sums += step.sub_(self.above * group_size).clamp_(min=0)

    def take(self) -> Tensor:
        """The sums over KV heads, fp32 `(n_tokens,)`, which begin again at 0."""
        taken = self.sums.sum(0)
        self.sums.zero_()
        return taken

    def crop(self, n_tokens: int) -> None:
        """Keep the first `n_tokens` tokens."""
        self.sums = self.sums[:, :n_tokens].contiguous()

    def restorer(self) -> GoBack:
        """A function that forgets tokens which come from now on. What others receive meanwhile stays."""
        return partial(self.crop, self.sums.shape[1])

    def reset(self) -> None:
        """Forget what was counted."""
        self.sums = torch.zeros(0, 0)
