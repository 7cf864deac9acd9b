"""`flat`: exact attention over every offloaded token, streamed at memory speed. The reference, the fallback.

The work is done by `sakuin.index._native.flat_attend`; here is the chain of segments. Called through the
protocol of `sakuin.index.base`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from sakuin.attention.partial import PartialAttention, Stats
from sakuin.config import RetrievalConfig, check_tolerance
from sakuin.index import _native
from sakuin.index.base import Index, Static, StoredSegment, check_array
from sakuin.index.chain import one_ahead
from sakuin.index.checks import check_attend, check_crop, check_geometry, check_k, check_stored, stored_pair
from sakuin.index.choice import HeadShape
from sakuin.index.int8 import SCALES, Int8KV, floats_of, span_of
from sakuin.index.kind import register
from sakuin.index.sizes import Layout, pair_layout

_PENDING = 1 << 22
"""Scores of one KV head that `search` holds before it takes the best of them."""


@register("flat")
class FlatIndex(Index):
    """Exact attention over a chain of immutable segments.

    Neighbouring segments are joined while they fit into one of `config.segment_tokens(head_dim)` tokens, so
    that tokens which arrive a few at a time do not end in many short segments; in int8 only with one that is
    no longer than what is added, so that no key is rounded more than log2 times. `tolerance` has no effect:
    everything is exact, in int8 that which is stored.
    """

    storable = True
    stores_int8 = True
    scans_rows = True
    values_differ = True

    @classmethod
    def layout(cls, heads: HeadShape, n_tokens: int, config: RetrievalConfig, stored: str) -> Layout:
        return pair_layout(heads.n_kv_heads, n_tokens, heads.head_dim, stored, heads.value_dim)

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
        self._segments: list[_native.Span] = []
        self._n_tokens = self._nbytes = 0
        self._stats: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    @property
    def n_tokens(self) -> int:
        return self._n_tokens

    @property
    def nbytes(self) -> int:
        return self._nbytes

    @property
    def kv_bytes(self) -> int:
        return self._nbytes

    def append(self, keys: Tensor, values: Tensor, queries: Tensor | None = None) -> None:
        k, v = stored_pair(self, keys, values)
        n = k.shape[1]
        if n == 0:
            return
        while self._segments and self._joins(self._segments[-1], k):
            # New tensors: a fork goes on using the old ones.
            last = self._segments.pop()
            self._nbytes -= _stored_bytes(last)
            old_keys, old_values = floats_of(_fields(last))
            k, v = torch.cat([old_keys, k], 1), torch.cat([old_values, v], 1)
        span = Int8KV.of(k, v).span() if self.config.kv_dtype == "int8" else _native.Span(k, v)
        self._segments.append(span)
        self._n_tokens += n
        self._nbytes += _stored_bytes(span)

    def _joins(self, last: _native.Span, keys: Tensor) -> bool:
        if len(last) + keys.shape[1] > self.config.segment_tokens(self.head_dim):
            return False
        return len(last) <= keys.shape[1] if self.config.kv_dtype == "int8" else last.keys.dtype == keys.dtype

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
        if tolerance is not None:
            check_tolerance(tolerance)
        heads, t = q.shape[:2]
        if not self._segments:
            return PartialAttention(
                self.no_output(q),
                torch.full((heads, t), -torch.inf),
                self._stats_of(heads, t),
            )
        if static_lse is not None:
            static_lse = static_lse.float().contiguous()
        out, lse = _native.flat_attend(
            q,
            self._segments,
            scaling,
            torch.get_num_threads(),
            softcap=softcap,
            mass=mass,
            static_lse=static_lse,
        )
        return PartialAttention(out, lse, self._stats_of(heads, t))

    def decode(
        self,
        q: Tensor,
        static: Static,
        *,
        scaling: float,
        softcap: float | None = None,
        mass: Tensor | None = None,
    ) -> PartialAttention:
        self.check_query(q)
        spans: list[_native.Span | tuple[Tensor, Tensor]] = [
            (static.sink_keys, static.sink_values),
            *self._segments,
            (static.recent_keys, static.recent_values),
        ]
        s_aux = static.s_aux
        if s_aux is not None:
            s_aux = s_aux.float().contiguous()
        out, lse = _native.flat_attend(
            q,
            spans,
            scaling,
            torch.get_num_threads(),
            causal=True,
            s_aux=s_aux,
            softcap=softcap,
            mass=mass,
        )
        return PartialAttention(out, lse, self._stats_of(q.shape[0], q.shape[1]))

    def search(self, q: Tensor, k: int) -> tuple[Tensor, Tensor]:
        self.check_query(q)
        k = check_k(k, self._n_tokens)
        heads, t = q.shape[:2]
        rows = q.float().reshape(self.n_kv_heads, -1, self.head_dim)
        scores, ids, pending, first, held = [], [], [], 0, 0
        for i, span in enumerate(self._segments):
            pending.append(_products(rows, floats_of(_fields(span))[0].float()))
            held += len(span)
            # The best of many segments at once: each time costs more than the products of one segment.
            if held * rows.shape[1] >= _PENDING or i + 1 == len(self._segments):
                top = torch.cat(pending, -1).topk(min(k, held), -1)
                scores.append(top.values)
                ids.append(top.indices + first)
                pending, first, held = [], first + held, 0
        best = torch.cat(scores, -1).topk(k, -1)
        return best.values.view(heads, t, k), torch.cat(ids, -1).gather(-1, best.indices).view(heads, t, k)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for fields in one_ahead([_fields(span) for span in self._segments], self.config):
            yield floats_of(fields)

    def stored(self) -> list[StoredSegment]:
        return [StoredSegment(self.kind, len(span), _fields(span)) for span in self._segments]

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, segments: Sequence[StoredSegment], state: Mapping[str, Tensor] | None = None) -> None:
        spans = [self._span_of(stored.tensors) for stored in segments]
        self._segments = spans
        self._n_tokens = sum(len(span) for span in spans)
        self._nbytes = sum(_stored_bytes(span) for span in spans)

    def replace(self, i: int, tensors: Mapping[str, Tensor]) -> None:
        self._segments[i] = self._span_of(tensors)

    def _span_of(self, tensors: Mapping[str, Tensor]) -> _native.Span:
        check_stored(self, tensors)
        return span_of(tensors)

    def crop(self, n_tokens: int) -> tuple[Tensor, Tensor]:
        check_crop(n_tokens, self._n_tokens)
        at = 0
        for i, span in enumerate(self._segments):
            if at + len(span) > n_tokens:
                self._nbytes -= sum(_stored_bytes(dropped) for dropped in self._segments[i:])
                del self._segments[i:]
                self._n_tokens = at
                keys, values = floats_of(_fields(span))
                return keys[:, : n_tokens - at], values[:, : n_tokens - at]
            at += len(span)
        dtype = floats_of(_fields(self._segments[-1]))[0].dtype if self._segments else torch.float32
        return self.no_pair(dtype)

    def fork(self) -> FlatIndex:
        other = type(self)(
            self.n_kv_heads, self.head_dim, self.group_size, self.config, value_dim=self.value_dim
        )
        other._segments, other._stats = list(self._segments), self._stats
        other._n_tokens, other._nbytes = self._n_tokens, self._nbytes
        return other

    def check_query(self, q: Tensor) -> None:
        check_array("q", q, None, self.head_dim)
        if q.shape[0] == 0 or q.shape[0] % self.n_kv_heads:
            raise ValueError(
                f"q must have a multiple of the index's {self.n_kv_heads} heads, got shape {tuple(q.shape)}"
            )

    def _stats_of(self, heads: int, t: int) -> Stats:
        # The shares are the same at every step; made once, they cost a step nothing.
        if (heads, t) not in self._stats:
            ones, zeros = torch.ones(self.n_kv_heads, t), torch.zeros(self.n_kv_heads, t)
            self._stats[heads, t] = (ones, zeros, torch.ones(heads, t), torch.zeros(heads, t))
        exact, codes, coverage, error = self._stats[heads, t]
        return Stats(exact, codes, coverage, self._nbytes * t, self.offloaded_bytes(t), error)


def _products(q: Tensor, keys: Tensor) -> Tensor:
    """Inner products fp32 `(n_kv_heads, rows, n)`; those beyond its range end at its largest number, and
    those of what is no number at its least."""
    found = q @ keys.transpose(1, 2)
    if torch.isfinite(found.sum()) or torch.isfinite(found).all():
        return found
    largest = torch.finfo(torch.float32).max
    exact = (q.double() @ keys.double().transpose(1, 2)).clamp(-largest, largest)
    return exact.nan_to_num(nan=-largest).float()


def _fields(span: _native.Span) -> dict[str, Tensor]:
    held = {name: getattr(span, name) for name in ("keys", "values", *SCALES)}
    return {name: x for name, x in held.items() if x is not None}


def _stored_bytes(span: _native.Span) -> int:
    return sum(x.nbytes for x in _fields(span).values())
