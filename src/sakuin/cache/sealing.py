"""Sealing in the background: one worker thread per cache turns runs of tokens into index segments, in order.

Where the model's threads keep every core busy a worker would only take theirs, in the middle of parallel
work, so that all of them wait for the one that is late. There a job whose tokens have left the tail is run by
who submits it, with all threads.

An index is treated as a value here: a job forks the newest index of its sequence, appends to the fork, and
hands the fork back. So nobody waits for a lock, and a step never sees an index that is half built. What to
seal and when is decided in `sakuin.cache.sequence`; this module only runs it, carries errors to the caller
and leaves no thread behind.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import perf_counter

import torch
from torch import Tensor

from sakuin.cache.offload import to_disk
from sakuin.index.base import Index
from sakuin.index.scratch import drop_scratch, keep_scratch
from sakuin.machine.threads import spare_core, work_alone

_IDLE = 5.0
"""Seconds without a job after which the worker gives up its scratch memory."""


@dataclass
class Meter:
    """Seconds that sealing took for one cache."""

    seconds: float = 0.0


class Job:
    """One run of tokens on its way into the index.

    keys, values : CPU tensors `(n_kv_heads, n, head_dim)`, in the stored dtype.
    queries : CPU tensor `(n_query_heads, m, head_dim)` or None.
    base : the index to append to, or the job that makes it.
    in_tail : whether the tokens still lie in the sequence's unsealed buffer (then the job is only published
    at `due` tokens).
    """

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        queries: Tensor | None,
        base: Index | Job,
        meter: Meter,
        *,
        in_tail: bool,
        due: int,
    ) -> None:
        self.keys, self.values, self.queries = keys, values, queries
        self.n_tokens = keys.shape[1]
        self.in_tail, self.due = in_tail, due
        self._base: Index | Job | None = base
        self._meter = meter
        self._result: Index | None = None
        self._error: BaseException | None = None
        self._given_up = False
        self._done = threading.Event()
        self._turn = threading.Lock()
        self.handed_over = False
        _JOBS.add(self)

    @property
    def done(self) -> bool:
        return self._done.is_set()

    @property
    def sealed(self) -> bool:
        """Whether it is done, without an error."""
        return self._result is not None and self.done

    def run(self) -> None:
        """Append to a fork of the base. Errors are kept for `result`.

        An interrupt is raised, and leaves the job as if it had not been run.
        """
        with self._turn:
            if not self.done:
                self._append()

    def _append(self) -> None:
        started = perf_counter()
        try:
            base = self._base.result() if isinstance(self._base, Job) else self._base
            assert base is not None
            index = base.fork()
            index.append(self.keys, self.values, self.queries)
            if index.config.offload == "disk":
                to_disk(index)
            self._result, self._error, self._base = index, None, None
        except Exception as error:
            self._error = error
        self._meter.seconds += perf_counter() - started
        self._done.set()

    def fail(self, error: BaseException) -> None:
        """Not to be run any more: whoever waits gets this error."""
        self._error, self._given_up = error, True
        self._done.set()

    def after_fork(self) -> None:
        """The worker is the parent's: whoever waits in the child runs the job."""
        done, self._done, self._turn = self._done.is_set(), threading.Event(), threading.Lock()
        if done:
            self._done.set()
        else:
            self.handed_over = False

    def abandon(self) -> None:
        """Never to be run: whoever waits gets an error instead of waiting for ever."""
        self.fail(
            RuntimeError(
                "sealing was stopped before this part of the context was indexed; build the cache again"
            )
        )

    def result(self) -> Index:
        """The index with this job's tokens, waiting for the worker if need be. A job that failed, for lack of
        memory or of room on the disk, is tried again here; what fails again is raised."""
        if not self.handed_over:  # an interrupt came between making it and handing it over
            with _as_in_a_thread():
                self.run()
        self._done.wait()
        if self._error is not None and not self._given_up:
            with self._turn, _as_in_a_thread():
                if self._error is not None:
                    self._append()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result


class Sealer:
    """The worker thread of one cache and its forks; it starts with the first job and ends with the last of
    them."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        weakref.finalize(self, self._queue.put, None)  # one call that no interrupt parts

    def submit(self, job: Job, beside_device: bool = False) -> None:
        """Run `job` after its base: in the calling thread where no core is spare and its tokens have left the
        tail, else on the worker, after all that were submitted before.

        beside_device : whether the model computes elsewhere, so that the cores are spare whatever it uses.
        """
        if job.in_tail or beside_device or spare_core():
            self._hand_over(job)
            return
        try:
            with _as_in_a_thread():
                job.run()
            job.handed_over = True
        except BaseException:  # an interrupt: the tokens are nowhere else any more
            self._hand_over(job)
            raise

    def _hand_over(self, job: Job) -> None:
        if _closing.is_set():  # no thread can be started any more; who needs the index makes it
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(
                    target=_work, args=(self._queue, weakref.ref(self)), name="sakuin-sealing", daemon=True
                )
                _WORKERS[thread] = self._queue
                thread.start()
                self._thread = thread
        self._queue.put(job)
        job.handed_over = True

    def after_fork(self) -> None:
        """Begin anew in the child, without the parent's thread and without its jobs, which know of it."""
        self._lock, self._thread = threading.Lock(), None
        self._queue = SimpleQueue()
        weakref.finalize(self, self._queue.put, None)


def _dismiss(queue: SimpleQueue[Job | None]) -> None:
    """Drop the jobs that wait, and let the thread end after the one that runs."""
    with suppress(Empty):
        while True:
            if (job := queue.get_nowait()) is not None:
                job.abandon()
    queue.put(None)


@contextmanager
def _as_in_a_thread() -> Iterator[None]:
    """Without the modes of torch that the caller is in, as in a new thread."""
    with torch.inference_mode(False), torch.autocast("cpu", enabled=False):
        yield


def _work(queue: SimpleQueue[Job | None], sealer: Callable[[], Sealer | None]) -> None:
    # Holds the queue and a weak reference, so that the thread keeps no cache alive.
    try:
        work_alone()
        keep_scratch()
        wait: float | None = None
        while True:
            try:
                job = queue.get(timeout=wait)
            except Empty:
                drop_scratch()
                wait = None
                continue
            if job is None:
                return
            if sealer() is None:  # nobody is there to want it
                job.abandon()
                continue
            try:
                job.run()
            except BaseException as error:
                job.fail(error)
            del job
            wait = _IDLE
    finally:
        _WORKERS.pop(threading.current_thread(), None)


_WORKERS: dict[threading.Thread, SimpleQueue[Job | None]] = {}
"""All threads that seal, with what they wait for. The sealer may be gone before its thread has ended."""
_closing = threading.Event()
_SEALERS: weakref.WeakSet[Sealer] = weakref.WeakSet()
_JOBS: weakref.WeakSet[Job] = weakref.WeakSet()


def _after_fork() -> None:
    _WORKERS.clear()  # they are the parent's
    for job in list(_JOBS):
        job.after_fork()
    for sealer in list(_SEALERS):
        sealer.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _stop_all() -> None:
    # A daemon thread that comes back from native code while the interpreter ends would take the process down
    # with it ("terminate called without an active exception").
    _closing.set()
    for thread, queue in list(_WORKERS.items()):
        _dismiss(queue)
        while thread.is_alive():
            with suppress(KeyboardInterrupt):
                thread.join()
