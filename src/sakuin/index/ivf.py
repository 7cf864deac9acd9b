"""`ivf`: keys in lists by k-means, the lists with the best centroids attended exactly, the others estimated
or dropped. The baseline of RetrievalAttention (arXiv 2409.10516), first-class: lists are read straight from
memory, and what is not probed still counts.

This file is the chain of sealed segments and the calls into the native core (native/index/ivf/ivf.hpp).
Called through the protocol of `sakuin.index.base`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sakuin.attention.partial import PartialAttention, Stats
from sakuin.config import RetrievalConfig, check_tolerance, count_of
from sakuin.index import _native
from sakuin.index.base import Index, StoredSegment
from sakuin.index.chain import in_order, one_ahead, whole_within
from sakuin.index.checks import check_attend, check_crop, check_geometry, check_k, check_stored, stored_pair
from sakuin.index.choice import HeadShape
from sakuin.index.kind import by_ratio, register
from sakuin.index.sizes import Layout, pair_layout

LARGEST = 16384
"""Tokens up to which the newest segment grows, unless `segment` is larger: lists found among many tokens are
better ones, and k-means takes longer with the square of their number."""
GROWTH = 1.5
"""A segment takes new tokens into its lists, and new lists beside them, until it is so many times as large as
when all its lists were found; then they are found anew."""
ROUNDS = 5
"""Of Lloyd's algorithm."""
_KEY_LIMIT = 1e15
_CLUSTERED = "clustered"


