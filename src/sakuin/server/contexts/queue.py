"""Which uploads wait to be read, which are being read, and which could not be.

Only what is held in memory: what is on the disk of it is the business of `sakuin.server.contexts.readings`,
who calls this.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sakuin.server.contexts.job import Job
from sakuin.server.problems import Problem
from sakuin.server.scheduler import Closed

_MOST, _MOST_EACH = 1024, 64
"""Uploads that wait, in all and of one tenant."""
_FAILED = 100
"""Readings that failed and are remembered, of one tenant."""
_AGAIN_S = 1.0
"""Seconds until what could not be read now is tried again."""

Key = tuple[str, str]
"""The tenant's name and the context's."""


class Queue:
    """Uploads in the order in which they are read. Several of one context are read one after another."""

    def __init__(self) -> None:
        self._jobs: dict[Key, list[Job]] = {}
        self._failed: dict[Key, Job] = {}
        self._reserved: set[Key] = set()
        self._changed = threading.Condition()
        self.is_stopping = False

    # -- what there is ---------------------------------------------------------------------------------------

    def jobs(self, key: Key) -> list[Job]:
        """What of a context is to be read, in order."""
        with self._changed:
            return list(self._jobs.get(key, ()))

    def failed(self, key: Key) -> Job | None:
        """The last reading of a context, where it failed."""
        with self._changed:
            return self._failed.get(key)

    def names(self, tenant: str) -> list[str]:
        """The contexts of a tenant that are to be read, or could not be."""
        with self._changed:
            return sorted({name for of, name in [*self._jobs, *self._failed] if of == tenant})

    def counts(self) -> tuple[int, int]:
        """How many uploads are being read, and how many wait."""
        with self._changed:
            every = [job for jobs in self._jobs.values() for job in jobs]
            reading = sum(job.is_read for job in every)
            return reading, len(every) - reading

    def check_room(self, tenant: str) -> None:
        """Raise `Problem` where so many wait that no more are taken."""
        with self._changed:
            self._check_open()
            own = sum(len(jobs) for (name, _), jobs in self._jobs.items() if name == tenant)
            every = sum(len(jobs) for jobs in self._jobs.values())
        if own >= _MOST_EACH or every >= _MOST:
            raise Problem(
                429,
                f"{own:,} of your uploads and {every - own:,} others wait to be read already: send more when "
                "some are done.",
                code="busy",
                headers={"Retry-After": "10"},
            )

    def check_open(self) -> None:
        """Raise `Closed` where nothing is taken any more."""
        with self._changed:
            self._check_open()

    def _check_open(self) -> None:
        if self.is_stopping:
            raise Closed("the server is going down.")

    # -- what comes and goes ---------------------------------------------------------------------------------

    @contextmanager
    def reserving(self, *keys: Key) -> Iterator[None]:
        """Within, nobody else takes, changes or removes these contexts."""
        with self._changed:
            self._check_open()
            if busy := [name for tenant, name in keys if (tenant, name) in self._reserved]:
                raise Problem(
                    409,
                    f"The context {busy[0]!r} is just being made or changed by another request: try again.",
                    "name",
                    "busy",
                    {"Retry-After": "1"},
                )
            self._reserved |= set(keys)
        try:
            yield
        finally:
            with self._changed:
                self._reserved -= set(keys)

    def put(self, job: Job) -> None:
        """Have a job done."""
        with self._changed:
            job.stopping = self.is_stopping
            self._jobs.setdefault(job.key, []).append(job)
            self._changed.notify_all()

    def next(self) -> Job | None:
        """What is to be read next; waits for it. None where no more is to be read."""
        with self._changed:
            while not self.is_stopping:
                reading = [one.wish.tenant for jobs in self._jobs.values() for one in jobs if one.is_read]
                heads = [jobs[0] for jobs in self._jobs.values() if jobs[0].status == "queued"]
                now = time.monotonic()
                if ready := [job for job in heads if job.not_before <= now]:
                    # Those of whom nothing is read yet go first; else who was first.
                    job = min(
                        ready,
                        key=lambda job: (reading.count(job.key[0]), -job.wish.priority, job.wish.created),
                    )
                    job.status = "reading"
                    return job
                self._changed.wait(min((job.not_before - now for job in heads), default=None))
            return None

    def later(self, job: Job) -> None:
        """It is to be read, and cannot be now."""
        with self._changed:
            job.not_before = time.monotonic() + _AGAIN_S
            job.status = "queued"
            self._changed.notify_all()

    def cancel(self, key: Key) -> tuple[list[Job], list[Job]]:
        """Let all that is to be read of a context end: those that wait, and those that are being read."""
        with self._changed:
            jobs = list(self._jobs.get(key, ()))
            waiting = [job for job in jobs if job.status == "queued"]
            for job in jobs:
                job.cancelled, job.status = True, "reading"  # so that no thread begins with it
            return waiting, [job for job in jobs if job not in waiting]

    def over(self, job: Job) -> None:
        """It was read, has failed, or is not wanted any more."""
        with self._changed:
            self._drop(job)
            job.over.set()
            self._changed.notify_all()

    def _drop(self, job: Job) -> None:
        jobs = self._jobs.get(job.key, [])
        if job in jobs:
            jobs.remove(job)
        if not jobs:
            self._jobs.pop(job.key, None)

    def fail(self, job: Job, problem: Problem) -> list[Job]:
        """Let it be seen that a reading failed, which holds its name no longer; those that are not remembered
        any more for it."""
        with self._changed:
            self._drop(job)
            job.error, job.status = problem, "failed"
            gone = [before for before in [self._failed.pop(job.key, None)] if before is not None]
            self._failed[job.key] = job
            own = [one for one in self._failed.values() if one.key[0] == job.key[0]]
            return gone + [self._failed.pop(one.key) for one in own[:-_FAILED]]

    def forget(self, *keys: Key) -> list[Job]:
        """The failures of these contexts, which are not remembered any more."""
        with self._changed:
            found = [self._failed.pop(key, None) for key in keys]
            return [job for job in found if job is not None]

    def stop(self) -> None:
        """Hand out no more, and let what is being read end."""
        with self._changed:
            self.is_stopping = True
            for jobs in self._jobs.values():
                for job in jobs:
                    job.stopping = True
            self._changed.notify_all()
