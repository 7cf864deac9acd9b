"""One full-attention layer of a cache: a `TokenSequence` for each row of the batch, and attention over them.

A pass brings keys and values (`Arrival`) and then queries. What a sequence holds is the business of
`sakuin.cache.sequence`, what holds for all layers at once that of `sakuin.cache.whole`. Called by backends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

import torch
from torch import Tensor

from sakuin.attention.softmax import Softmax
from sakuin.cache.pass_state import PassState
from sakuin.cache.sequence import QUERY_STEP, SequenceState, TokenSequence
from sakuin.cache.step_log import StepLog
from sakuin.cache.undo import GoBack
from sakuin.dtypes import name_of, torch_dtype
from sakuin.index import Index, _native, decode_by_parts
from sakuin.index.prefill import attend_chunk
from sakuin.machine.frozen import Copies

_FILLED_AT_ONCE = 2048
"""Tokens, a multiple of `QUERY_STEP`."""


@dataclass
class Arrival:
    """The keys and values of one pass on their way into a layer. It holds none of them itself.

    t : positions, padding counted.
    real : which of the tokens are no padding, bool `(batch, t)` on the CPU; None where all are.
    stored : whether the layer holds them already.
    pasts : by row, the blocks before this pass. Layers that share keys and values attend again with the same
        arrival, and need the past as it was before it.
    """

    t: int
    real: Tensor | None = None
    stored: bool = False
    pasts: dict[int, Iterable[tuple[Tensor, Tensor]]] = field(default_factory=dict)


class LayerCache:
    """What one full-attention layer holds. `rows` are its sequences, one for each row of the batch.

    lag : as `TokenSequence` has it.
    """

    def __init__(self, state: PassState, lag: float = 0.0) -> None:
        self.state, self.lag = state, lag
        self.rows: list[TokenSequence] = []
        self.length = 0
        self._log = StepLog()
        # Per row (first position of a pass, which of its tokens are real), for the passes that had padding.
        self.padded: list[list[tuple[int, Tensor]]] = []

    @property
    def log(self) -> StepLog:
        """What the decode steps spent."""
        for row in self.rows:
            for sums in row.native.take_sums():
                self._log.add_sums(sums)
        return self._log

    @property
    def dtype(self) -> torch.dtype | None:
        """Of keys and values on the model's device; None while there are none."""
        return self.rows[0].sink[0].dtype if self.rows else None

    # -- what it holds ---------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget all tokens and statistics."""
        self.rows, self.padded = [], []
        self.length = 0
        self._log = StepLog()

    def choose(self, rows: Sequence[int]) -> None:
        """Hold these of the rows, in this order; one that is named twice is forked."""
        if not self.rows or list(rows) == list(range(len(self.rows))):
            return
        taken: set[int] = set()
        chosen = []
        for row in rows:
            chosen.append(self.rows[row].fork() if row in taken else self.rows[row])
            taken.add(row)
        self.rows, self.padded = chosen, [list(self.padded[row]) for row in rows]

    def crop(self, length: int) -> None:
        """Keep the first `length` positions, padding counted."""
        if length == self.length:
            return
        for row, padded in zip(self.rows, self.padded, strict=True):
            padded[:] = [(start, real[: length - start]) for start, real in padded if start < length]
            row.crop(length - sum(int((~real).sum()) for _, real in padded))
        self.length = length

    def fork(self, state: PassState, copies: Copies) -> LayerCache:
        """A second layer with the same tokens, sharing memory until either side writes. copies : as
        `TokenBuffer.fork` has it."""
        other = LayerCache(state, self.lag)
        other.rows = [row.fork((state.sealer, state.meter), copies) for row in self.rows]
        other.padded = [list(padded) for padded in self.padded]
        other.length = self.length
        return other

    def fill(self, keys: Tensor, values: Tensor, queries: Tensor) -> None:
        """Hold tokens that were attended elsewhere: keys, values `(n_kv_heads, n, head_dim)`, queries
        `(n_query_heads, m, head_dim)` of the positions that are multiples of `QUERY_STEP`."""
        n = keys.shape[1]
        self._start(queries[None], keys[None], values[None])
        (row,) = self.rows
        for at in range(0, n, _FILLED_AT_ONCE):
            end = at + _FILLED_AT_ONCE
            kept = queries[:, at // QUERY_STEP : end // QUERY_STEP]
            row.append_kept(keys[:, at:end], values[:, at:end], kept)
            row.seal_full_segments()
        self.length = n

    def restore(self, like: Tensor, n_query_heads: int, index: Index, state: SequenceState) -> None:
        """Hold one sequence, as a snapshot has it; `like` is a tensor of the model's dtype and device."""
        keys, values = (like.new_empty(x.shape[0], 0, x.shape[2]) for x in state.tail)
        row = self._sequence(keys, values, n_query_heads)
        row.restore(state, index)
        self.rows, self.padded, self._log = [row], [[]], StepLog()
        self.length = row.n_tokens

    # -- attention -------------------------------------------------------------------------------------------

    def announce(self, t: int) -> Arrival:
        """A pass of t positions begins, padding counted: its keys and values are on their way. Nothing is
        changed before `attend` has them."""
        return Arrival(t)

    def restorer(self) -> GoBack:
        """A function that lets the layer be what it is now."""
        rows, length, log = self.rows, self.length, self._log.copy()
        padded = [each[:] for each in self.padded]
        each_back = [row.restorer() for row in rows]

        def back() -> None:
            for one in each_back:
                one()
            self.rows, self.length, self._log = rows, length, log
            self.padded = [list(each) for each in padded]

        return back

    def known_real(self, length: int) -> Tensor | None:
        """Which of the first `length` positions are no padding, bool `(batch, length)` on the CPU; None where
        all are."""
        if not any(self.padded):
            return None
        found = torch.ones(len(self.rows), length, dtype=torch.bool)
        for row, padded in zip(found, self.padded, strict=True):
            for start, real in padded:
                row[start : start + len(real)] = real[: max(0, length - start)]
        return None if bool(found.all()) else found

    def attend(
        self,
        arrival: Arrival,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        softmax: Softmax,
        out: Tensor | None = None,
    ) -> Tensor:
        """Store what arrived, unless it is stored, and attend from it: query and result, which is fp32,
        `(batch, n_query_heads, t, head_dim)`, keys and values `(batch, n_kv_heads, t, head_dim)`; the last
        dimension of values, and of the result, may be another. What this changes is noted in the cache's undo
        log.

        out : of one sequence without padding, as `sakuin.index.prefill.attend_chunk` has it.
        """
        batch, _, t, _ = query.shape
        store, arrival.stored = not arrival.stored, True
        if store:
            self._note()
        if not self.rows:
            self._start(query, keys, values)
        real = arrival.real
        if store:
            if real is not None:
                for padded, its in zip(self.padded, real, strict=True):
                    padded.append((self.length, its))
            self.length += arrival.t
        exact, outs = t > self.state.config.exact_above, []
        before = self._log.positions
        for b in range(batch):
            row = query[b], keys[b], values[b]
            if real is None or bool(real[b].all()):
                outs.append(self._attend_row(b, arrival, store, *row, softmax, exact, out))
                continue
            columns = real[b].nonzero()[:, 0].to(query.device)
            q, k, v = (x[:, columns] for x in row)
            padded_out = query.new_zeros(*query.shape[1:3], values.shape[3], dtype=torch.float32)
            padded_out[:, columns] = self._attend_row(b, arrival, store, q, k, v, softmax, exact)
            outs.append(padded_out)
        if store:
            self._log.count(self._log.positions - before)
        return outs[0][None] if batch == 1 else torch.stack(outs)

    def native_step(self, t: int) -> _native.SketchSteps | None:
        """Before a pass of t positions of one sequence that goes through the index without Python: the step,
        made ready; `took` counts its tokens. None where `attend` must do it."""
        if len(self.rows) != 1 or t > self.state.config.exact_above:
            return None
        (row,), tracked = self.rows, self.state.mass
        self._note()
        row.before_decode()
        if tracked is None:
            return row.native_step(t)
        return row.native_step(t, tracked.in_room(row.n_kv_heads, row.n_tokens + t), tracked.above)

    def took(self, t: int) -> None:
        """The step of `native_step` was taken."""
        self.length += t
        self.rows[0].took(t)

    def _attend_row(
        self,
        b: int,
        arrival: Arrival,
        store: bool,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        softmax: Softmax,
        exact: bool,
        out: Tensor | None = None,
    ) -> Tensor:
        """The attention of one row at its real tokens."""
        if not q.shape[1]:
            return q.new_empty(q.shape[0], 0, v.shape[2], dtype=torch.float32)
        if exact:
            return self._exact(b, arrival, store, q, k, v, softmax, out)
        if store:
            self.rows[b].before_decode()
            self.rows[b].append(k, v, q)
        return self._decode(b, q, softmax)

    def _exact(
        self,
        b: int,
        arrival: Arrival,
        store: bool,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        softmax: Softmax,
        out: Tensor | None,
    ) -> Tensor:
        row = self.rows[b]
        if store:
            arrival.pasts[b] = row.past()
        found = attend_chunk(q, k, v, arrival.pasts[b], softmax, out)
        if store:
            row.append(k, v, q)
            row.seal_full_segments(newest=q.shape[1] if self.state.draft else 0)
        return found

    def _decode(self, b: int, q: Tensor, softmax: Softmax) -> Tensor:
        row, tracked = self.rows[b], self.state.mass if b == 0 else None
        started = perf_counter()
        sums = step = None
        if tracked is not None:
            sums = tracked.of(row.n_kv_heads, row.n_tokens)
            step = tracked.into(sums)
        static = row.static(q.shape[1], softmax.sinks)
        decode = row.index.decode if in_one_call(q) else partial(decode_by_parts, row.index)
        part = decode(q, static, scaling=softmax.scaling, softcap=softmax.softcap, mass=step)
        if tracked is not None and sums is not None and step is not None:
            tracked.count(sums, step, q.shape[0] // row.n_kv_heads)
        self._log.add(part.stats, perf_counter() - started)
        return part.out

    def _note(self) -> None:
        """Before anything changes."""
        self.state.undo.note(self)
        if self.state.mass is not None:
            self.state.undo.note(self.state.mass)

    def _start(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        batch, heads = query.shape[:2]
        kv_heads = key.shape[1]
        if name_of(key.dtype) is None:
            raise TypeError(
                f"keys must be float32, bfloat16 or float16, got {key.dtype}: load the model in one of these"
            )
        if heads % kv_heads:
            raise ValueError(
                f"{heads} query heads cannot share {kv_heads} KV heads evenly: use another cache"
            )
        self.rows = [self._sequence(key[b], value[b], heads) for b in range(batch)]
        self.padded = [[] for _ in range(batch)]

    def _sequence(self, keys: Tensor, values: Tensor, n_query_heads: int) -> TokenSequence:
        state = self.state
        stored = torch_dtype(state.config.kv_dtype) or keys.dtype
        config, sealer, meter = state.config, state.sealer, state.meter
        return TokenSequence(keys, values, n_query_heads, config, stored, sealer, meter, self.lag)


def in_one_call(q: Tensor) -> bool:
    """Whether a decode step of `q` is one call of its index: where the model runs on the CPU, as the index
    does."""
    return q.device.type == "cpu"
