"""Which thread seals, and that nothing else depends on it."""

from __future__ import annotations

import threading

import pytest
import torch

from sakuin import RetrievalConfig
from sakuin.cache.sealing import Job, Meter, Sealer
from sakuin.cache.sequence import TokenSequence
from sakuin.index.base import Index, new_index
from sakuin.index.sketch import SketchIndex

HEADS, KV_HEADS, DIM, SEGMENT = 4, 2, 16, 256
CONFIG = RetrievalConfig(index="sketch", sink=4, recent=16, segment=SEGMENT)


def tokens(n: int, heads: int = KV_HEADS) -> torch.Tensor:
    return torch.randn(heads, n, DIM, generator=torch.Generator().manual_seed(n + heads))


def job_of(base: Index | Job | None = None, in_tail: bool = False) -> Job:
    base = new_index(KV_HEADS, DIM, HEADS // KV_HEADS, CONFIG) if base is None else base
    keys = tokens(SEGMENT)
    return Job(keys, keys + 1, tokens(SEGMENT // 4, HEADS), base, Meter(), in_tail=in_tail, due=0)


@pytest.fixture
def appended(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that have appended to an index since."""
    found: list[threading.Thread] = []
    append = SketchIndex.append

    def noted(self: SketchIndex, *run: torch.Tensor | None) -> None:
        found.append(threading.current_thread())
        append(self, *run)

    monkeypatch.setattr(SketchIndex, "append", noted)
    return found


@pytest.fixture(params=[True, False], ids=["spare core", "no spare core"])
def spare(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr("sakuin.cache.sealing.spare_core", lambda: request.param)
    return request.param


@pytest.fixture
def no_spare_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sakuin.cache.sealing.spare_core", lambda: False)


def test_where_no_core_is_spare_the_caller_seals(spare: bool, appended: list[threading.Thread]) -> None:
    sealer, job = Sealer(), job_of()
    sealer.submit(job)
    assert job.done or spare
    assert job.result().n_tokens == SEGMENT
    assert (appended == [threading.current_thread()]) is not spare


def test_growth_in_decoding_and_models_on_a_device_have_the_worker(
    no_spare_core: None, appended: list[threading.Thread]
) -> None:
    sealer = Sealer()
    growth, beside = job_of(in_tail=True), job_of()
    sealer.submit(growth)
    sealer.submit(beside, beside_device=True)
    assert growth.result().n_tokens == beside.result().n_tokens == SEGMENT
    assert threading.current_thread() not in appended


def test_the_caller_waits_for_what_the_worker_has_of_the_same_sequence(no_spare_core: None) -> None:
    sealer, first = Sealer(), job_of(in_tail=True)
    sealer.submit(first)
    second = job_of(first)
    sealer.submit(second)
    assert second.done
    assert second.result().n_tokens == 2 * SEGMENT


def test_an_error_is_kept_for_who_wants_the_index(spare: bool) -> None:
    sealer, job = Sealer(), job_of()
    job.keys[0, 3] = float("nan")
    sealer.submit(job)
    following = job_of(job)
    sealer.submit(following)
    for each in (job, following):
        with pytest.raises(ValueError, match="keys"):
            each.result()


def test_what_failed_for_want_of_memory_is_tried_again_when_it_is_needed(
    spare: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, failures = SketchIndex.append, [MemoryError("no memory")] * 2

    def failing(self: SketchIndex, *run: torch.Tensor | None) -> None:
        if failures:
            raise failures.pop()
        append(self, *run)

    monkeypatch.setattr(SketchIndex, "append", failing)
    sealer, first = Sealer(), job_of()
    sealer.submit(first)
    second = job_of(first)
    with pytest.raises(MemoryError):
        first.result()
    sealer.submit(second)
    assert not failures
    assert second.result().n_tokens == 2 * SEGMENT
    assert first.result().n_tokens == SEGMENT


def test_a_job_that_an_interrupt_kept_from_the_worker_is_done_by_who_needs_it() -> None:
    first = job_of()
    second = job_of(first)
    assert second.result().n_tokens == 2 * SEGMENT


def test_the_jobs_of_a_cache_that_is_gone_are_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sakuin.cache.sealing.spare_core", lambda: True)
    append, running, go = SketchIndex.append, threading.Event(), threading.Event()

    def slow(self: SketchIndex, *run: torch.Tensor | None) -> None:
        running.set()
        assert go.wait(60)
        append(self, *run)

    monkeypatch.setattr(SketchIndex, "append", slow)
    sealer, jobs = Sealer(), [job_of() for _ in range(3)]
    for job in jobs:
        sealer.submit(job)
    assert running.wait(60)
    thread = sealer._thread
    assert thread is not None
    del sealer
    go.set()
    thread.join(60)
    assert [job.sealed for job in jobs] == [True, False, False]
    with pytest.raises(RuntimeError, match="sealing was stopped"):
        jobs[2].result()


def test_an_interrupt_is_raised_at_once_and_loses_no_tokens(
    no_spare_core: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = SketchIndex.append
    interrupts = [KeyboardInterrupt()]

    def interrupted(self: SketchIndex, *run: torch.Tensor | None) -> None:
        append(self, *run)
        if interrupts:
            raise interrupts.pop()

    monkeypatch.setattr(SketchIndex, "append", interrupted)
    keys = tokens(4 + SEGMENT + 16)
    sequence = TokenSequence(keys, keys, HEADS, CONFIG, torch.float32, Sealer(), Meter())
    sequence.append(keys, keys + 1, tokens(4 + SEGMENT + 16, HEADS))
    with pytest.raises(KeyboardInterrupt):
        sequence.seal_full_segments()
    sequence.flush()
    assert sequence.index.n_tokens == SEGMENT
    held = torch.cat([block[0] for block in sequence.past()], 1)
    assert torch.equal(held.sort(1).values, keys.sort(1).values)


def test_the_modes_of_the_caller_do_not_reach_what_is_sealed(spare: bool) -> None:
    def sealed() -> dict[str, torch.Tensor]:
        sealer, job = Sealer(), job_of()
        sealer.submit(job)
        (segment,) = job.result().stored()
        return dict(segment.tensors)

    expected = sealed()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = sealed()
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert not found[name].is_inference(), name
        assert torch.equal(found[name], x), name
