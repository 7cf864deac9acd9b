"""`graph`: keys linked where they answer the same queries, and walked towards those with the largest inner
product. RetrievalAttention's own index (arXiv 2409.10516), after RoarGraph (arXiv 2408.08933).

One graph for each KV head, built from sampled queries of its group, serves all of them; it grows by
`append`. Links and walks are native (native/index/graph/); here are the arrays that grow, and the
coordinates in which keys are compared with each other. docs/ivf-and-graph.md says what was measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sakuin.attention.partial import PartialAttention, Stats
from sakuin.config import RetrievalConfig, check_tolerance, count_of
from sakuin.index import _native
from sakuin.index.base import Index
from sakuin.index.checks import check_attend, check_crop, check_geometry, check_k, stored_pair
from sakuin.index.choice import HeadShape
from sakuin.index.growing_rows import GrowingRows
from sakuin.index.kind import by_ratio, register
from sakuin.index.query_moment import QueryMoment
from sakuin.index.sizes import Layout, pair_layout

COORDINATES = 16
"""Numbers by which two keys are compared, the leading coordinates of a key as the queries weigh it."""
RUN = 64
"""Neighbouring tokens whose mean key and value stand for those that are not attended."""
LIST_SHARE = 4
"""Of the sampled queries, at most one for every so many new tokens has its answers linked."""
_LARGEST = 8191
_SAMPLE = 16384
_CHUNK = 16384


@register("graph")
class GraphIndex(Index):
    """A graph over the keys of each KV head.

    `search` and `attend` walk it with a queue of `config.ef` keys. Each query head attends the
    `config.budget` best tokens (at most `config.ef`) that its walk finds, and those of the other heads of its
    group; the others are estimated by the means of runs of 64 tokens, or left out if `config.estimate_rest`
    is false.
    `tolerance=0` attends exactly to everything; other tolerances change nothing. Without queries the keys
    themselves stand for them.
    """

    values_differ = True
    peer = True
    segment_settings = frozenset({"graph_degree"})
    step_settings = frozenset({"tolerance", "budget", "ef", "estimate_rest"})

    @classmethod
    def layout(cls, heads: HeadShape, n_tokens: int, config: RetrievalConfig, stored: str) -> Layout:
        h, n = heads.n_kv_heads, n_tokens
        pair = pair_layout(h, n, heads.head_dim, stored, heads.value_dim)
        runs, dtype = -(-n // RUN), pair["keys"][1]
        return {
            **pair,
            "links": ((h, n, config.graph_degree), torch.int32),
            "count": ((h, n), torch.uint8),
            "children": ((h, n), torch.uint8),
            "coordinates": ((h, n, COORDINATES), torch.int16),
            "mean_keys": ((h, runs, heads.head_dim), dtype),
            "mean_values": ((h, runs, heads.value_dim), dtype),
        }

    @classmethod
    def longest_segment(cls, head_dim: int, config: RetrievalConfig) -> None:
        return None

    @classmethod
    def knob(cls, n_tokens: int, u: float) -> dict[str, Any]:
        # A walk looks at no more keys than it needs for what is attended: its queue is as long as the budget.
        return {"budget": by_ratio(n_tokens, u), "ef": by_ratio(n_tokens, u)}

    def __init__(
        self,
        n_kv_heads: int,
        head_dim: int,
        group_size: int,
        config: RetrievalConfig,
        *,
        value_dim: int | None = None,
    ) -> None:
        check_geometry(n_kv_heads, head_dim, group_size, value_dim)
        super().__init__(n_kv_heads, head_dim, group_size, config, value_dim=value_dim)
        self._graph = _native.Graph(n_kv_heads, head_dim, config.graph_degree)
        self._keys: GrowingRows | None = None
        self._values: GrowingRows | None = None
        self._coordinates = GrowingRows(n_kv_heads, COORDINATES, torch.int16)
        self._means: tuple[Tensor, Tensor] | None = None
        self._moment = QueryMoment(n_kv_heads, head_dim)
        self._frame: _Frame | None = None

    @property
    def n_tokens(self) -> int:
        return len(self._graph)

    @property
    def nbytes(self) -> int:
        if self._keys is None or self._values is None or self._means is None:
            return 0
        rows = self._keys.first(self.n_tokens).nbytes + self._values.first(self.n_tokens).nbytes
        means = sum(x.nbytes for x in self._means)
        return rows + means + self._coordinates.first(self.n_tokens).nbytes + self._graph.nbytes

    # --- growing --------------------------------------------------------------------------------------------

    def append(self, keys: Tensor, values: Tensor, queries: Tensor | None = None) -> None:
        if queries is not None:
            self.check_query(queries)
        k, v = stored_pair(self, keys, values)
        if k.dtype != v.dtype:
            raise ValueError(f"keys and values must have one dtype, got {k.dtype} and {v.dtype}; convert one")
        if self._keys is not None and k.dtype != self._keys.dtype:
            raise ValueError(
                f"keys are {k.dtype}, but the index holds {self._keys.dtype}; convert them, or say how to "
                "store them with kv_dtype"
            )
        old, n = self.n_tokens, self.n_tokens + k.shape[1]
        if n == old:
            return
        moment = self._moment.copy()
        if queries is not None and queries.shape[1] > 0:
            moment.add(queries)
        all_keys = (self._keys or GrowingRows(self.n_kv_heads, self.head_dim, k.dtype)).extended(old, k)
        all_values = (self._values or GrowingRows(self.n_kv_heads, self.value_dim, k.dtype)).extended(old, v)
        frame, coordinates = self._frame, self._coordinates
        if frame is None or n >= 2 * frame.n_tokens:
            # The queries seen so far say better what matters than those of the beginning.
            frame = _Frame(all_keys.first(n), moment)
            coordinates = GrowingRows(self.n_kv_heads, COORDINATES, torch.int16)
            coordinates = coordinates.extended(0, frame.place(all_keys.first(n)))
        else:
            coordinates = coordinates.extended(old, frame.place(k))
        graph = self._graph.append(
            all_keys.first(n),
            coordinates.first(n),
            self._sampled(queries, k, moment),
            torch.get_num_threads(),
            renew=frame is not self._frame,
        )
        self._means = (
            _grown(self._means, 0, all_keys.first(n), old),
            _grown(self._means, 1, all_values.first(n), old),
        )
        self._keys, self._values, self._coordinates = all_keys, all_values, coordinates
        self._moment, self._frame, self._graph = moment, frame, graph

    def _sampled(self, queries: Tensor | None, keys: Tensor, moment: QueryMoment) -> Tensor | None:
        """Queries fp32 `(n_kv_heads, m, head_dim)` whose answers are linked: evenly spread over positions,
        all heads of a group among them; some of the new keys where no queries were ever seen."""
        most = max(1, keys.shape[1] // LIST_SHARE)
        if queries is None or queries.shape[1] == 0:
            return None if moment.count else keys[:, ::LIST_SHARE].float().contiguous()
        m = queries.shape[1]
        grouped = (
            queries.view(self.n_kv_heads, -1, m, self.head_dim)
            .transpose(1, 2)
            .reshape(self.n_kv_heads, -1, self.head_dim)
        )
        total = grouped.shape[1]
        if total > most:
            grouped = grouped[:, torch.arange(most) * total // most]
        return grouped.float().contiguous()

    def crop(self, n_tokens: int) -> tuple[Tensor, Tensor]:
        """As `Index.crop`; every number of tokens can be kept, so that none are handed back."""
        check_crop(n_tokens, self.n_tokens)
        dtype = torch.float32 if self._keys is None else self._keys.dtype
        if n_tokens < self.n_tokens:
            assert self._keys is not None
            assert self._values is not None
            self._graph = self._graph.crop(n_tokens)
            self._means = (
                _grown(self._means, 0, self._keys.first(n_tokens), n_tokens),
                _grown(self._means, 1, self._values.first(n_tokens), n_tokens),
            )
        return self.no_pair(dtype)

    def fork(self) -> GraphIndex:
        other = GraphIndex(
            self.n_kv_heads, self.head_dim, self.group_size, self.config, value_dim=self.value_dim
        )
        other._graph, other._keys, other._values = self._graph, self._keys, self._values
        other._coordinates, other._means = self._coordinates, self._means
        other._moment, other._frame = self._moment.copy(), self._frame
        return other

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._keys is not None and self._values is not None and self.n_tokens:
            yield self._keys.first(self.n_tokens), self._values.first(self.n_tokens)

    # --- attending ------------------------------------------------------------------------------------------

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
        self.check_query(q)
        check_attend(self, q, scaling, softcap, static_lse, mass)
        tolerance = self.config.tolerance if tolerance is None else check_tolerance(tolerance)
        n = self.n_tokens
        if self._keys is None or self._values is None or self._means is None or n == 0:
            return self.seen_nothing(q)
        if static_lse is not None:
            static_lse = static_lse.float().contiguous()
        budget = count_of(self.config.budget, n)
        budget = n if tolerance == 0 or budget >= n else min(budget, self.config.ef)
        out, lse, coverage, exact, touched = self._graph.attend(
            q,
            self._keys.first(n),
            self._values.first(n),
            *self._means,
            scaling=scaling,
            budget=budget,
            ef=self.config.ef,
            estimate_rest=self.config.estimate_rest,
            n_threads=torch.get_num_threads(),
            static_lse=static_lse,
            softcap=softcap,
            mass=mass,
        )
        stats = Stats(exact, torch.zeros_like(exact), coverage, touched, self.offloaded_bytes(q.shape[1]))
        return PartialAttention(out, lse, stats)

    def search(self, q: Tensor, k: int) -> tuple[Tensor, Tensor]:
        scores, ids, _ = self.walk(q, k)
        return scores, ids

    def walk(self, q: Tensor, k: int, ef: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """As `search` with a queue of `ef` keys instead of `config.ef`, and what it cost: of how many keys
        the inner product was computed, int64 `(n_query_heads, t)`."""
        self.check_query(q)
        n = self.n_tokens
        k = check_k(k, n)
        assert self._keys is not None
        scores, ids, scanned, _ = self._graph.search(
            q,
            self._keys.first(n),
            k,
            ef=self.config.ef if ef is None else ef,
            n_threads=torch.get_num_threads(),
        )
        return scores, ids, scanned


class _Frame:
    """Coordinates of keys as whole numbers: the distance of two keys in them is about how far their inner
    products with the queries lie apart."""

    def __init__(self, keys: Tensor, moment: QueryMoment) -> None:
        self.n_tokens = keys.shape[1]
        sample = keys[:, :: -(-self.n_tokens // _SAMPLE)].double()
        self.mean = sample.mean(1, keepdim=True)
        root = moment.root()
        x = (sample - self.mean) @ root
        strength, vectors = torch.linalg.eigh(x.transpose(1, 2) @ x / sample.shape[1])
        kept = min(COORDINATES, keys.shape[2])
        # Eight standard deviations of the leading coordinate fit; what lies beyond counts as lying there.
        largest = 8 * strength[:, -1].clamp(min=0).sqrt()
        scale = torch.where(largest > 0, _LARGEST / largest, 0.0).nan_to_num(0.0, 0.0, 0.0)
        self.basis = torch.zeros(keys.shape[0], keys.shape[2], COORDINATES, dtype=torch.float64)
        self.basis[:, :, :kept] = (root @ vectors.flip(-1)[:, :, :kept]) * scale[:, None, None]

    def place(self, keys: Tensor) -> Tensor:
        """Coordinates int16 `(n_kv_heads, n, 16)` of keys `(n_kv_heads, n, head_dim)`."""
        parts = []
        for start in range(0, keys.shape[1], _CHUNK):
            numbers = (keys[:, start : start + _CHUNK].double() - self.mean) @ self.basis
            parts.append(numbers.nan_to_num().clamp(-_LARGEST, _LARGEST).round().to(torch.int16))
        return torch.cat(parts, 1)


def _grown(means: tuple[Tensor, Tensor] | None, which: int, rows: Tensor, same: int) -> Tensor:
    """Means of each run of `rows` `(n_kv_heads, n, head_dim)`, of which the first `same` are those that the
    old `means` were made of."""
    whole = 0 if means is None else same // RUN
    parts = [] if means is None else [means[which][:, :whole]]
    full = rows.shape[1] // RUN
    heads, _, d = rows.shape
    if full > whole:
        parts.append(
            rows[:, whole * RUN : full * RUN]
            .view(heads, -1, RUN, d)
            .mean(2, dtype=torch.float32)
            .to(rows.dtype)
        )
    if rows.shape[1] > full * RUN:
        parts.append(rows[:, full * RUN :].mean(1, keepdim=True, dtype=torch.float32).to(rows.dtype))
    return torch.cat(parts, 1) if parts else rows[:, :0]
