"""`flat`: exact attention over every offloaded token, streamed at memory speed. The reference and the fallback."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sakuin.config import RetrievalConfig
from sakuin.index.base import Index, Static, register
from sakuin.partial import PartialAttention, Stats, merge


@register("flat")
class FlatIndex(Index):
    """PLACEHOLDER in plain torch while the native core is being written; same behaviour, slow."""

    def __init__(self, n_kv_heads: int, head_dim: int, group_size: int, config: RetrievalConfig) -> None:
        self.n_kv_heads, self.head_dim, self.group_size, self.config = n_kv_heads, head_dim, group_size, config
        self._segments: list[tuple[Tensor, Tensor]] = []

    @property
    def n_tokens(self) -> int:
        return sum(k.shape[1] for k, _ in self._segments)

    @property
    def nbytes(self) -> int:
        return sum(k.nbytes + v.nbytes for k, v in self._segments)

    def append(self, keys: Tensor, values: Tensor, queries: Tensor | None = None) -> None:
        self._segments.append((keys.contiguous().clone(), values.contiguous().clone()))

    def _part(self, q: Tensor, k: Tensor, v: Tensor, scaling: float, softcap: float | None, hidden: Tensor | None = None) -> tuple[PartialAttention, Tensor]:
        k = k.float().repeat_interleave(self.group_size, 0)
        v = v.float().repeat_interleave(self.group_size, 0)
        z = q.float() @ k.transpose(1, 2) * scaling
        if softcap is not None:
            z = softcap * torch.tanh(z / softcap)
        if hidden is not None:
            z = z.masked_fill(hidden, -torch.inf)
        lse = z.logsumexp(-1)
        w = (z - lse.masked_fill(lse == -torch.inf, 0)[..., None]).exp()
        return PartialAttention(w @ v, lse), z

    def _all(self, z: Tensor) -> Stats:
        t = z.shape[1]
        n = self.n_tokens * self.n_kv_heads * self.head_dim * 2
        return Stats(torch.ones(self.n_kv_heads, t), torch.zeros(self.n_kv_heads, t), torch.ones(z.shape[:2]), n * 2 * t, n * 2 * t)

    def attend(self, q: Tensor, *, scaling: float, static_lse: Tensor | None = None, softcap: float | None = None, tolerance: float | None = None, mass: Tensor | None = None) -> PartialAttention:
        if not self._segments:
            return PartialAttention(torch.zeros(q.shape), torch.full(q.shape[:2], -torch.inf), self._all(q))
        parts = [self._part(q, k, v, scaling, softcap) for k, v in self._segments]
        out = merge([p for p, _ in parts])
        if mass is not None:
            lse = out.lse if static_lse is None else torch.logaddexp(out.lse, static_lse)
            w = (torch.cat([z for _, z in parts], -1) - lse[..., None]).exp().sum(1)
            mass += w.view(self.n_kv_heads, self.group_size, -1).sum(1)
        out.stats = self._all(q)
        return out

    def decode(self, q: Tensor, static: Static, *, scaling: float, softcap: float | None = None, mass: Tensor | None = None) -> PartialAttention:
        s, r, t = static.sink_keys.shape[1], static.recent_keys.shape[1], q.shape[1]
        hidden = torch.arange(s + r)[None, :] > (s + r - t + torch.arange(t))[:, None]
        k, v = torch.cat([static.sink_keys, static.recent_keys], 1), torch.cat([static.sink_values, static.recent_values], 1)
        part, z = self._part(q, k, v, scaling, softcap, hidden)
        if static.s_aux is not None:
            aux = static.s_aux.float()[:, None].expand(-1, t)
            part = merge([part, PartialAttention(torch.zeros_like(part.out), aux)])
        inner = None if mass is None else mass[:, s : s + self.n_tokens]
        index = self.attend(q, scaling=scaling, static_lse=part.lse, softcap=softcap, mass=inner)
        out = merge([part, index])
        out.stats = index.stats
        if mass is not None:
            w = (z - out.lse[..., None]).exp().sum(1).view(self.n_kv_heads, self.group_size, -1).sum(1)
            mass[:, :s] += w[:, :s]
            mass[:, s + self.n_tokens :] += w[:, s:]
        return out

    def search(self, q: Tensor, k: int) -> tuple[Tensor, Tensor]:
        keys = torch.cat([k for k, _ in self._segments], 1).float().repeat_interleave(self.group_size, 0)
        top = (q.float() @ keys.transpose(1, 2)).topk(k, -1)
        return top.values, top.indices

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self._segments

    def crop(self, n_tokens: int) -> tuple[Tensor, Tensor]:
        at = 0
        for i, (k, v) in enumerate(self._segments):
            if at + k.shape[1] > n_tokens:
                del self._segments[i:]
                return k[:, : n_tokens - at], v[:, : n_tokens - at]
            at += k.shape[1]
        empty = torch.empty(self.n_kv_heads, 0, self.head_dim)
        return empty, empty

    def fork(self) -> FlatIndex:
        other = FlatIndex(self.n_kv_heads, self.head_dim, self.group_size, self.config)
        other._segments = list(self._segments)
        return other
