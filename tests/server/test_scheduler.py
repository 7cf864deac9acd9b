"""Many who ask at once get what each would get alone; who comes joins, who goes leaves, and faults stay with
whom they belong to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from stored import CONFIG, MORE, QUESTION, TEXT, model_of

from sakuin import Context, Library
from sakuin.backends.base import Backend
from sakuin.backends.open import backend_of
from sakuin.context.generate import Pass, Passes, run_by
from sakuin.errors import SakuinError
from sakuin.server.scheduler import Busy, Closed, Limits, Scheduler, _Pace

QUESTIONS = ("Who jumps?", "How many dogs are there in line 7?", "What does the brown fox do?", "Lazy?")


@pytest.fixture(params=["transformers", "llama.cpp"])
def model(request: pytest.FixtureRequest) -> Any:
    return model_of() if request.param == "transformers" else request.getfixturevalue("smollm2")


def until(true: Callable[[], bool]) -> None:
    for _ in range(6000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come")


def together(context: Context, n: int) -> list[str]:
    with ThreadPoolExecutor(n) as pool:
        asked = [pool.submit(context.ask, QUESTIONS[i % 4], 6 + i) for i in range(n)]
        return [one.result(300).text for one in asked]


def test_each_gets_what_it_would_get_alone(model: Any) -> None:
    context = Context.from_text(*model, TEXT, CONFIG)
    with context.backend.steady():  # else llama.cpp rounds by how many are computed at once
        alone = [context.ask(QUESTIONS[i % 4], 6 + i) for i in range(8)]
        with Scheduler(context.backend) as scheduler:
            assert together(context, 8) == [answer.text for answer in alone]
            turns = scheduler.turns
    assert turns < sum(answer.new_tokens for answer in alone)  # they were decoded together


def test_reading_appending_and_chatting_go_through_it(tmp_path: Path) -> None:
    alone = Context.from_text(*model_of(), TEXT, CONFIG)
    alone.append(MORE)
    expected = alone.chat(QUESTION, 5).text
    with Scheduler(backend_of(*model_of())) as scheduler:
        context = Context.from_text(*model_of(), TEXT, CONFIG)
        read = scheduler.turns
        assert read > 0
        context.append(MORE)
        assert context.chat(QUESTION, 5).text == expected
        assert scheduler.turns > read
        library = Library(tmp_path)
        library.save("fox", context)
        assert library.open("fox", *model_of()).turns == context.turns
    assert context.ask(QUESTION, 5).text  # and without it again


class Recorded:
    """A model whose passes are noted: how many tokens each sequence had, and whose cache the first was."""

    def __init__(self, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passes: list[list[int]] = []
        self.firsts: list[Any] = []
        kind = type(backend)
        together, alone = kind.forward_together, kind.forward

        def noted(of: Backend, caches: Any, ids: Any, **more: Any) -> Any:
            self._note(caches, ids)
            return together(of, caches, ids, **more)

        def noted_alone(of: Backend, cache: Any, ids: Any, **more: Any) -> Any:
            self._note([cache], [ids])
            return alone(of, cache, ids, **more)

        monkeypatch.setattr(kind, "forward_together", noted)
        monkeypatch.setattr(kind, "forward", noted_alone)

    def _note(self, caches: Any, ids: Any) -> None:
        self.passes.append([len(each) for each in ids])
        self.firsts.append(caches[0])


def wanting(backend: Backend, n: int, steps: int) -> Passes[int]:
    """Reads n tokens, then decodes so many."""
    cache = backend.new_cache(CONFIG)
    yield Pass(cache, [5] * n)
    for i in range(steps):
        yield Pass(cache, [6 + i % 7], decodes=True)
    return steps


def test_a_long_text_is_read_in_pieces_beside_those_who_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of(*model_of())
    monkeypatch.setattr("sakuin.server.scheduler._BESIDE_S", 0.005)  # of a model so small, many tokens
    recorded = Recorded(backend, monkeypatch)
    with Scheduler(backend) as scheduler:
        decoding = scheduler.submit(wanting(backend, 10, 400))
        until(lambda: bool(recorded.passes))
        reading = scheduler.submit(wanting(backend, 3000, 0))
        assert decoding.future.result(60) == 400
        assert reading.future.result(60) == 0
    lengths = [max(each) for each in recorded.passes][1:]
    pieces = [n for n in lengths if n > 1]
    assert sum(pieces) == 3000
    assert len(pieces) > 2
    assert min(pieces) > CONFIG.exact_above  # each exact
    at = [i for i, n in enumerate(lengths) if n > 1]
    assert any(later - one > 1 for one, later in pairwise(at))  # steps of who decodes come between them


@pytest.mark.parametrize("token_s", [0.0001, 0.002, 0.02])
def test_reading_takes_its_share_of_the_time_and_no_more(token_s: float) -> None:
    pace, reading, longest, turns = _Pace(), 0.0, 0.0, 5000
    for turn in range(turns):
        n = max(32, pace.tokens(alone=False)) if pace.may_read else 0
        more = n * token_s
        pace.note(0.01 + more, n, alone=False, plain=True)
        reading += more
        longest = max(longest, more) if turn > 100 else 0.0
    assert 0.44 < reading / (0.01 * turns) < 0.54  # so a token takes half as long again
    assert longest <= max(0.081, 32 * token_s)


def test_two_long_texts_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of(*model_of())
    monkeypatch.setattr("sakuin.server.scheduler._BESIDE_S", 0.005)
    recorded = Recorded(backend, monkeypatch)
    with Scheduler(backend) as scheduler:
        held = scheduler.submit(wanting(backend, 10, 10**6))  # pieces are short beside it
        until(lambda: len(recorded.passes) > 2)
        jobs = [scheduler.submit(wanting(backend, 1500, 0)) for _ in range(2)]
        assert [job.future.result(60) for job in jobs] == [0, 0]
        held.cancel()
    reads = [id(cache) for cache, n in zip(recorded.firsts, recorded.passes, strict=True) if max(n) > 1][1:]
    first, second = dict.fromkeys(reads)
    assert reads.index(second) < len(reads) - 1 - reads[::-1].index(first)  # neither waits for the other


def test_who_is_cancelled_leaves_at_once() -> None:
    backend = backend_of(*model_of())
    closed = threading.Event()

    def endless() -> Passes[None]:
        try:
            yield from wanting(backend, 10, 10**6)
        finally:
            closed.set()

    with Scheduler(backend, Limits(running=1)) as scheduler:
        first, second = scheduler.submit(endless()), scheduler.submit(endless())
        third = scheduler.submit(wanting(backend, 10, 3))
        until(lambda: first.waited is not None)
        second.cancel()
        first.cancel()
        assert third.future.result(60) == 3
        assert closed.wait(10)
        for job in (first, second):
            with pytest.raises(CancelledError):
                job.future.result(1)
        until(lambda: scheduler.counts() == (0, 0))


def test_a_fault_is_told_to_whom_it_belongs() -> None:
    backend = backend_of(*model_of())

    def faulty(at: int) -> Passes[int]:
        cache = backend.new_cache(CONFIG)
        retrieval = backend.retrieval(cache)
        assert retrieval is not None
        retrieval.let_fail()  # as caches of answers do
        for i in range(20):
            yield Pass(cache, [10**9] if i == at else [7], decodes=True)
        return 20

    def recovering() -> Passes[str]:
        try:
            yield from faulty(2)
        except Exception as error:
            return type(error).__name__
        return "none"

    with Scheduler(backend) as scheduler:
        good = [scheduler.submit(faulty(-1)) for _ in range(3)]
        bad, caught = scheduler.submit(faulty(4)), scheduler.submit(recovering())
        assert [job.future.result(60) for job in good] == [20] * 3
        with pytest.raises(IndexError):
            bad.future.result(60)
        assert caught.future.result(60) == "IndexError"
        assert scheduler.submit(faulty(-1)).future.result(60) == 20


def test_a_fault_of_what_belongs_together_costs_nobody_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of(*model_of())

    def failing(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(type(backend), "groups", failing)
    with Scheduler(backend) as scheduler:
        jobs = [scheduler.submit(wanting(backend, 10, 5)) for _ in range(3)]
        assert [job.future.result(60) for job in jobs] == [5] * 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_scheduler_whose_thread_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of(*model_of())

    def failing(*_: Any) -> Any:
        raise SystemExit

    with Scheduler(backend) as scheduler:
        monkeypatch.setattr(scheduler, "_turn", failing)
        job = scheduler.submit(wanting(backend, 10, 5))
        with pytest.raises(Closed):
            job.future.result(60)
        with pytest.raises(Closed):
            scheduler.submit(wanting(backend, 10, 5))


def test_too_many_are_told_to_come_again() -> None:
    backend = backend_of(*model_of())
    with Scheduler(backend, Limits(running=1, waiting=2)) as scheduler:
        running = scheduler.submit(wanting(backend, 10, 10**6))
        until(lambda: running.waited is not None)
        waiting = [scheduler.submit(wanting(backend, 10, 1)) for _ in range(2)]
        with pytest.raises(Busy, match="2 requests are waiting already"):
            scheduler.submit(wanting(backend, 10, 1))
        running.cancel()
        assert [job.future.result(60) for job in waiting] == [1, 1]


def test_a_higher_priority_goes_first() -> None:
    backend = backend_of(*model_of())
    order: list[str] = []

    def named(name: str) -> Passes[None]:
        yield from wanting(backend, 10, 1)
        order.append(name)

    with Scheduler(backend, Limits(running=1)) as scheduler:
        held = scheduler.submit(wanting(backend, 10, 10**6))
        jobs = [scheduler.submit(named("low")), scheduler.submit(named("high"), priority=5)]
        jobs.append(scheduler.submit(named("low too")))
        held.cancel()
        for job in jobs:
            job.future.result(60)
    assert order == ["high", "low", "low too"]


def test_closing_ends_what_runs_and_what_waits() -> None:
    backend = backend_of(*model_of())
    with Scheduler(backend, Limits(running=1)) as scheduler:
        jobs = [scheduler.submit(wanting(backend, 10, 10**6)) for _ in range(2)]
    for job in jobs:
        with pytest.raises(Closed):
            job.future.result(1)
    with pytest.raises(Closed):
        scheduler.submit(wanting(backend, 1, 1))


def test_a_model_has_one_scheduler_at_a_time() -> None:
    backend = backend_of(*model_of())
    with Scheduler(backend) as scheduler:
        with pytest.raises(SakuinError, match="run by another scheduler"), Scheduler(backend):
            pass
        assert scheduler.submit(wanting(backend, 3, 1)).future.result(60) == 1
    with Scheduler(backend), pytest.raises(SakuinError), run_by(scheduler, backend.model):
        pass


def test_who_waits_inside_it_is_told() -> None:
    backend = backend_of(*model_of())

    def waiting(scheduler: Scheduler) -> Iterator[Any]:
        scheduler.run(wanting(backend, 3, 1))
        yield

    with Scheduler(backend) as scheduler, pytest.raises(RuntimeError, match="cannot wait"):
        scheduler.run(waiting(scheduler))  # type: ignore[arg-type]
