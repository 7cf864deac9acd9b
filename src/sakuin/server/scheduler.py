"""One thread owns a model and runs what many callers want of it, together.

At every turn all that decode get their next token from one pass of the model, whatever their caches hold.
Beside it one of those that read gets a piece of its text read, as often as the turns without one have paid
for it: reading takes less of the time than decoding. So whoever comes joins at the next turn, whoever has
ended leaves, and nobody waits for another's document.

While it is open, `Context` and `Library` run through it in every thread (`sakuin.context.generate.run_by`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from torch import Tensor

from sakuin.backends.base import Backend
from sakuin.context.generate import Pass, Passes, exact_above, run_by
from sakuin.errors import SakuinError
from sakuin.machine.forks import recursive_lock
from sakuin.machine.threads import let_team_go

T = TypeVar("T")

SHORT = 64
"""A text of at most so many tokens, as a question's, is read at once, beside all that decode."""
_LEAST = 32
"""Tokens of the shortest piece of a text: of fewer the weights take more time than the tokens."""
_ALONE_S = 0.5
"""Seconds that a piece may take where nobody decodes: so long may somebody who comes have to wait. Deep in a
text, of shorter ones each token takes half as long again."""
_BESIDE_S = 0.08
"""Seconds that it may take where some decode, unless `_LEAST` tokens take longer, as deep in a text."""
_OF_A_TURN = 0.5
"""Seconds of reading for each second of decoding, by which and by colder caches a token takes up to twice as
long."""


class Busy(SakuinError):
    """So many are waiting that no more are taken."""


class Closed(SakuinError):
    """The scheduler was closed before it was done."""


@dataclass(frozen=True)
class Limits:
    """running : most that are computed at once. waiting : most that wait for their turn beside them."""

    running: int = 32
    waiting: int = 256


class Job(Generic[T]):
    """What one caller wants.

    future : its result, or what went wrong. asked : when it was submitted, in seconds of `time.monotonic`.
    waited : seconds until it was begun; None before. is_cancelled : whether it is to leave.
    """

    def __init__(self, passes: Passes[T], priority: int) -> None:
        self.future: Future[T] = Future()
        self.asked = time.monotonic()
        self.waited: float | None = None
        self.priority = priority
        self._passes = passes
        self._wanted: Pass | None = None
        self._done = 0  # tokens of the wanted pass that were computed
        self.is_cancelled = False

    def cancel(self) -> None:
        """Let it leave at the next turn; its future is cancelled."""
        self.is_cancelled = True

    # -- for the scheduler's thread --------------------------------------------------------------------------

    @property
    def left(self) -> Sequence[int]:
        """The tokens of the wanted pass that are to be computed."""
        assert self._wanted is not None
        return self._wanted.ids[self._done :]

    @property
    def is_short(self) -> bool:
        """Whether it is computed at once, beside others."""
        return self.wanted.decodes or (len(self.left) <= SHORT and not self.wanted.every)

    @property
    def wanted(self) -> Pass:
        assert self._wanted is not None
        return self._wanted

    @property
    def is_over(self) -> bool:
        """Whether it has left. One that was cancelled leaves when it is asked."""
        if self.is_cancelled and not self.future.done():
            self._passes.close()
            self.future.cancel()
        return self.future.done()

    def begin(self) -> None:
        self.waited = time.monotonic() - self.asked
        self._go(lambda: next(self._passes))

    def took(self, n: int, logits: Tensor) -> None:
        """So many tokens were computed."""
        self._done += n
        if not self.left:
            self._done = 0
            self._go(lambda: self._passes.send(logits))

    def fail(self, error: BaseException) -> None:
        """Let it leave with `error`, which it sees where it asked for the pass."""
        self._done = 0
        if not self.future.done():
            self._go(lambda: self._passes.throw(error))

    def _go(self, on: Callable[[], Pass]) -> None:
        try:
            self._wanted = on()
        except StopIteration as end:
            self.future.set_result(end.value)
        except BaseException as error:  # whoever waits for it raises it
            self.future.set_exception(error)


