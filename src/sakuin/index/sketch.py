"""`sketch`, the default index: a few bits of every key are read at each step, and precision follows weight
(docs/method.md).

This file is the chain of sealed segments and the calls into the native core; sealing one segment is
`sakuin.index.sketch_seal`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sakuin.attention.partial import EXACT, PartialAttention, Stats, Trace
from sakuin.config import RetrievalConfig, check_count_or_share, check_tolerance, count_of
from sakuin.index import _native
from sakuin.index.base import Index, Pair, Static, StoredSegment
from sakuin.index.chain import in_order, on_disk, one_ahead, whole_within
from sakuin.index.checks import check_attend, check_crop, check_geometry, check_k, check_stored, stored_pair
from sakuin.index.choice import HeadShape
from sakuin.index.int8 import SCALES, floats_of, span_of
from sakuin.index.kind import register
from sakuin.index.query_moment import QueryMoment
from sakuin.index.sizes import Layout, pair_layout
from sakuin.index.sketch_seal import Basis, made_by_sealing, seal

_OWN_BASIS = 4
"""A segment of fewer than this many tokens per dimension takes its predecessor's basis, unless it is as long
as segments get."""

_REFERENCE = 8192
"""Offloaded tokens up to which `exact_share` is in units of 1 / tokens; beyond, 1 / sqrt(8192 * tokens)."""
_SHORT = 4096
"""Offloaded tokens below which thresholds are finer, down to a quarter: a mean over fewer tokens says less
of the rest, so that single steps would come out worse."""

_CANDIDATES = 0.08
"""The share of the tokens that `search` scores from codes."""

_REFINED = 128
"""`search` scores 2 k keys and so many more exactly."""

_OF_MOMENT = ("moment", "moment_count")


@register("sketch")
class SketchIndex(Index):
    """Offloaded tokens in a chain of segments, each with a basis, sketches, codes and value summaries of its
    own."""

    storable = True
    stores_int8 = True
    values_differ = True
    segment_settings = frozenset({"sketch_bits", "code_bits"})
    step_settings = frozenset(
        {"tolerance", "target_error", "rescore_share", "codes_share", "exact_share", "reach", "cap"}
    )
    rows = ("keys", "values", "value_scale", "codes", "value_codes", "value_params")

    @classmethod
    def layout(cls, heads: HeadShape, n_tokens: int, config: RetrievalConfig, stored: str) -> Layout:
        h, d = heads.n_kv_heads, heads.head_dim
        return {
            **pair_layout(h, n_tokens, d, stored, heads.value_dim),
            **made_by_sealing(heads, n_tokens, config),
            "mean": ((h, d), torch.float32),
            "basis": ((h, d, d), torch.uint16),
            "weight": ((h, d), torch.float32),
            "moment": ((h, d, d), torch.float32),
            "moment_count": ((1,), torch.int64),
        }

    @classmethod
    def knob(cls, n_tokens: int, u: float) -> dict[str, Any]:
        return {"tolerance": 10 ** (4 - 8 * u)}

    def __init__(
        self,
        n_kv_heads: int,
        head_dim: int,
        group_size: int,
        config: RetrievalConfig,
        moment: QueryMoment | None = None,
        *,
        value_dim: int | None = None,
    ) -> None:
        check_geometry(n_kv_heads, head_dim, group_size, value_dim)
        super().__init__(n_kv_heads, head_dim, group_size, config, value_dim=value_dim)
        # Replaced as a whole, never changed: a fork or a step in another thread keeps what it took.
        self._segments: list[_native.SketchSegment] = []
        self._bases: list[Basis] = []
        self._moments: list[dict[str, Tensor]] = []  # at each segment's end, to go on from there
        # Of queries that were seen before the first token was sealed, where `sakuin.index.auto` has some.
        self._moment = QueryMoment(n_kv_heads, head_dim) if moment is None else moment

    @property
    def n_tokens(self) -> int:
        return sum(len(segment) for segment in self._segments)

    @property
    def nbytes(self) -> int:
        # A small segment shares its predecessor's basis.
        tensors = [x for segment in self._segments for x in segment.fields.values()]
        tensors += [x for moment in self._moments for x in moment.values()]
        held = {tensor.data_ptr(): tensor.nbytes for tensor in tensors}
        return sum(held.values())

    @property
    def kv_bytes(self) -> int:
        fields = [segment.fields for segment in self._segments]
        return sum(f[name].nbytes for f in fields for name in ("keys", "values", *SCALES) if name in f)

    @property
    def segments(self) -> list[_native.SketchSegment]:
        """The sealed segments, the oldest first."""
        return list(self._segments)

    # --- growing --------------------------------------------------------------------------------------------

    def append(self, keys: Tensor, values: Tensor, queries: Tensor | None = None) -> None:
        if queries is not None:
            self.check_query(queries)
        keys, values = stored_pair(self, keys, values)
        n, size = keys.shape[1], self.config.segment_tokens(self.head_dim)
        if n == 0:
            return
        segments, bases, moment = list(self._segments), list(self._bases), self._moment.copy()
        moments = list(self._moments)
        m = 0 if queries is None else queries.shape[1]
        for start in range(0, n, size):
            end = min(start + size, n)
            if queries is not None and m > 0:
                moment.add(queries[:, start * m // n : end * m // n])
            new_keys, new_values = keys[:, start:end], values[:, start:end]
            # Small neighbours become one segment, the way digits carry: each token is sealed again log2 times
            # at most.
            while (
                segments
                and len(segments[-1]) <= new_keys.shape[1]
                and len(segments[-1]) + new_keys.shape[1] <= size
            ):
                old_keys, old_values = in_order(segments.pop().fields)
                bases.pop()
                moments.pop()
                new_keys, new_values = (
                    torch.cat([old_keys, new_keys], 1),
                    torch.cat([old_values, new_values], 1),
                )
            small = new_keys.shape[1] < min(_OWN_BASIS * self.head_dim, size)
            basis = bases[-1] if small and bases else None
            segment, basis = seal(new_keys, new_values, self.config, moment, basis, torch.get_num_threads())
            segments.append(segment)
            bases.append(basis)
            moments.append(moment.rounded())
            # Rounded here as it is stored, so that a sequence that goes on from files has the same numbers.
            moment = QueryMoment.of(self.n_kv_heads, self.head_dim, moments[-1])
        self._segments, self._bases, self._moment, self._moments = segments, bases, moment, moments

    def crop(self, n_tokens: int) -> tuple[Tensor, Tensor]:
        check_crop(n_tokens, self.n_tokens)
        kept, at = whole_within(self._segments, n_tokens)
        if kept == len(self._segments):
            return self.no_pair()
        keys, values = in_order(self._segments[kept].fields)
        self._segments, self._bases = self._segments[:kept], self._bases[:kept]
        self._moments = self._moments[:kept]
        return keys[:, : n_tokens - at], values[:, : n_tokens - at]

    def fork(self) -> SketchIndex:
        other = SketchIndex(
            self.n_kv_heads, self.head_dim, self.group_size, self.config, value_dim=self.value_dim
        )
        other._segments, other._bases, other._moment = self._segments, self._bases, self._moment.copy()
        other._moments = self._moments
        return other

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for fields in one_ahead([segment.fields for segment in self._segments], self.config):
            yield floats_of(fields)

    def stored(self) -> list[StoredSegment]:
        return [
            StoredSegment(self.kind, len(segment), segment.fields | {"weight": basis.weight} | moment)
            for segment, basis, moment in zip(self._segments, self._bases, self._moments, strict=True)
        ]

    def state(self) -> dict[str, Tensor]:
        return self._moment.stored()

    def restore(self, segments: Sequence[StoredSegment], state: Mapping[str, Tensor] | None = None) -> None:
        taken, bases, moments = [], [], []
        for stored in segments:
            fields = dict(stored.tensors)
            weight = fields.pop("weight")
            moments.append({name: fields.pop(name) for name in _OF_MOMENT if name in fields})
            segment = _native.SketchSegment(fields, on_disk(fields, self.config))
            check_stored(self, fields)
            if weight.shape != fields["mean"].shape:
                raise ValueError(
                    f"a stored segment has weights of shape {tuple(weight.shape)} where "
                    f"{tuple(fields['mean'].shape)} are needed"
                )
            taken.append(segment)
            bases.append(Basis(fields["basis"].view(torch.float16), weight))
        known = state if state is not None else moments[-1] if moments else {}
        self._moment = QueryMoment.of(self.n_kv_heads, self.head_dim, known)
        self._segments, self._bases, self._moments = taken, bases, moments

    def replace(self, i: int, tensors: Mapping[str, Tensor]) -> None:
        segments = list(self._segments)
        fields = {name: x for name, x in tensors.items() if name not in ("weight", *_OF_MOMENT)}
        segments[i] = _native.SketchSegment(fields, on_disk(fields, self.config))
        self._segments = segments

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
        trace: bool = False,
    ) -> PartialAttention:
        """As `Index.attend`; `trace` also tells what became of each token (slower)."""
        self.check_query(q)
        check_attend(self, q, scaling, softcap, static_lse, mass)
        tolerance = self.config.tolerance if tolerance is None else check_tolerance(tolerance)
        if not self._segments:
            shape = (self.n_kv_heads, q.shape[1], 0)
            nothing = Trace(torch.zeros(shape, dtype=torch.uint8), torch.zeros(shape)) if trace else None
            lse = torch.full(q.shape[:2], -torch.inf)
            return PartialAttention(self.no_output(q), lse, self._stats(q.shape[1]), nothing)
        if static_lse is not None:
            static_lse = static_lse.float().contiguous()
        if tolerance == 0:
            part = self._exact(q, None, scaling, softcap, static_lse, mass)
            if trace:
                part.trace = self._exact_trace(q, scaling, softcap, static_lse)
            return part
        out, lse, coverage, exact, codes, error, touched, *traced = _native.sketch_attend(
            q,
            self._segments,
            scaling,
            torch.get_num_threads(),
            self._settings(tolerance),
            static_lse=static_lse,
            softcap=softcap,
            mass=mass,
            trace=trace,
        )
        stats = Stats(exact, codes, coverage, touched, self.offloaded_bytes(q.shape[1]), error)
        return PartialAttention(out, lse, stats, Trace(traced[0].byte(), traced[1]) if trace else None)

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
        if not self._segments or self.config.tolerance == 0:
            return self._exact(q, static, scaling, softcap, None, mass)
        s_aux = None if static.s_aux is None else static.s_aux.float().contiguous()
        out, lse, coverage, exact, codes, error, touched = _native.sketch_decode(
            q,
            self._segments,
            static.sink_keys,
            static.sink_values,
            static.recent_keys,
            static.recent_values,
            scaling,
            torch.get_num_threads(),
            self._settings(self.config.tolerance),
            s_aux=s_aux,
            softcap=softcap,
            mass=mass,
        )
        stats = Stats(exact, codes, coverage, touched, self.offloaded_bytes(q.shape[1]), error)
        return PartialAttention(out, lse, stats)

    def native_steps(self, sink: Pair, memory: Pair, start: int) -> _native.SketchSteps | None:
        if self._segments and self.config.tolerance == 0:
            return None
        settings, threads = self._settings(self.config.tolerance), torch.get_num_threads()
        return _native.SketchSteps(self._segments, *sink, *memory, start, self.group_size, settings, threads)

    def search(self, q: Tensor, k: int, *, candidates: int | float | None = None) -> tuple[Tensor, Tensor]:
        """As `Index.search`, nearly: the best keys by their sketch are scored from their codes, and the best
        of these exactly.

        candidates : keys that each query head scores from their codes, chosen by their estimate raised by
            `config.reach` standard deviations: a count if an int, a share of the tokens if a float; never
            fewer than k. By default 8 % of the tokens and 3 k more, with which 97 of 100 keys are found on
            real traces (docs/indexes.md). With all tokens the search is as good as the codes.
        """
        self.check_query(q)
        n = self.n_tokens
        k = check_k(k, n)
        if candidates is None:
            wanted = round(_CANDIDATES * n) + 3 * k
        else:
            check_count_or_share("candidates", candidates)
            wanted = count_of(candidates, n)
        if q.stride(-1) != 1:
            q = q.contiguous()
        scores, ids = torch.empty(*q.shape[:2], k), torch.empty(*q.shape[:2], k, dtype=torch.int64)
        _native.sketch_search(
            q,
            self._segments,
            torch.get_num_threads(),
            candidates=max(wanted, k),
            refined=2 * k + _REFINED,
            reach=self.config.reach,
            scores=scores,
            ids=ids,
        )
        return scores, ids

    def _exact(
        self,
        q: Tensor,
        static: Static | None,
        scaling: float,
        softcap: float | None,
        static_lse: Tensor | None,
        mass: Tensor | None,
    ) -> PartialAttention:
        """Attention over everything, in full precision: with tolerance 0, or while nothing is sealed."""
        spans: list[_native.Span | tuple[Tensor, Tensor]] = [span_of(one.fields) for one in self._segments]
        sink = s_aux = None
        if static is not None:
            sink, s_aux = static.sink_keys.shape[1], static.s_aux
            s_aux = None if s_aux is None else s_aux.float().contiguous()
            spans = [
                (static.sink_keys, static.sink_values),
                *spans,
                (static.recent_keys, static.recent_values),
            ]
        part = None if mass is None else torch.zeros(mass.shape)
        out, lse = _native.flat_attend(
            q,
            spans,
            scaling,
            torch.get_num_threads(),
            causal=static is not None,
            s_aux=s_aux,
            softcap=softcap,
            mass=part,
            static_lse=static_lse,
        )
        if mass is not None and part is not None:
            start = sink or 0
            for segment in self._segments:  # rows of a segment stand in the order of its lists
                span = part[:, start : start + len(segment)]
                span.copy_(torch.zeros_like(span).scatter_(1, segment.fields["order"].long(), span))
                start += len(segment)
            mass += part
        return PartialAttention(out, lse, self._stats(q.shape[1]))

    def _exact_trace(
        self, q: Tensor, scaling: float, softcap: float | None, static_lse: Tensor | None
    ) -> Trace:
        shape = (self.n_kv_heads, q.shape[1], self.n_tokens)
        weight = torch.zeros(shape)
        for t in range(q.shape[1]):
            mass = torch.zeros(self.n_kv_heads, self.n_tokens)
            other = None if static_lse is None else static_lse[:, t : t + 1].contiguous()
            self._exact(q[:, t : t + 1], None, scaling, softcap, other, mass)
            weight[:, t] = mass / self.group_size
        return Trace(torch.full(shape, EXACT, dtype=torch.uint8), weight)

    def _settings(self, tolerance: float) -> _native.SketchSettings:
        c = self.config
        longer = max(1.0, self.n_tokens / _REFERENCE)
        tolerance *= min(1.0, max(0.25, self.n_tokens / _SHORT))
        return _native.SketchSettings(
            rescore=tolerance * c.rescore_share,
            coded=tolerance * c.codes_share,
            exact=tolerance * c.exact_share * math.sqrt(longer),
            reach=c.reach,
            cap=c.cap,
            target_error=c.target_error or 0.0,
        )

    def _stats(self, t: int) -> Stats:
        """Of a step that read every key and value."""
        every = torch.ones(self.n_kv_heads, t)
        rows = (self.n_kv_heads * self.group_size, t)
        none, read, of = torch.zeros(rows), self.kv_bytes * t, self.offloaded_bytes(t)
        return Stats(every, torch.zeros_like(every), torch.ones(rows), read, of, none)
