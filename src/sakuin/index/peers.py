"""Plain ways to attend a part of the tokens, to be compared with `sketch` in one frame: `topk`, the exact
best tokens of each query head (what the search of RetrievalAttention, arXiv 2409.10516, can reach at best);
`pages`, runs of tokens by their keys' bounds (Quest, arXiv 2406.10774); `streaming`, none or the newest, so
that sink and recent window are all (StreamingLLM, arXiv 2309.17453).

They are written for measuring, in torch; their time says nothing of what such methods could take. None
estimates what it leaves out. `search` is exact for all. Called through the protocol of `sakuin.index.base`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from sakuin.attention.partial import PartialAttention, Stats
from sakuin.config import check_tolerance
from sakuin.index.base import Index
from sakuin.index.checks import check_attend
from sakuin.index.flat import FlatIndex
from sakuin.index.kind import by_ratio, register


class ChosenIndex(FlatIndex):
    """Keeps keys and values as `flat` does, and attends exactly the tokens that `choose` picks."""

    stores_int8 = False
    offered = False
    peer = True

    @abstractmethod
    def choose(self, q: Tensor, scores: Tensor, keys: Tensor) -> tuple[Tensor, int]:
        """Which tokens each query head attends, and how many numbers were read to find out.

        q : fp32 `(n_query_heads, head_dim)`, one position. scores : fp32 `(n_query_heads, n_tokens)`, the
        inner products. keys : fp32 `(n_kv_heads, n_tokens, head_dim)`. Returns bool
        `(n_query_heads, n_tokens)` and the count over all KV heads.
        """

    def attend(
        self,
        q: Tensor,
        *,
        scaling: float,
        static_lse: Tensor | None = None,
        softcap: float | None = None,
        tolerance: float | None = None,
        mass: Tensor | None = None,
    ) -> PartialAttention:
        if tolerance is not None:
            check_tolerance(tolerance)
        if not self.n_tokens:
            return super().attend(q, scaling=scaling, static_lse=static_lse, softcap=softcap)
        self.check_query(q)
        heads, t, d = q.shape
        check_attend(self, q, scaling, softcap, static_lse, mass)
        n, groups = self.n_tokens, heads // self.n_kv_heads
        keys, values = (torch.cat(parts, 1).float() for parts in zip(*self.blocks(), strict=True))
        size = next(self.blocks())[0].element_size()
        out, lse = self.no_output(q), torch.full((heads, t), -torch.inf)
        coverage, exact, numbers = torch.zeros(heads, t), torch.zeros(self.n_kv_heads, t), 0
        for i in range(t):
            rows = q[:, i].float().view(self.n_kv_heads, groups, d)
            scores = rows @ keys.transpose(1, 2)
            chosen, read = self.choose(q[:, i].float(), scores.view(heads, n), keys)
            z = scores * scaling
            z = z if softcap is None else softcap * (z / softcap).tanh()
            masked = z.masked_fill(~chosen.view_as(z), -torch.inf)
            own, whole = masked.logsumexp(-1).view(heads), z.logsumexp(-1).view(heads)
            lse[:, i] = own
            weights = (masked - own.view(self.n_kv_heads, groups, 1).clamp(min=-1e30)).exp()
            out[:, i] = (weights @ values).view(heads, -1)
            beside = None if static_lse is None else static_lse[:, i].float()
            seen = own if beside is None else torch.logaddexp(own, beside)
            all_of_it = whole if beside is None else torch.logaddexp(whole, beside)
            coverage[:, i] = (seen - all_of_it).exp()
            if mass is not None:
                mass += (weights * (own - seen).exp().nan_to_num().view(self.n_kv_heads, groups, 1)).sum(1)
            union = chosen.view(self.n_kv_heads, groups, n).any(1)
            exact[:, i] = union.float().mean(1)
            numbers += read + int(union.sum()) * self.value_dim
        return PartialAttention(
            out, lse, Stats(exact, torch.zeros_like(exact), coverage, numbers * size, self.offloaded_bytes(t))
        )

    decode = Index.decode  # not flat's, which attends to all


@register("topk")
class TopKIndex(ChosenIndex):
    """The `config.top_k` tokens with the largest inner product, for each query head by itself."""

    step_settings = frozenset({"top_k"})
    free_search = True

    @classmethod
    def knob(cls, n_tokens: int, u: float) -> dict[str, Any]:
        return {"top_k": by_ratio(n_tokens, u)}

    def choose(self, q: Tensor, scores: Tensor, keys: Tensor) -> tuple[Tensor, int]:
        best = scores.topk(min(self.config.top_k, scores.shape[1]), -1).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True), keys.numel()


@register("pages")
class PagesIndex(ChosenIndex):
    """Pages of `config.page_size` tokens whose keys' bounds allow the largest inner product, until
    `config.top_k` tokens are reached, for each query head by itself."""

    step_settings = frozenset({"top_k", "page_size"})

    @classmethod
    def knob(cls, n_tokens: int, u: float) -> dict[str, Any]:
        return {"top_k": by_ratio(n_tokens, u)}

    def choose(self, q: Tensor, scores: Tensor, keys: Tensor) -> tuple[Tensor, int]:
        n, size = keys.shape[1], self.config.page_size
        missing = -n % size
        full = torch.cat([keys, keys[:, -1:].expand(-1, missing, -1)], 1) if missing else keys
        pages = full.view(keys.shape[0], -1, size, keys.shape[2])
        low, high = pages.amin(2), pages.amax(2)
        rows = q.view(keys.shape[0], -1, keys.shape[2])
        bound = rows.clamp(min=0) @ high.transpose(1, 2) + rows.clamp(max=0) @ low.transpose(1, 2)
        bound = bound.view(len(q), -1)
        best = bound.topk(min(-(-self.config.top_k // size), bound.shape[1]), -1).indices
        chosen = torch.zeros_like(bound, dtype=torch.bool).scatter_(1, best, True)
        # What is chosen is read whole, key and value; the choice itself reads two bounds a page.
        chosen = chosen.repeat_interleave(size, 1)[:, :n]
        union = chosen.view(keys.shape[0], -1, n).any(1)
        return chosen, low.numel() + high.numel() + int(union.sum()) * keys.shape[2]


@register("streaming")
class StreamingIndex(ChosenIndex):
    """No offloaded token at all, or the `config.newest`."""

    step_settings = frozenset({"newest"})

    @classmethod
    def knob(cls, n_tokens: int, u: float) -> dict[str, Any]:
        return {"newest": by_ratio(n_tokens, u)}

    def choose(self, q: Tensor, scores: Tensor, keys: Tensor) -> tuple[Tensor, int]:
        chosen = torch.zeros_like(scores, dtype=torch.bool)
        chosen[:, max(0, keys.shape[1] - self.config.newest) :] = True
        # One window for all: nothing is searched, keys and values of it are read.
        return chosen, int(chosen[0].sum()) * keys.shape[2] * len(keys)