class Scheduler:
    """Runs a model for many: `with Scheduler(backend) as scheduler: …`.

    backend : of a model, as `sakuin.backends.open.backend_of` gives it. turns : how many were taken so far.
    A child that is forked meanwhile has no scheduler, and runs its model itself.
    """

    def __init__(self, backend: Backend, limits: Limits | None = None) -> None:
        self.backend = backend
        self.limits = limits or Limits()
        self.turns = 0
        self._waiting: deque[Job[Any]] = deque()
        self._running: list[Job[Any]] = []
        self._changed = threading.Condition(recursive_lock())
        self._closing = False
        self._pace = _Pace()
        self._thread = threading.Thread(target=self._work, name="sakuin scheduler", daemon=True)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        let_team_go()  # of who has loaded the model
        self._open.enter_context(run_by(self, self.backend.model))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take no more, and end what runs with `Closed`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()
        self._open.close()

    def counts(self) -> tuple[int, int]:
        """How many run, and how many wait."""
        with self._changed:
            return len(self._running), len(self._waiting)

    def submit(self, passes: Passes[T], priority: int = 0) -> Job[T]:
        """Have `passes` run, those of a higher priority first. Raises `Busy` where too many wait."""
        job = Job(passes, priority)
        with self._changed:
            if self._closing or not self._thread.is_alive():  # closed, not entered, or a parent's
                raise Closed("the scheduler is not open: nothing is taken.")
            if len(self._waiting) >= self.limits.waiting:
                raise Busy(f"{len(self._waiting):,} requests are waiting already: try again a little later.")
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    def run(self, passes: Passes[T]) -> T:
        """What `passes` return; as `Runner` wants it."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("what runs in the scheduler yields its passes; it cannot wait for others")
        let_team_go()
        job = self.submit(passes)
        try:
            return job.future.result()
        except BaseException:
            job.cancel()  # who waits for it was interrupted
            raise

    # -- the thread ------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while self._admit():
                self._running = [job for job in self._running if not job.is_over]
                if self._running:
                    self._turn()
                    self.turns += 1
        finally:  # whatever happens, nobody waits for ever
            with self._changed:
                self._closing = True
            for job in [*self._running, *self._waiting]:
                job.fail(Closed("the scheduler was closed before this was done."))
            self._running, self._waiting = [], deque()

    def _admit(self) -> bool:
        """Begin what waits as far as there is room; False where all is to end."""
        with self._changed:
            while not (self._running or self._waiting or self._closing):
                self._changed.wait()
            if self._closing:
                return False
            if gone := [job for job in self._waiting if job.is_cancelled]:  # whose places others may have
                self._waiting = deque(job for job in self._waiting if not job.is_cancelled)
            begun: list[Job[Any]] = []
            room = self.limits.running - len(self._running)
            for job in sorted(self._waiting, key=lambda job: -job.priority)[:room]:
                self._waiting.remove(job)
                begun.append(job)
        for job in [*gone, *begun]:
            if not job.is_over:
                job.begin()
                self._running.append(job)
        return True

    def _turn(self) -> None:
        """A pass of all that decode and of short texts, and a piece of one long text."""
        short = [job for job in self._running if job.is_short]
        long = next((job for job in self._running if job not in short), None)
        parts = [(job, job.left) for job in short]
        piece = 0
        if long is not None and (not short or self._pace.may_read):
            self._running.remove(long)  # the next turn's piece is another's
            self._running.append(long)
            piece = self._piece(long, alone=not parts)
            parts.append((long, long.left[:piece]))
        start = time.perf_counter()
        self._forward(parts)
        is_plain = all(len(ids) == 1 for _, ids in parts[: len(short)])
        self._pace.note(time.perf_counter() - start, piece, alone=not short, plain=is_plain)

    def _piece(self, job: Job[Any], *, alone: bool) -> int:
        """Tokens of the next piece of a text. None, also not the last, is so short that it would be taken
        for decoding."""
        if job.wanted.every:
            return len(job.left)
        left, least = len(job.left), max(_LEAST, exact_above(self.backend, job.wanted.cache) + 1)
        n = max(self._pace.tokens(alone=alone), least)
        return n if left - n >= least else left

    def _forward(self, parts: Sequence[tuple[Job[Any], Sequence[int]]]) -> None:
        caches, ids = [job.wanted.cache for job, _ in parts], [own for _, own in parts]
        try:
            every = any(job.wanted.every for job, _ in parts)
            groups = [[i] for i in range(len(parts))] if every else self.backend.groups(caches, ids)
        except Exception:  # of one of them, who is told when it is computed alone
            groups = [[i] for i in range(len(parts))]
        for group in groups:
            self._pass([parts[i] for i in group])

    def _pass(self, parts: Sequence[tuple[Job[Any], Sequence[int]]]) -> None:
        """One pass of the weights."""
        try:
            found = self._computed([job.wanted._replace(ids=ids) for job, ids in parts])
        except Exception as error:  # of one of them, who is told
            if len(parts) == 1:
                parts[0][0].fail(error)
                return
            for part in parts:  # no cache has taken any
                self._pass([part])
            return
        for (job, ids), logits in zip(parts, found, strict=True):
            job.took(len(ids), logits)

    def _computed(self, wanted: Sequence[Pass]) -> list[Tensor]:
        """The logits after each of them."""
        if len(wanted) == 1:
            one = wanted[0]
            return [self.backend.forward(one.cache, one.ids, every=one.every)]
        for one in wanted:  # a fault of one costs no other its cache
            if (retrieval := self.backend.retrieval(one.cache)) is not None:
                retrieval.let_fail(False)
        return self.backend.forward_together([one.cache for one in wanted], [one.ids for one in wanted])


class _Pace:
    """How long turns of decoding and tokens of a text take, as measured last."""

    def __init__(self) -> None:
        self._turn_s = self._token_s = 0.0
        self._owed_s = 0.0  # seconds of decoding that are due before somebody reads again

    @property
    def may_read(self) -> bool:
        """Whether those that decode have had their share of the time."""
        return self._owed_s <= 0 and self._turn_s > 0

    def note(self, seconds: float, piece: int, *, alone: bool, plain: bool) -> None:
        """A turn took so long, with a piece of so many tokens. plain : whether nobody had a question read."""
        if alone:
            self._owed_s = 0.0  # nobody had to wait
            self._token_s = _towards(self._token_s, seconds / piece)
        elif not piece:
            if plain or not self._turn_s:
                self._turn_s = _towards(self._turn_s, seconds)
            self._owed_s -= seconds
        elif (more := seconds - self._turn_s) > 0:
            self._token_s = _towards(self._token_s, more / piece)
            self._owed_s = more / _OF_A_TURN - self._turn_s

    def tokens(self, *, alone: bool) -> int:
        """How many tokens a piece may have."""
        if not self._token_s:
            return 4 * _LEAST
        return int((_ALONE_S if alone else _BESIDE_S) / self._token_s)


def _towards(old: float, new: float) -> float:
    return new if not old else 0.7 * old + 0.3 * new
