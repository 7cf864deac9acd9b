"""The attention that each token of a sequence receives while it is decoded: where answers were looked up.

Evidence is made of it (`sakuin.context.lookup`). Called by `sakuin.cache.layer` and `sakuin.cache.whole`.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from sakuin.cache.undo import GoBack
from sakuin.index import _native

_ROOM = 256
"""Tokens that there is room for when the memory is made longer."""


class TrackedMass:
    """Sums over layers, decode steps and the query heads of a group, fp32 `(n_kv_heads, n_tokens)`.

    above : count only what lies above this share of a KV head's attention in a step and layer (mean over its
        query heads). 0.1 leaves what retrieves, and none of what is spread over many tokens.
    """

    _held: Tensor
    _n: int

    def __init__(self, above: float = 0.0) -> None:
        self.above = above
        self._hold(torch.zeros(0, 0), 0)

    @property
    def sums(self) -> Tensor:
        """The sums so far; written in place."""
        return self._held[:, : self._n]

    def of(self, n_kv_heads: int, n_tokens: int) -> Tensor:
        """The sums so far of at least so many tokens, `(n_kv_heads, n)`; written in place."""
        return self.in_room(n_kv_heads, n_tokens)[:, : self._n]

    def in_room(self, n_kv_heads: int, n_tokens: int) -> Tensor:
        """As `of`, with whatever room there is for more tokens behind it: the same tensor in most steps."""
        if n_kv_heads > self._heads or n_tokens > self._room:
            room = n_tokens + _ROOM if n_tokens > self._room else self._room
            # No tensor of inference mode, or only such passes could go on with it.
            with torch.inference_mode(False):
                held = torch.zeros(max(n_kv_heads, self._heads), room)
            held[: self._heads, : self._n] = self.sums
            self._hold(held, self._n)
        self._n = max(self._n, n_tokens)
        return self._held if self._heads == n_kv_heads else self._held[:n_kv_heads]

    def _hold(self, sums: Tensor, n_tokens: int) -> None:
        """sums : `(n_kv_heads, room)`, 0 from `n_tokens` on."""
        self._held, self._heads, self._room, self._n = sums, sums.shape[0], sums.shape[1], n_tokens

    def into(self, sums: Tensor) -> Tensor:
        """Where a step adds its mass: `sums` themselves, or a tensor of its own for `count`."""
        return torch.zeros_like(sums) if self.above > 0 else sums

    def count(self, sums: Tensor, step: Tensor, group_size: int) -> None:
        """Add what counts of a step's mass, as `into` gave it, to `sums`."""
        if step is not sums:
            sums += step.sub_(self.above * group_size).clamp_(min=0)

    def take(self, n_tokens: int | None = None) -> tuple[Tensor, Tensor]:
        """Of the first `n_tokens` tokens (of all) those whose sum over KV heads is above 0, int64 `(n,)` in
        order, and these sums, fp32 `(n,)`; the sums of all tokens begin again at 0."""
        return _native.take_mass(self._held, self._n if n_tokens is None else min(n_tokens, self._n))

    def crop(self, n_tokens: int) -> None:
        """Keep the first `n_tokens` tokens."""
        self._held[:, n_tokens:].zero_()
        self._n = min(self._n, n_tokens)

    def restorer(self) -> GoBack:
        """A function that forgets tokens which come from now on. What others receive meanwhile stays."""
        return partial(self.crop, self._n)

    def reset(self) -> None:
        """Forget what was counted."""
        self._hold(torch.zeros(0, 0), 0)
