"""Uploads become contexts: a few threads read them, one after another, into their tenants' libraries.

What is taken lies on the disk (`spool`) and is read whatever happens to the server in between: a reading that
was interrupted goes on from what of it is stored. Two uploads of one context are never read at once, and
those of different tenants take turns (`queue`). Called by the routes; what is said of a context is in
`described`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from sakuin.config import RetrievalConfig
from sakuin.errors import SakuinError, is_out_of_memory
from sakuin.library import Library
from sakuin.library.folder import normal
from sakuin.machine.threads import let_team_go
from sakuin.server.contexts.job import Cancelled, Job, Stopped, error_of, read
from sakuin.server.contexts.queue import Queue
from sakuin.server.contexts.shelf import Shelves, missing
from sakuin.server.contexts.spool import Place, Spool, Wish
from sakuin.server.problems import Problem
from sakuin.server.scheduler import Busy, Closed
from sakuin.server.settings import Settings
from sakuin.server.tenants.tenant import Tenant

log = logging.getLogger("sakuin.server.contexts")

_PATIENCE_S = 120.0
"""Seconds within which a reading that is cancelled ends: a chunk of a long text takes so long at most."""


class Readings:
    """Reads uploads: `with Readings(shelves, settings) as readings: …`, while the scheduler is open.

    config : how contexts are kept. threads : that read at once.
    """

    def __init__(
        self,
        shelves: Shelves,
        settings: Settings | None = None,
        config: RetrievalConfig | None = None,
        threads: int = 2,
    ) -> None:
        self.shelves, self.settings = shelves, settings or Settings()
        self.spool = Spool(shelves.root / "spool")
        self._config = config
        self._queue = Queue()
        self._threads = [
            threading.Thread(target=self._work, name=f"sakuin reading {i}", daemon=True)
            for i in range(threads)
        ]
        shelves.pending = self._pending

    def __enter__(self) -> Self:
        for place, wish in self.spool.taken():
            job = Job(wish, place, resumed=True)
            if wish.error is None:
                self._queue.put(job)
            else:
                job.tokens = wish.error.get("n_prompt_tokens") or 0
                self._remember(job, _problem_of(wish.error))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_stopping(self) -> bool:
        """Whether the server goes down: whoever waits for a reading is not to wait any longer."""
        return self._queue.is_stopping

    def stop(self) -> None:
        """Read no more. What is being read ends with its next chunk, and goes on when the server is back."""
        self._queue.stop()

    def close(self, patience: float = 10.0) -> None:
        """Stop, and wait until nothing is read any more: a moment where the scheduler is closed already. A
        document that is just being taken apart is not waited for longer than `patience` seconds."""
        self.stop()
        until = time.monotonic() + patience
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(max(until - time.monotonic(), 0.1))
        self.spool.close()

    def counts(self) -> tuple[int, int]:
        """How many uploads are being read, and how many wait."""
        return self._queue.counts()

    # -- for routes: all of these may wait for the disk ------------------------------------------------------

    def place(self, tenant: Tenant) -> Place:
        """A folder for an upload of the tenant's, which is to be taken or given up.

        Raises `Problem` where too many uploads wait, or nothing can be written.
        """
        self._queue.check_room(tenant.name)
        try:
            self.shelves.writable(tenant)
            return self.spool.new()
        except Problem:
            raise
        except (SakuinError, OSError) as error:
            log.error("nothing can be stored: %s", error)
            why = (
                self.shelves.told(error) if isinstance(error, SakuinError) else "the disk cannot be written."
            )
            raise Problem(507, f"Nothing can be stored now: {why}", code="unwritable") from None

    @staticmethod
    def give_up(place: Place) -> None:
        """Remove an upload that was not taken."""
        try:
            taken = place.recorded() is not None
        except SakuinError:
            taken = True
        if not taken:
            place.remove()

    def take(self, wish: Wish, place: Place) -> Job:
        """Acknowledge an upload: when this returns, it will be read whatever happens to the server.

        Raises `Problem` where there is a context of this name already, or to append to, none.
        """
        job = Job(wish, place)
        with self._queue.reserving(job.key):
            there = bool(self._queue.jobs(job.key)) or self._is_there(wish)
            if wish.kind == "add" and there:
                raise is_taken(wish.name)
            if wish.kind == "append" and not there:
                raise self._pending(Tenant(wish.tenant), wish.name) or missing(wish.name)
            place.record(wish)
            for failed in self._queue.forget(job.key):
                failed.place.remove()
            self._queue.put(job)
        return job

    def _is_there(self, wish: Wish) -> bool:
        return self.shelves.library_of(wish.tenant).is_there(wish.name)

    def jobs(self, tenant: str, name: str) -> list[Job]:
        """What of the context is to be read, in order."""
        return self._queue.jobs((tenant, normal(name)))

    def glance(self, tenant: Tenant, name: str) -> tuple[Job, str, int] | None:
        """What is different when the reading of a context has gone on; None where nothing is to be read. Of
        memory alone."""
        jobs = self.jobs(tenant.name, name)
        return (jobs[0], jobs[0].status, jobs[0].tokens_done) if jobs else None

    def failed(self, tenant: str, name: str) -> Job | None:
        """The last reading of the context, where it failed."""
        return self._queue.failed((tenant, normal(name)))

    def names(self, tenant: str) -> list[str]:
        """The contexts of a tenant that are to be read, or could not be."""
        return self._queue.names(tenant)

    def remove(self, tenant: Tenant, name: str) -> None:
        """Remove a context: what is stored, and what is to be read into it, which ends now."""
        key = tenant.name, normal(name)
        with self._queue.reserving(key):
            waiting, reading = self._queue.cancel(key)
            for job in [*waiting, *reading]:
                job.place.remove()  # it is not read again, whatever happens now
            for job in waiting:
                self._queue.over(job)
            self._wait(name, reading)
            failed = self._queue.forget(key)
            for job in failed:
                job.place.remove()
            self._remove_stored(tenant, name, begun=bool(waiting or reading or failed))

    def _wait(self, name: str, jobs: list[Job]) -> None:
        """Return when these are over."""
        until = time.monotonic() + _PATIENCE_S
        for job in jobs:
            while not job.over.wait(0.2):
                self._queue.check_open()
                if time.monotonic() > until:
                    raise Problem(409, f"The context {name!r} is still being read: try again.", code="busy")

    def _remove_stored(self, tenant: Tenant, name: str, begun: bool) -> None:
        """Remove what is in the library. begun : there may be nothing yet."""
        library = self.shelves.library_of(tenant.name)
        whole, unfinished = (library.folder.manifest(name, part).is_file() for part in (False, True))
        if whole or not (unfinished or begun):
            self.shelves.of(tenant).remove(name)
        elif unfinished:
            try:
                library.remove(name)
            except SakuinError as error:
                raise Problem(409, self.shelves.told(error), "context", "busy") from None

    @contextmanager
    def changing(self, tenant: Tenant, *names: str) -> Iterator[Library]:
        """Within, nothing is read into these contexts, and nobody takes their names."""
        keys = [(tenant.name, normal(name)) for name in dict.fromkeys(names)]
        with self._queue.reserving(*keys):
            if any(self._queue.jobs(key) for key in keys):
                said = f"The context {names[0]!r} is being read: change it when it is ready."
                raise Problem(409, said, code="busy")
            yield self.shelves.library_of(tenant.name)
            for job in self._queue.forget(*keys):
                job.place.remove()

    # -- inside ----------------------------------------------------------------------------------------------

    def _pending(self, tenant: Tenant, name: str) -> Problem | None:
        """Why a context that is not there yet cannot be asked."""
        if jobs := self.jobs(tenant.name, name):
            done = jobs[0].tokens_done / max(jobs[0].tokens, 1)
            said = f"The context {name!r} is still being read ({done:.0%}): ask when it is ready."
            return Problem(409, said, "context", "context_not_ready", {"Retry-After": "1"})
        if (failed := self.failed(tenant.name, name)) is not None and failed.wish.kind == "add":
            said = f"The context {name!r} could not be read: {failed.error}"
            return Problem(409, said, "context", "context_failed")
        return None

    def _remember(self, job: Job, problem: Problem) -> None:
        """Let it be seen that a reading failed."""
        for gone in self._queue.fail(job, problem):
            gone.place.remove()

    def _work(self) -> None:
        while (job := self._queue.next()) is not None:
            self._read_safely(job)
            let_team_go()

    def _read_safely(self, job: Job) -> None:
        try:
            self._read(job)
        except BaseException as error:  # a job without an end would leave all others waiting
            log.error("a reading ended in a way that was not foreseen", exc_info=error)
            self._end(job, _unforeseen())

    def _read(self, job: Job) -> None:
        library = self.shelves.library_of(job.wish.tenant)
        try:
            job.check()
            read(job, library, self.shelves.backend, self._config)
            self._end(job)
        except Cancelled:
            self._clean(job, library)
            self._end(job)
        except (Stopped, Closed):
            self._queue.later(job)
            self.stop()  # where the scheduler is closed, nothing can be read
        except Busy:
            self._queue.later(job)
        except Exception as error:
            if job.cancelled:  # and what it was reading was removed meanwhile
                self._clean(job, library)
                self._end(job)
            elif library.folder.is_being_read(job.wish.name):  # by another process: it will be done
                self._queue.later(job)
            else:
                self._clean(job, library)
                self._end(job, self._problem(error))

    def _problem(self, error: Exception) -> Problem:
        """Why a reading failed."""
        if isinstance(error, Problem):
            return error
        if isinstance(error, SakuinError):
            return Problem(400, self.shelves.told(error))
        if is_out_of_memory(error):
            said = "There was not enough memory to read it: upload less, or try again later."
            return Problem(503, said, code="no_memory")
        log.error("a reading failed", exc_info=error)
        return _unforeseen()

    @staticmethod
    def _clean(job: Job, library: Library) -> None:
        """Remove what is stored of a context that will not be read to its end."""
        if job.wish.kind == "add" and library.folder.manifest(job.wish.name, unfinished=True).is_file():
            try:
                library.remove(job.wish.name)
            except SakuinError as error:
                log.warning("what is left of a reading stays: %s", error)

    def _end(self, job: Job, problem: Problem | None = None) -> None:
        """It was read, has failed, or is not wanted any more."""
        try:
            if problem is None or job.cancelled:
                job.place.remove()
            else:
                job.wish = job.place.fail(job.wish, error_of(problem))
                self._remember(job, problem)
        except (SakuinError, OSError) as error:  # a full disk: it is tried again at the next start
            log.error("the end of a reading cannot be noted: %s", error)
        finally:
            self._queue.over(job)
        if problem is not None and job.wish.kind == "add":
            for more in self._queue.cancel(job.key)[0]:  # what was to be appended to it
                more.error = problem
                more.place.remove()
                self._queue.over(more)


def is_taken(name: str) -> Problem:
    """A context has the name."""
    return Problem(
        409,
        f"There is a context {name!r} already: take another name, append to it "
        f"(POST /v1/contexts/{name}/append), or DELETE it first.",
        "name",
        "context_exists",
    )


def _unforeseen() -> Problem:
    return Problem(500, "Something went wrong in the server; its log says what.", code="internal")


def _problem_of(error: Mapping[str, Any]) -> Problem:
    """A failure that was kept, as it was."""
    more = {key: error[key] for key in ("n_prompt_tokens", "n_ctx") if key in error}
    return Problem(
        int(error.get("status", 500)),
        str(error.get("message")),
        error.get("param"),
        error.get("code"),
        **more,
    )
