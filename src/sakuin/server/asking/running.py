"""A request on its way: its jobs in the scheduler, and what happens as events in the loop of the server.

Called by the routes that answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sakuin.cache.drawn import Drawn
from sakuin.context.answer import looked_up
from sakuin.context.generate import Passes
from sakuin.context.support import Draws, scale_of
from sakuin.server.asking.engine import Engine
from sakuin.server.asking.found import Found, found_by
from sakuin.server.asking.origins import Start
from sakuin.server.asking.speaking import Sink, reading, scoring, speaking
from sakuin.server.asking.wanted import Likely, Said, Wanted
from sakuin.server.scheduler import Job
from sakuin.server.threads import in_thread


@dataclass(frozen=True)
class Read:
    """So many tokens of the prompt were read."""

    done: int
    total: int

    @property
    def comment(self) -> str:
        """What a stream says of it."""
        return f"prefill {self.done}/{self.total}"


@dataclass(frozen=True)
class Alive:
    """Nothing has happened for a while."""

    comment: str = "alive"


@dataclass(frozen=True)
class Piece:
    """A piece of a choice, and its tokens where logprobs are wanted."""

    number: int
    text: str
    likely: Sequence[Likely]


@dataclass(frozen=True)
class Done:
    """A choice is said; found : where it was looked up, with evidence."""

    number: int
    said: Said
    found: Found | None


Event = Read | Alive | Piece | Done


class Running(Sink):
    """One request. `async for event in running.events()`; it leaves when that is left."""

    def __init__(self, engine: Engine, tenant: str, start: Start, wanted: Wanted, priority: int = 0) -> None:
        """Raises `Busy` where too many wait. Called in the server's loop."""
        self._engine, self._tenant, self._start, self._wanted = engine, tenant, start, wanted
        self._priority, self._began = priority, time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Read | Alive | Piece | tuple[int, Future[Said]]] = asyncio.Queue()
        self._jobs: list[Job[Any]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_silent = False
        self._drawn: Callable[[], Passes[Drawn | None]] | None = start.beginning.drawn
        self._before: Any = None  # a cache that holds what is read before the question
        ids, window = start.asked.ids, engine.backend.shape.window
        left = (window or len(ids) + (1 << 20)) - len(ids)
        self._most = left if wanted.max_tokens is None else min(wanted.max_tokens, left)
        if wanted.n == 1:
            self._submit(self._alone(), 0)
        else:
            self._take(self._read()).future.add_done_callback(lambda read: self._call(self._fork, read))

    # -- for the routes --------------------------------------------------------------------------------------

    async def events(self, alive_s: float = 0.0) -> AsyncIterator[Event]:
        """What happens, until all choices are said. Raises what went wrong.

        alive_s : seconds of silence after which it is said that nothing has happened; 0 for never.
        """
        left = self._wanted.n
        self._tick(alive_s)
        try:
            while left:
                event = await self._events.get()
                self._is_silent = False
                if isinstance(event, tuple):
                    number, future = event
                    said = self._result(future)
                    found = await self._found(said)
                    support = None if found is None else found.support
                    self._engine.metrics.answered(said.ended, said.stats, support)
                    yield Done(number, said, found)
                    left -= 1
                else:
                    yield event
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self.cancel()

    def _tick(self, every: float) -> None:
        if not every:
            return
        if self._is_silent:
            self._events.put_nowait(Alive())
        self._is_silent = True
        self._timer = self._loop.call_later(every, self._tick, every)

    def cancel(self) -> None:
        """Let what is not done yet leave."""
        for job in self._jobs:
            job.cancel()

    @property
    def waited_s(self) -> float | None:
        """Seconds until it was begun; None before."""
        return self._jobs[0].waited

    def _result(self, future: Future[Said]) -> Said:
        try:
            return future.result()
        except BaseException:
            self._engine.metrics.answered("error")
            raise

    async def _found(self, said: Said) -> Found | None:
        """Where a choice was looked up: what any question draws is found first, beside other requests."""
        if said.lookups is None:
            return None
        drawn, asked, backend = None, self._start.asked, self._engine.backend
        if self._drawn is not None:
            drawn = await asyncio.wrap_future(self._take(self._drawn()).future)
        scale = await asyncio.wrap_future(self._take(scale_of(backend, asked.prompt)).future)
        looked = await in_thread(looked_up, said.lookups, asked.reading, drawn, scale)
        question, before = asked.question, self._before
        if question is not None and before is not None and looked.is_in_question(question):
            passes = looked.asked_for(backend, backend.fork(before), question)
            looked = await asyncio.wrap_future(self._take(passes).future)
        return await in_thread(found_by, said, asked.reading, looked)

    # -- for the scheduler's thread --------------------------------------------------------------------------

    def read(self, done: int, total: int) -> None:
        self._call(self._events.put_nowait, Read(done, total))

    def said(self, number: int, text: str, likely: Sequence[Likely]) -> None:
        self._call(self._events.put_nowait, Piece(number, text, list(likely)))

    def chose(self, seconds: float, *, first: bool) -> None:
        metrics = self._engine.metrics
        metrics.first_token(seconds) if first else metrics.per_token(seconds)

    # -- jobs ------------------------------------------------------------------------------------------------

    def _take(self, passes: Passes[Any]) -> Job[Any]:
        job = self._engine.scheduler.submit(passes, self._priority)
        self._jobs.append(job)
        return job

    def _submit(self, passes: Passes[Said], number: int) -> None:
        job = self._take(passes)
        job.future.add_done_callback(lambda future: self._call(self._events.put_nowait, (number, future)))

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop has ended, and nobody waits
            self.cancel()

    def _alone(self) -> Passes[Said]:
        cache, scored = self._start.beginning.cache, list[Likely]()
        if self._wanted.scored:
            scored = yield from scoring(
                self._engine.backend, cache, self._start.asked.ids, self, self._wanted
            )
        else:
            yield from self._read()
        said = yield from self._speak(cache, 0)
        said.scored = scored
        self._keep(cache, said)
        return said

    def _fork(self, read: Future[None]) -> None:
        """The prompt is read: the choices go on from it, each for itself."""
        try:
            read.result()
            for number in range(self._wanted.n):
                self._submit(self._fork_of(number), number)
        except BaseException as error:
            failed: Future[Said] = Future()
            failed.set_exception(error)
            self._events.put_nowait((0, failed))

    def _fork_of(self, number: int) -> Passes[Said]:
        cache = self._engine.backend.fork(self._start.beginning.cache)
        said = yield from self._speak(cache, number)
        if number == 0:
            self._keep(cache, said)
        return said

    def _read(self) -> Passes[None]:
        start, begun = time.monotonic(), self._start.beginning.n_tokens
        if (waited := self.waited_s) is not None:
            self._engine.metrics.queue(waited)
        yield from self._reading()
        read = len(self._start.asked.ids) - 1 - begun
        self._engine.metrics.prefill(read, time.monotonic() - start, begun)

    def _reading(self) -> Passes[None]:
        asked, backend = self._start.asked, self._engine.backend
        shown: list[tuple[int, Callable[[Any], None]]] = []

        def text_read(cache: Any) -> None:
            self._drawn = Draws().of(backend, asked.prompt, asked.before, cache)

        def question_next(cache: Any) -> None:
            self._before = backend.fork(cache)

        if self._wanted.evidence and self._drawn is None:
            shown.append((asked.based, text_read))
        if self._wanted.evidence and asked.question is not None:
            shown.append((asked.asked_at, question_next))
        return reading(backend, asked.ids, self._start.beginning, self, shown)

    def _speak(self, cache: Any, number: int) -> Passes[Said]:
        return speaking(
            self._engine.backend,
            cache,
            self._start.asked.prompt,
            self._start.asked.ids,
            self._wanted,
            self,
            most=self._most,
            number=number,
            n_text=self._start.asked.n_text,
            cached=self._start.beginning.n_tokens,
            asked=self._began,
        )

    def _keep(self, cache: Any, said: Said) -> None:
        """For requests that begin the same."""
        if not self._most:
            return
        ids = [*self._start.asked.ids, *said.held]
        self._engine.kept.keep(self._tenant, ids, cache, self._start.config, held=self._start.held)
