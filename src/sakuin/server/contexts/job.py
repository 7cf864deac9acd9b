"""One upload that is to be read: what it is, how far it is, and reading it.

Called by `sakuin.server.contexts.readings`, whose threads do it.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from sakuin.backends.base import Backend
from sakuin.capacity.disk import stored_bytes
from sakuin.config import RetrievalConfig
from sakuin.context.checks import TooLongError, reckoned
from sakuin.documents import Document
from sakuin.documents.reading import parsed
from sakuin.library import Library
from sakuin.prompts.holding import EditedError
from sakuin.prompts.reading import Reading
from sakuin.quantities import size_of
from sakuin.server.contexts.spool import Place, Spooled, Wish
from sakuin.server.problems import Problem

_UNSURE = 64
"""Tokens by which a text that was counted alone may differ from how it is read: those of the template, and
the last ones, which wait for the question."""


class Cancelled(Exception):
    """Nobody wants it any more."""


class Stopped(Exception):
    """The server goes down; it is read when it is back."""


class Job:
    """An upload that is acknowledged.

    status : queued, reading or failed. tokens, tokens_done : of what is to be read, as far as that is known.
    over : set when it was read, has failed, or was cancelled. resumed : whether an earlier server has left
    it. not_before : when it may be tried again, in seconds of `time.monotonic`.
    """

    def __init__(self, wish: Wish, place: Place, resumed: bool = False) -> None:
        self.wish, self.place, self.resumed = wish, place, resumed
        self.status = "queued"
        self.tokens = self.tokens_done = 0
        self.not_before = 0.0
        self.cancelled = False
        self.stopping = False
        self.over = threading.Event()
        self.error: Problem | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The tenant's name and the context's."""
        return self.wish.tenant, self.wish.name

    @property
    def is_read(self) -> bool:
        """Whether a thread is at it."""
        return self.status == "reading"

    def check(self) -> None:
        """Raise where it is not to go on."""
        if self.cancelled:
            raise Cancelled
        if self.stopping:
            raise Stopped

    def progress(self, done: int, new: int, phase: str) -> None:
        """As `Context` wants it."""
        self.check()
        if phase == "prefill":
            if self.tokens - new < _UNSURE:  # else what is stored of it already is not read again
                self.tokens = new
            self.tokens_done = self.tokens - new + done


def read(job: Job, library: Library, backend: Backend, config: RetrievalConfig | None) -> None:
    """Read what a job brought into the library.

    Raises `SakuinError` where that cannot be, `Cancelled` and `Stopped` where it is not wanted now.
    """
    try:
        (_add if job.wish.kind == "add" else _append)(job, library, backend, config)
    except TooLongError as error:
        raise too_long(error.what, job.tokens, backend.shape.window) from None
    except EditedError as error:
        said = f"{error.what}; append it with replace to let the new text take the place of the old one."
        raise Problem(409, said, "replace", "document_changed") from None


def too_long(what: str, tokens: int, window: int | None) -> Problem:
    """A text does not fit into the model's window."""
    return Problem(
        400,
        f"{what}: shorten it, or split it into several contexts.",
        "text",
        "context_length_exceeded",
        n_prompt_tokens=tokens or None,
        n_ctx=window,
    )


def check_text(text: str, backend: Backend) -> None:
    """Refuse at once a text that is far too long for the model's window."""
    window = backend.shape.window
    if window is not None and (tokens := reckoned(backend.vocabulary, text, window)) is not None:
        what = f"The text is about {tokens:,} tokens long and this model reads at most {window:,}"
        raise too_long(what, tokens, window)


def _add(job: Job, library: Library, backend: Backend, config: RetrievalConfig | None) -> None:
    wish = job.wish
    if job.resumed and library.is_there(wish.name):
        return  # it was read, and the server ended before it could forget it
    texts = _documents(job)
    if not any(text.text.strip() for text in texts):
        raise Problem(400, "The documents are empty; there is nothing to read.", "files")
    _count(job, backend, texts, 0)
    _check_quota(job, library, backend, config)
    library.add(
        wish.name,
        texts,
        backend.model,
        backend.tokenizer,
        config,
        job.progress,
        resume=True,
        pin=wish.pinned,
        keep_for=wish.keep_for,
        system=wish.system,
    )


def _append(job: Job, library: Library, backend: Backend, _: RetrievalConfig | None) -> None:
    stored = library.find(job.wish.name)
    held, length = len(stored.manifest.ids), len(stored.manifest.body)
    texts = _documents(job)
    more = texts[0].text if job.wish.files[0].is_text else None
    if more is None:
        # What is there already is not read again, also where an earlier server has read it.
        pass
    elif job.wish.before is None:
        job.wish = replace(job.wish, before=length)
        job.place.record(job.wish)
    elif length == job.wish.before + len(more) and stored.manifest.body.endswith(more):
        return
    _count(job, backend, texts, held)
    with library.appending(stored, backend.model, backend.tokenizer) as (context, keep):
        given: str | list[Document] = texts if more is None else more
        growth = context.append(given, job.progress, replace=job.wish.replace)
        job.check()
        if more is not None or any(change.what != "same" for change in growth.changes):
            keep()


def _documents(job: Job) -> list[Document]:
    """What was uploaded, as text."""
    found = []
    for one in job.wish.files:
        job.check()
        found.append(_document(job, one))
    job.check()
    return found


def _document(job: Job, one: Spooled) -> Document:
    data = job.place.bytes_of(one)
    if one.is_text:
        return Document(one.name, data.decode())
    # Known by its name: where it lay at whoever uploaded it is not known.
    return replace(parsed(data, one.name, job.wish.encoding, ""), path=None)


def _count(job: Job, backend: Backend, texts: list[Document], held: int) -> None:
    """How many tokens there are to be read; refuses what is more than the tenant may have in one context."""
    body = Reading().with_documents(texts).body
    most = max(backend.shape.window or 0, job.wish.context_tokens or 0)
    about = reckoned(backend.vocabulary, body, most) if most else None
    tokens = about if about is not None else len(backend.vocabulary.encode(body).ids)
    job.tokens = tokens
    allowed = job.wish.context_tokens
    if allowed is not None and held + tokens > allowed:
        what = f"The context would be about {held + tokens:,} tokens long and your key allows {allowed:,}"
        raise too_long(what, held + tokens, allowed)
    job.check()


def _check_quota(job: Job, library: Library, backend: Backend, config: RetrievalConfig | None) -> None:
    """Say before the work that a context can never be kept."""
    quota = library.quota
    need = stored_bytes(backend.shape, backend.dtype, config or RetrievalConfig(), job.tokens, 0)
    if quota is not None and need > quota:
        raise Problem(
            400,
            f"The context would take about {size_of(need)} of the disk and {size_of(quota)} may be stored "
            "in all; upload less.",
            "files",
            "quota_exceeded",
        )


def error_of(problem: Problem) -> dict[str, Any]:
    """As it is kept and shown."""
    found: dict[str, Any] = problem.body()["error"]
    return found | {"status": problem.status}
