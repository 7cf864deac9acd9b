"""One sequence in one layer: which of its tokens are sink, sealed or unsealed, and when the oldest unsealed
ones are sealed.

In order of position a sequence is: `sink` tokens, the tokens in the index (sealed), jobs on their way into
it, and the *tail* (unsealed: the recent window and what waits to be sealed). Sink and tail live on the
model's device, the rest on the CPU. Padding never gets here. The sealed segments themselves belong to
`sakuin.index`; which thread seals is decided in `sakuin.cache.sealing`.

Called by `sakuin.cache.layer`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sakuin.cache.native_steps import NativeSteps
from sakuin.cache.past import Past
from sakuin.cache.sealing import Job, Meter, Sealer
from sakuin.cache.token_buffer import GRACE, GROWTH, TokenBuffer
from sakuin.cache.undo import GoBack
from sakuin.config import RetrievalConfig
from sakuin.index import _native
from sakuin.index.base import Index, Static, new_index
from sakuin.machine.frozen import Copies
from sakuin.machine.pages import new_tensor

QUERY_STEP = 4
"""Every so many positions a query is kept for the index."""
_LAG_STEPS = 16
"""Decode steps over which the layers seal, one after the other, what a text has left in their tails."""


@dataclass(frozen=True)
class SequenceState:
    """What a sequence holds beside its index, to go on from: keys and values `(n_kv_heads, n, head_dim)` of
    sink and tail, queries of positions that are not sealed yet (from the multiple of `QUERY_STEP`
    `first_query` on), and whether the last pass was exact."""

    sink: tuple[Tensor, Tensor]
    tail: tuple[Tensor, Tensor]
    queries: Tensor | None
    first_query: int
    exact_last: bool = True


class TokenSequence:
    """The keys and values of one sequence in one layer. Positions count real tokens from 0.

    Parameters
    ----------
    keys, values
        Any tensors `(n_kv_heads, n, head_dim)` of the sequence: they set heads, head_dim, dtype and device.
        The last dimension of values may be another than that of keys.
    n_query_heads
        Query heads of the layer.
    stored
        Dtype in which offloaded keys and values are kept.
    lag
        From 0 to below 1, another for each layer: where the model's threads seal, a sequence seals by so much
        of half a segment, or of `_LAG_STEPS`, later than it could, so that no pass seals in all layers.
    """

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        n_query_heads: int,
        config: RetrievalConfig,
        stored: torch.dtype,
        sealer: Sealer,
        meter: Meter,
        lag: float = 0.0,
    ) -> None:
        self.config = config
        self.n_kv_heads, _, self.head_dim = keys.shape
        self.value_dim = values.shape[2]
        self.n_query_heads = n_query_heads
        self.n_tokens = 0
        self.index = self._empty_index(config)
        self._sink = TokenBuffer(keys[:, :0], values[:, :0], max(config.sink, 1))
        self.tail = TokenBuffer(keys[:, :0], values[:, :0], config.recent + 2 * GROWTH + GRACE)
        self._jobs: list[Job] = []
        self._queries: list[Tensor] = []  # of positions that are not sealed yet, multiples of QUERY_STEP
        self._first_query = 0
        self._segment = config.segment_tokens(self.head_dim)
        lag = lag if keys.device.type == "cpu" else 0.0  # beside another device a thread seals
        self._lag, self._lag_steps = int(lag * self._segment / 2), int(lag * _LAG_STEPS)
        self._stored = stored
        self._sealer, self._meter = sealer, meter
        self._exact_last = False
        self._waited = 0  # steps since an exact pass
        self.native = NativeSteps()
        self._kept: Tensor | None = None  # the queries that the next step without Python keeps

    def _empty_index(self, config: RetrievalConfig) -> Index:
        group = self.n_query_heads // self.n_kv_heads
        return new_index(self.n_kv_heads, self.head_dim, group, config, self.value_dim)

    # -- what attention reads --------------------------------------------------------------------------------

    def past(self) -> Past:
        """Keys and values of every token so far, in blocks `(n_kv_heads, n, head_dim)`, wherever they lie."""
        # In int8 a token is rounded as it is sealed, which must not come sooner with a faster worker.
        rounded = self.config.kv_dtype == "int8"
        self._publish(lambda job: job.done or job.in_tail or rounded)
        waiting = [(job.keys, job.values) for job in self._jobs]
        return Past(self.sink, self.index, [*waiting, (self.tail.keys, self.tail.values)])

    def static(self, t: int, sinks: Tensor | None) -> Static:
        """Sink and tail, as an index's `decode` takes them; the newest t tokens are the step's own.

        sinks : the model's attention sink logits `(n_query_heads,)`, any float dtype, or None.
        """
        sink, tail = self._sink, self.tail
        sinks = None if sinks is None else sinks.float()
        if len(tail) < t:
            # The sequence is so short that the step's own tokens begin among the sink tokens.
            keys = torch.cat([sink.keys, tail.keys], 1)
            values = torch.cat([sink.values, tail.values], 1)
            return Static(keys[:, :0], values[:, :0], keys, values, sinks)
        return Static(sink.keys, sink.values, tail.keys, tail.values, sinks)

    # -- growing ---------------------------------------------------------------------------------------------

    def append(self, keys: Tensor, values: Tensor, queries: Tensor) -> None:
        """Take the newest tokens: keys, values and queries `(heads, n, head_dim)`."""
        first = -self.n_tokens % QUERY_STEP
        self.append_kept(keys, values, queries[:, first::QUERY_STEP])

    def append_kept(self, keys: Tensor, values: Tensor, kept: Tensor) -> None:
        """As `append`, with the queries of those positions alone that are multiples of `QUERY_STEP`."""
        n = keys.shape[1]
        if kept.shape[1]:
            self._queries.append(_copied(kept) if kept.device.type == "cpu" else kept.cpu())
        missing = self.config.sink - len(self._sink)
        if missing > 0:
            self._sink.append(keys[:, :missing], values[:, :missing])
            keys, values = keys[:, missing:], values[:, missing:]
        if keys.shape[1]:
            self.tail.append(keys, values)
        self.n_tokens += n

    @property
    def _growing(self) -> TokenBuffer:
        return self.tail if len(self._sink) >= self.config.sink else self._sink

    def native_step(
        self, t: int, mass: Tensor | None = None, above: float = 0.0
    ) -> _native.SketchSteps | None:
        """Before a pass of t tokens through the index that needs no Python: the step, ready to be taken,
        whose tokens `took` counts; None where `append` and the index must do it.

        mass, above : as in `TrackedMass`, fp32 `(n_kv_heads, n)` of n_tokens + t tokens or more.
        """
        into = self._growing
        if into is self._sink and len(into) + t > self.config.sink:  # they belong to both
            return None
        memory = into.make_room(t)
        before = self.sink if into is self.tail else (memory[0][:, :0], memory[1][:, :0])
        steps = self.native.steps(self.index, before, memory, into.start)
        if steps is None:
            return None
        first = -self.n_tokens % QUERY_STEP
        self._kept = None
        if first < t:
            shape = self.n_query_heads, -(-(t - first) // QUERY_STEP), self.head_dim
            self._kept = torch.empty(shape, dtype=memory[0].dtype)
        steps.prepare(into.end, self._kept, first, QUERY_STEP, mass, above)
        return steps

    def took(self, t: int) -> None:
        """The step of `native_step` was taken."""
        self._growing.grow(t)
        self.n_tokens += t
        if self._kept is not None:
            self._queries.append(self._kept)
            self._kept = None

    def seal_full_segments(self, newest: int = 0) -> None:
        """After an exact pass: start sealing every whole segment that lies outside the recent window.

        newest : so many newest tokens may still be taken back (a draft) and are not sealed.
        """
        self._exact_last, self._waited = True, 0
        self._publish(lambda job: job.in_tail)
        while len(self.tail) - max(self.config.recent, newest) >= self._segment + self._lag:
            self._seal(self._segment, in_tail=False, due=0)

    def before_decode(self) -> None:
        """Before a pass through the index: seal what growth has pushed out of the recent window, and use what
        is due."""
        if self._jobs:
            self._publish(lambda job: job.due <= self.n_tokens)
        if len(self.tail) > self.config.recent + GROWTH and not self._jobs:
            if not self._exact_last:
                self._seal(GROWTH, in_tail=True, due=self.n_tokens + GRACE)
            elif self._waited < self._lag_steps:
                self._waited += 1
                return
            else:
                self.seal_rest()
        self._exact_last = False

    def seal_rest(self) -> None:
        """Seal everything outside the recent window, the last segment may be small, and wait for it."""
        self.start_sealing_rest()
        self.flush()

    def start_sealing_rest(self) -> None:
        """As `seal_rest`, waiting only for what is still in the tail."""
        self._publish(lambda job: job.in_tail)
        while (waiting := len(self.tail) - self.config.recent) > 0:
            self._seal(min(waiting, self._segment), in_tail=False, due=0)

    def flush(self) -> None:
        """Wait until all that was handed to the worker is in the index."""
        self._publish(lambda job: True)

    def _seal(self, n: int, *, in_tail: bool, due: int) -> None:
        keys, values = self.tail.keys[:, :n], self.tail.values[:, :n]
        end = self.n_tokens - len(self.tail) + n
        base = self._jobs[-1] if self._jobs else self.index
        job = Job(
            keys.to("cpu", self._stored),
            values.to("cpu", self._stored),
            self._take_queries(end),
            base,
            self._meter,
            in_tail=in_tail,
            due=due,
        )
        jobs, start = [*self._jobs, job], self.tail.start + (0 if in_tail else n)
        self._jobs, self.tail.start = jobs, start  # in one line, which no interrupt parts
        self.tail.shrink()
        self._sealer.submit(job, beside_device=self.tail.keys.device.type != "cpu")
        self._publish(lambda job: job.sealed and not job.in_tail)  # or it would hold its memory longer

    def _take_queries(self, end: int) -> Tensor | None:
        """The kept queries of positions before `end`."""
        n = (end - self._first_query + QUERY_STEP - 1) // QUERY_STEP
        if n <= 0 or not self._queries:
            return None
        queries = torch.cat(self._queries, 1)
        taken, rest = queries[:, :n], queries[:, n:]
        left = [_copied(rest)] if rest.shape[1] else []
        self._queries, self._first_query = left, self._first_query + QUERY_STEP * taken.shape[1]
        return taken

    def _publish(self, which: Callable[[Job], bool]) -> None:
        """Put the results of the oldest jobs, as long as `which(job)`, in the place of the index."""
        while self._jobs and which(self._jobs[0]):
            job = self._jobs[0]
            index, jobs = job.result(), self._jobs[1:]
            start = self.tail.start + (job.n_tokens if job.in_tail else 0)
            self.index, self._jobs, self.tail.start = index, jobs, start  # in one line, as in `_seal`
            self.tail.shrink()

    # -- going back, copies ----------------------------------------------------------------------------------

    def crop(self, n_tokens: int) -> None:
        """Keep the first `n_tokens` tokens."""
        self.flush()
        self.native.forget()
        sealed_end = len(self._sink) + self.index.n_tokens
        if n_tokens >= sealed_end:
            self.tail.keep_first(n_tokens - sealed_end)
        elif n_tokens >= len(self._sink):
            # The index is shared with forks; crop a fork of it.
            self.index = self.index.fork()
            keys, values = self.index.crop(n_tokens - len(self._sink))
            like = self.tail.keys
            self.tail.replace(keys.to(like.device, like.dtype), values.to(like.device, like.dtype))
        else:
            self.index = self._empty_index(self.config)
            self.tail.keep_first(0)
            self._sink.keep_first(n_tokens)
        self.n_tokens = n_tokens
        self._crop_queries(n_tokens)

    def _crop_queries(self, n_tokens: int) -> None:
        n = max(0, (n_tokens - self._first_query + QUERY_STEP - 1) // QUERY_STEP)
        if self._queries:
            self._queries = [torch.cat(self._queries, 1)[:, :n]] if n else []
        if not n:
            self._first_query = n_tokens + -n_tokens % QUERY_STEP  # the first that is kept from here on

    def fork(self, seals: tuple[Sealer, Meter] | None = None, copies: Copies | None = None) -> TokenSequence:
        """A second sequence with the same tokens, sharing memory until either side writes. copies : as
        `TokenBuffer.fork` has it."""
        self.flush()
        other = copy.copy(self)
        other._sink, other.tail = self._sink.fork(), self.tail.fork(copies)
        other._jobs, other._queries = [], list(self._queries)
        other.native, other._kept = NativeSteps(), None
        if seals is not None:
            other._sealer, other._meter = seals
        return other

    def restorer(self) -> GoBack:
        """A function that lets the sequence be what it is now. A job that is under way goes on meanwhile."""
        sink, tail = self._sink.held(), self.tail.held()
        jobs, queries = self._jobs[:], self._queries[:]
        held = self.index, self.n_tokens, self._first_query, self._exact_last, self._waited

        def back() -> None:
            self._sink.hold(*sink)
            self.tail.hold(*tail)
            self._jobs, self._queries, self._kept = list(jobs), list(queries), None
            self.index, self.n_tokens, self._first_query, self._exact_last, self._waited = held
            self.native.forget()

        return back

    def use(self, config: RetrievalConfig) -> None:
        """Take other settings, which must build the same segments; forks keep theirs."""
        self.config, self.index = config, self.index.fork()
        self.index.config = config

    @property
    def sink(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the sink tokens."""
        return self._sink.keys, self._sink.values

    @property
    def sealed_end(self) -> int:
        """Tokens of sink and index; 0 while the index is empty."""
        return len(self._sink) + self.index.n_tokens if self.index.n_tokens else 0

    def state(self) -> SequenceState:
        """All but the index, once what was handed to the worker is in it."""
        self.flush()
        return SequenceState(
            self.sink,
            (self.tail.keys, self.tail.values),
            torch.cat(self._queries, 1) if self._queries else None,
            self._first_query,
            self._exact_last,
        )

    def restore(self, state: SequenceState, index: Index) -> None:
        """Hold these tokens instead of what there is; the sequence takes copies of all but the index."""
        like = self.tail.keys
        for buffer, pair in ((self._sink, state.sink), (self.tail, state.tail)):
            buffer.replace(*(x.to(like.device, like.dtype) for x in pair))
        self.index, self._jobs = index, []
        self.native.forget()
        self._queries = [] if state.queries is None else [state.queries.clone()]
        self._first_query, self._exact_last = state.first_query, state.exact_last
        self.n_tokens = len(self._sink) + index.n_tokens + len(self.tail)

    @property
    def device_bytes(self) -> int:
        """Bytes on the model's device."""
        return self._sink.nbytes + self.tail.nbytes

    @property
    def host_bytes(self) -> int:
        """Bytes of tokens on their way into the index (the index counts its own)."""
        return sum(job.keys.nbytes + job.values.nbytes for job in self._jobs if not job.in_tail)


def _copied(queries: Tensor) -> Tensor:
    return new_tensor(queries.shape, queries).copy_(queries)