@register("ivf")
class IvfIndex(Index):
    """Offloaded tokens in a chain of segments, each with lists of its own for every KV head.

    Each query head probes the lists with the largest inner product of query and centroid, `nprobe` of them or
    as many as hold `budget` tokens; the query heads of a group attend exactly what any of them probes. All
    other lists count as one token each, with the list's centroid, its mean value and its number of tokens, or
    not at all (`estimate_rest=False`, the paper's setting). A tolerance of 0 probes every list; otherwise it
    has no effect.

    `search` looks into the lists that `attend` would probe, and into more where these hold fewer than k
    tokens. `Stats.coverage` takes the estimate of the other lists for their share, whether it is used or not.
    """

    storable = True
    values_differ = True
    peer = True
    segment_settings = frozenset({"list_size"})
    step_settings = frozenset({"tolerance", "budget", "nprobe", "estimate_rest"})

    @classmethod
    def layout(cls, heads: HeadShape, n_tokens: int, config: RetrievalConfig, stored: str) -> Layout:
        pair = pair_layout(heads.n_kv_heads, n_tokens, heads.head_dim, stored, heads.value_dim)
        lists = _lists_of(n_tokens, heads, -(-n_tokens // config.list_size))
        return {**pair, **lists, _CLUSTERED: ((1,), torch.int64)}

    @classmethod
    def longest_segment(cls, head_dim: int, config: RetrievalConfig) -> int:
        return max(config.segment_tokens(head_dim), LARGEST)

    @classmethod
    def knob(cls, n_tokens: int, u: float) -> dict[str, Any]:
        return {"budget": by_ratio(n_tokens, u)}

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
        # Replaced as a whole, never changed: a fork or a step in another thread keeps what it took.
        self._segments: list[_native.IvfSegment] = []
        self._clustered: list[int] = []  # tokens of each segment when its lists were last found

    @property
    def n_tokens(self) -> int:
        return sum(len(segment) for segment in self._segments)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for segment in self._segments for tensor in segment.fields.values())

    @property
    def segments(self) -> list[_native.IvfSegment]:
        """The sealed segments, the oldest first."""
        return list(self._segments)

    # --- growing --------------------------------------------------------------------------------------------

    def append(self, keys: Tensor, values: Tensor, queries: Tensor | None = None) -> None:
        keys, values = stored_pair(self, keys, values)
        n = keys.shape[1]
        if n == 0:
            return
        if float(keys.abs().amax()) > _KEY_LIMIT:
            raise ValueError(
                f"the keys are too large for the ivf index (beyond {_KEY_LIMIT:g}); use index='flat' for them"
            )
        size = self.longest_segment(self.head_dim, self.config)
        segments, clustered = list(self._segments), list(self._clustered)
        for start in range(0, n, size):
            new = keys[:, start : start + size], values[:, start : start + size]
            if not segments or len(segments[-1]) + new[0].shape[1] > size:
                segments.append(self._seal(*new))
                clustered.append(len(segments[-1]))
            elif len(segments[-1]) + new[0].shape[1] <= GROWTH * clustered[-1]:
                segments[-1] = self._seal(*new, segments[-1])
            else:
                old = in_order(segments[-1].fields)
                segments[-1] = self._seal(torch.cat([old[0], new[0]], 1), torch.cat([old[1], new[1]], 1))
                clustered[-1] = len(segments[-1])
        self._segments, self._clustered = segments, clustered

    def _seal(
        self, keys: Tensor, values: Tensor, base: _native.IvfSegment | None = None
    ) -> _native.IvfSegment:
        """A segment of these tokens, in new lists; after those of `base`, if there is one."""
        heads, n, _ = keys.shape
        lists = -(-n // self.config.list_size)
        if base is not None:
            n, lists = n + len(base), lists + base.lists
        keys, values = keys.contiguous(), values.contiguous()
        fields = {
            "keys": torch.empty(heads, n, self.head_dim, dtype=keys.dtype),
            "values": torch.empty(heads, n, self.value_dim, dtype=values.dtype),
        }
        for name, (shape, dtype) in _lists_of(n, self.heads, lists).items():
            fields[name] = torch.empty(*shape, dtype=dtype)
        return _native.ivf_seal(
            fields, keys, values, iterations=ROUNDS, n_threads=torch.get_num_threads(), base=base
        )

    def crop(self, n_tokens: int) -> tuple[Tensor, Tensor]:
        check_crop(n_tokens, self.n_tokens)
        kept, at = whole_within(self._segments, n_tokens)
        if kept == len(self._segments):
            dtype = self._segments[-1].fields["keys"].dtype if self._segments else torch.float32
            return self.no_pair(dtype)
        keys, values = in_order(self._segments[kept].fields)
        self._segments, self._clustered = self._segments[:kept], self._clustered[:kept]
        return keys[:, : n_tokens - at], values[:, : n_tokens - at]

    def fork(self) -> IvfIndex:
        other = IvfIndex(
            self.n_kv_heads, self.head_dim, self.group_size, self.config, value_dim=self.value_dim
        )
        other._segments, other._clustered = self._segments, self._clustered
        return other

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for fields in one_ahead([segment.fields for segment in self._segments], self.config):
            yield fields["keys"], fields["values"]

    def stored(self) -> list[StoredSegment]:
        return [
            StoredSegment(self.kind, len(segment), segment.fields | {_CLUSTERED: torch.tensor([clustered])})
            for segment, clustered in zip(self._segments, self._clustered, strict=True)
        ]

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, segments: Sequence[StoredSegment], state: Mapping[str, Tensor] | None = None) -> None:
        taken, clustered = [], []
        for stored in segments:
            taken.append(self._segment_of(stored.tensors))
            clustered.append(int(stored.tensors[_CLUSTERED]))
        self._segments, self._clustered = taken, clustered

    def replace(self, i: int, tensors: Mapping[str, Tensor]) -> None:
        segments = list(self._segments)
        segments[i] = self._segment_of(tensors)
        self._segments = segments

    def _segment_of(self, tensors: Mapping[str, Tensor]) -> _native.IvfSegment:
        check_stored(self, tensors)
        return _native.IvfSegment({name: x for name, x in tensors.items() if name != _CLUSTERED})

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
        if not self._segments:
            return self.seen_nothing(q)
        if static_lse is not None:
            static_lse = static_lse.float().contiguous()
        probes, budget = self._limits(tolerance)
        out, lse, coverage, exact, touched = _native.ivf_attend(
            q,
            self._segments,
            scaling,
            torch.get_num_threads(),
            probes=probes,
            budget=budget,
            estimate_rest=self.config.estimate_rest,
            static_lse=static_lse,
            softcap=softcap,
            mass=mass,
        )
        return PartialAttention(
            out,
            lse,
            Stats(exact, torch.zeros_like(exact), coverage, touched, self.offloaded_bytes(q.shape[1])),
        )

    def search(self, q: Tensor, k: int) -> tuple[Tensor, Tensor]:
        self.check_query(q)
        n = self.n_tokens
        k = check_k(k, n)
        scores, ids = torch.empty(*q.shape[:2], k), torch.empty(*q.shape[:2], k, dtype=torch.int64)
        probes, budget = self._limits(self.config.tolerance)
        _native.ivf_search(
            q,
            self._segments,
            torch.get_num_threads(),
            probes=probes,
            budget=budget,
            scores=scores,
            ids=ids,
        )
        return scores, ids

    def _limits(self, tolerance: float) -> tuple[int, int]:
        """Lists that a query head probes, or 0 and the tokens that these hold."""
        lists = sum(segment.lists for segment in self._segments)
        if tolerance == 0:
            return lists, 0
        if self.config.nprobe is not None:
            return count_of(self.config.nprobe, lists), 0
        return 0, count_of(self.config.budget, self.n_tokens)


def _lists_of(n: int, shape: HeadShape, lists: int) -> Layout:
    """What a segment of n tokens holds beside keys and values."""
    heads, d = shape.n_kv_heads, shape.head_dim
    bits = torch.uint16  # those of bf16 numbers
    return {
        "order": ((heads, n), torch.int32),
        "start": ((heads, lists + 1), torch.int32),
        "mean": ((heads, d), torch.float32),
        "centroid": ((heads, lists, d), bits),
        "mean_value": ((heads, lists, shape.value_dim), bits),
        "spread": ((heads, d, d), bits),
    }
