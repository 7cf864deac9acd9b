"""`auto`: exact while that is fast enough, `sketch` from the number of tokens on where it pays
(`sakuin.index.choice`).

An index learns how long its sequence is only as it grows, so the choice is made at each `append`. It begins
as `flat`: what a short context does not use, sketches and codes, is neither built nor held. The append that
makes the sequence long enough seals all tokens so far as `sketch` (in a cache on its background thread, like
every append), and `sketch` it stays. Only the queries' second moment is kept for that from the start, since
queries cannot be had again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from sakuin.attention.partial import PartialAttention
from sakuin.config import RetrievalConfig
from sakuin.errors import SakuinError
from sakuin.index import _native
from sakuin.index.base import Index, Pair, Static, StoredSegment, check_array
from sakuin.index.checks import check_attend
from sakuin.index.choice import HeadShape, stored_as
from sakuin.index.flat import FlatIndex
from sakuin.index.kind import Kind, register
from sakuin.index.query_moment import QueryMoment
from sakuin.index.sizes import Layout, Size
from sakuin.index.sketch import SketchIndex


@register("auto")
class AutoIndex(Index):
    """A `flat` or a `sketch` index, whichever suits its number of tokens.

    `kind` is the name of what was chosen, `chosen` the index itself.
    """

    storable = True
    stores_int8 = True
    values_differ = True
    segment_settings = SketchIndex.segment_settings
    step_settings = SketchIndex.step_settings

    @classmethod
    def chosen_for(cls, heads: HeadShape, n_tokens: int, config: RetrievalConfig, stored: str) -> type[Kind]:
        return SketchIndex if heads.kind(n_tokens, config, stored) == "sketch" else FlatIndex

    @classmethod
    def layout(cls, heads: HeadShape, n_tokens: int, config: RetrievalConfig, stored: str) -> Layout:
        return cls.chosen_for(heads, n_tokens, config, stored).layout(heads, n_tokens, config, stored)

    @classmethod
    def bytes_for(cls, heads: HeadShape, n_tokens: int, config: RetrievalConfig, stored: str) -> Size:
        return cls.chosen_for(heads, n_tokens, config, stored).bytes_for(heads, n_tokens, config, stored)

    @classmethod
    def builds(cls, config: RetrievalConfig) -> dict[str, Any]:
        return config.as_dict()  # it chooses by what a step takes

    def __init__(
        self,
        n_kv_heads: int,
        head_dim: int,
        group_size: int,
        config: RetrievalConfig,
        *,
        value_dim: int | None = None,
    ) -> None:
        super().__init__(n_kv_heads, head_dim, group_size, config, value_dim=value_dim)
        flat = config.with_changes(index="flat", target_error=None)  # an error of zero meets any target
        self._choose(FlatIndex(n_kv_heads, head_dim, group_size, flat, value_dim=value_dim))
        self._moment = QueryMoment(n_kv_heads, head_dim)
        self._moments: dict[int, dict[str, Tensor]] = {}  # while flat: by the tokens up to a segment's end

    def _choose(self, index: Index) -> None:
        self.chosen, self.kind = index, index.kind

    @property
    def n_tokens(self) -> int:
        return self.chosen.n_tokens

    @property
    def nbytes(self) -> int:
        return self.chosen.nbytes

    @property
    def kv_bytes(self) -> int:
        return self.chosen.kv_bytes

    def append(self, keys: Tensor, values: Tensor, queries: Tensor | None = None) -> None:
        if isinstance(self.chosen, SketchIndex):
            self.chosen.append(keys, values, queries)
            return
        check_array("keys", keys, self.n_kv_heads, self.head_dim)
        if queries is not None:
            self.check_query(queries)
        start = self.heads.sketch_from(self.config, stored_as(self.config, keys.dtype))
        if start is None or self.n_tokens + keys.shape[1] < start:
            self.chosen.append(keys, values)
            if queries is not None:
                self._moment.add(queries)
            ends = accumulate(segment.n_tokens for segment in self.chosen.stored())
            known = self._moments | {self.n_tokens: self._moment.rounded()}
            self._moments = {end: known[end] for end in ends if end in known}
            if self.n_tokens in self._moments:  # rounded, as a sequence that goes on from files has it
                self._moment = QueryMoment.of(self.n_kv_heads, self.head_dim, self._moments[self.n_tokens])
        else:
            self._choose(self._sketch_of(keys, values, queries))

    def _sketch_of(self, keys: Tensor, values: Tensor, queries: Tensor | None) -> SketchIndex:
        """All tokens so far and these as `sketch`."""
        config = self.config.with_changes(index="sketch")
        moment = self._moment.copy()
        if self.n_tokens:
            # The older tokens' queries are in the moment already: now all count for all segments.
            if queries is not None:
                moment.add(queries)
                queries = None
            old_keys, old_values = zip(*self.chosen.blocks(), strict=True)
            keys, values = torch.cat([*old_keys, keys], 1), torch.cat([*old_values, values], 1)
        sketch = self._sketch(config, moment)
        sketch.append(keys, values, queries)
        return sketch

    def _sketch(self, config: RetrievalConfig, moment: QueryMoment | None = None) -> SketchIndex:
        return SketchIndex(
            self.n_kv_heads, self.head_dim, self.group_size, config, moment, value_dim=self.value_dim
        )

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
        return self.chosen.attend(
            q, scaling=scaling, static_lse=static_lse, softcap=softcap, tolerance=tolerance, mass=mass
        )

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
        return self.chosen.decode(q, static, scaling=scaling, softcap=softcap, mass=mass)

    def native_steps(self, sink: Pair, memory: Pair, start: int) -> _native.SketchSteps | None:
        return self.chosen.native_steps(sink, memory, start)

    def search(self, q: Tensor, k: int) -> tuple[Tensor, Tensor]:
        self.check_query(q)
        return self.chosen.search(q, k)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.chosen.blocks()

    def crop(self, n_tokens: int) -> tuple[Tensor, Tensor]:
        return self.chosen.crop(n_tokens)

    def fork(self) -> AutoIndex:
        other = AutoIndex(
            self.n_kv_heads, self.head_dim, self.group_size, self.config, value_dim=self.value_dim
        )
        other._choose(self.chosen.fork())
        other._moment, other._moments = self._moment.copy(), self._moments
        return other

    def stored(self) -> list[StoredSegment]:
        segments = self.chosen.stored()
        if isinstance(self.chosen, SketchIndex):
            return segments
        ends = accumulate(segment.n_tokens for segment in segments)
        return [
            replace(segment, tensors=segment.tensors | self._moments.get(end, {}))
            for segment, end in zip(segments, ends, strict=True)
        ]

    def state(self) -> dict[str, Tensor]:
        return self.chosen.state() if isinstance(self.chosen, SketchIndex) else self._moment.stored()

    def restore(self, segments: Sequence[StoredSegment], state: Mapping[str, Tensor] | None = None) -> None:
        kinds = {segment.kind for segment in segments}
        if kinds == {"sketch"}:
            config = self.config.with_changes(index="sketch")
            sketch = self._sketch(config)
            sketch.restore(segments, state)
            self._choose(sketch)
            return
        if not kinds <= {"flat"}:
            raise SakuinError(
                f"an index that chose by itself cannot hold segments of {', '.join(sorted(kinds))}."
            )
        moments, at = {}, 0
        for segment in segments:
            at += segment.n_tokens
            moments[at] = {name: x for name, x in segment.tensors.items() if name.startswith("moment")}
        self.chosen.restore(segments)
        known = state if state is not None else moments.get(at, {})
        self._moment, self._moments = QueryMoment.of(self.n_kv_heads, self.head_dim, known), moments

    def replace(self, i: int, tensors: Mapping[str, Tensor]) -> None:
        self.chosen.replace(i, tensors)
