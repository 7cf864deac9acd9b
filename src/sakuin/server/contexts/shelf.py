"""Which contexts a tenant has, and having them open.

Without keys all contexts are the library's own. With keys a tenant has a library of its own, in the folder
`tenants/NAME` of the library, which shares nothing with others, so that neither what is found nor how long it
takes tells one tenant of another; the library's own contexts can be granted to it by name, to be asked and
seen. What is read into a library is the business of `sakuin.server.contexts.readings`. Called by the routes.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from sakuin.backends.base import Backend
from sakuin.context.context import Context
from sakuin.errors import SakuinError
from sakuin.library import Library
from sakuin.library.folder import Stored, checked_name, expired
from sakuin.library.listing import Entry
from sakuin.server.problems import Problem
from sakuin.server.tenants.tenant import Tenant

MOST_OPEN = 64
"""Contexts that are kept open."""
MOST_BYTES = 32 << 30
"""Bytes of the files of contexts that are kept open: mapped, so that the system takes back what it needs."""
_NOTED_S = 30.0
"""Seconds after which it is noted again that an open context is used."""


def missing(name: str) -> Problem:
    """There is no such context for whoever asks, whoever else may have one."""
    return Problem(
        404,
        f"There is no context {name!r:.120}; GET /v1/contexts lists what there is.",
        "context",
        "context_not_found",
    )


@dataclass
class _Open:
    """A context that is open, or that somebody opens. stored : what it was opened by."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    stored: Stored | None = None
    context: Context | None = None
    noted: float = 0.0


class Shelves:
    """The contexts of all tenants, in the library at `root` (its default place where that is None).

    most, most_bytes : contexts that are kept open, and bytes of their files.
    pending : set by whoever reads contexts: why one that is not there yet cannot be asked, or None.
    """

    def __init__(
        self,
        root: str | Path | None,
        backend: Backend,
        most: int = MOST_OPEN,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.root = Library(root).folder.path.absolute()
        self.library = Library(self.root)
        self.backend = backend
        self.pending: Callable[[Tenant, str], Problem | None] = lambda _, __: None
        self._most, self._most_bytes = most, most_bytes
        self._libraries: dict[str, Library] = {}
        self._open: OrderedDict[tuple[str, str], _Open] = OrderedDict()
        self._lock, self._making = threading.Lock(), threading.Lock()

    def of(self, tenant: Tenant) -> Shelf:
        """What this tenant has."""
        return Shelf(self, tenant)

    def library_of(self, tenant: str) -> Library:
        """The library of the tenant of this name, there or not; "" is who asks a server without keys."""
        if not tenant:
            return self.library
        with self._lock:
            if tenant not in self._libraries:
                self._libraries[tenant] = Library(self.root / "tenants" / checked_name(tenant))
            return self._libraries[tenant]

    def writable(self, tenant: Tenant) -> Library:
        """The tenant's library, made where it is not there yet, with the quota that it has now."""
        library = self.library_of(tenant.name)
        with self._making:
            self.library.folder.make()  # the one around it first
            library.folder.make()
            library.folder.check_writable()
            if not tenant.is_anyone and library.quota != tenant.allowed.stored_bytes:
                library.quota = tenant.allowed.stored_bytes
        return library

    def counts(self) -> tuple[int, int]:
        """How many contexts are open, and the bytes of their files."""
        with self._lock:
            return self._counts()

    def open_contexts(self, library: Library | None = None) -> list[Context]:
        """What is open now, of all libraries or of one."""
        folder = None if library is None else str(library.folder.path)
        with self._lock:
            found = [one.context for key, one in self._open.items() if folder in (None, key[0])]
        return [context for context in found if context is not None]

    def close(self) -> None:
        """Let go of what is open; whoever asks one of them goes on with it."""
        with self._lock:
            self._open.clear()

    def opened(self, library: Library, name: str) -> Context:
        """The context of a library, open; what is open already is taken as it is, unless it has changed."""
        key = str(library.folder.path), name
        with self._lock:
            one = self._open.setdefault(key, _Open())
            self._open.move_to_end(key)
        with one.lock:  # who comes second waits, and finds it open
            stored, now = one.stored, time.monotonic()
            if one.context is None or stored is None or not library.folder.is_newest(stored):
                try:
                    stored = library.find(name)
                    one.context = library.open(stored, self.backend.model, self.backend.tokenizer)
                except BaseException:
                    self._forget(key)
                    raise
                one.stored, one.noted = light(stored), now
                self._let_go()
            elif now - one.noted > _NOTED_S:
                one.noted = now
                library.folder.touch(name, asked=True)
            if expired(stored.manifest):
                self._forget(key)
                raise missing(name)
            return one.context

    def _forget(self, key: tuple[str, str]) -> None:
        with self._lock:
            self._open.pop(key, None)

    def _let_go(self) -> None:
        """Close what was not asked for the longest time, as far as there are too many."""
        with self._lock:
            while len(self._open) > 1:
                count, size = self._counts()
                if count <= self._most and size <= self._most_bytes:
                    return
                self._open.popitem(last=False)

    def _counts(self) -> tuple[int, int]:
        stored = [one.stored for one in self._open.values() if one.stored is not None]
        return len(stored), sum(one.manifest.size for one in stored)

    def told(self, error: SakuinError) -> str:
        """The sentence of an error without where on this machine things are."""
        root = re.escape(str(self.root))
        said = re.sub(rf" (in|at) {root}(/[^\s,;:'\"()]*)?", "", str(error))
        return re.sub(rf"{root}(/[^\s,;:'\"()]*)?", "the library", said)


def light(stored: Stored) -> Stored:
    """The same without the text and its tokens, which are nearly all of it: to know whether it is changed."""
    return replace(stored, manifest=replace(stored.manifest, ids=[], starts=[], ends=[], body=""))


@dataclass(frozen=True)
class Shelf:
    """What one tenant has: its own contexts, and those that are granted to it."""

    shelves: Shelves
    tenant: Tenant

    @property
    def library(self) -> Library:
        """The tenant's own."""
        return self.shelves.library_of(self.tenant.name)

    def entries(self) -> list[tuple[Entry, bool]]:
        """All contexts that can be asked, by name, and whether each is one that is shared with the tenant."""
        own = [(entry, False) for entry in self.library.entries() if entry.state == "whole"]
        if self.tenant.is_anyone or not self.tenant.grants:
            return own
        names = {entry.name for entry, _ in own}
        shared = [
            (entry, True)
            for entry in self.shelves.library.entries()
            if entry.state == "whole" and entry.name in self.tenant.grants and entry.name not in names
        ]
        return sorted([*own, *shared], key=lambda found: found[0].name)

    def where(self, name: str) -> tuple[Library, str, bool]:
        """In which library a context is, how it is called there, and whether it is shared with the tenant.

        Raises `Problem` where there is none, or it is still being read.
        """
        try:
            found = checked_name(name)
        except (SakuinError, TypeError):
            raise missing(name) from None
        if self.library.folder.manifest(found).is_file():
            return self.library, found, False
        if (why := self.shelves.pending(self.tenant, found)) is not None:
            raise why
        shared = self.shelves.library
        granted = not self.tenant.is_anyone and found in self.tenant.grants
        if granted and shared.folder.manifest(found).is_file():
            return shared, found, True
        raise missing(name)

    def find(self, name: str) -> tuple[Stored, bool]:
        """The context as its manifest says, and whether it is shared with the tenant."""
        library, name, shared = self.where(name)
        try:
            stored = library.folder.find(name, late=True)
        except SakuinError as error:
            raise self._problem(library, name, error) from None
        if expired(stored.manifest):
            raise missing(name)
        return stored, shared

    def open(self, name: str) -> Context:
        """The context, to be asked: not to be changed, since all who ask it have the same."""
        library, name, _ = self.where(name)
        try:
            return self.shelves.opened(library, name)
        except Problem:
            raise
        except SakuinError as error:
            raise self._problem(library, name, error) from None

    def remove(self, name: str) -> None:
        """Remove a context of the tenant's own."""
        library, name, shared = self.where(name)
        if shared:
            raise not_yours(name)
        try:
            library.remove(name)
        except SakuinError as error:
            problem = self._problem(library, name, error)
            if problem.status != 404:  # another process is at it
                problem = Problem(409, str(problem), "context", "busy")
            raise problem from None
        self.shelves._forget((str(library.folder.path), name))

    def _problem(self, library: Library, name: str, error: SakuinError) -> Problem:
        """Why a context that was there cannot be had."""
        if isinstance(error, Problem):
            return error
        try:
            late = expired(library.folder.find(name, late=True).manifest)
        except SakuinError:
            late = not library.folder.manifest(name).is_file()
        return missing(name) if late else Problem(400, self.shelves.told(error), "context")


def not_yours(name: str) -> Problem:
    """Somebody wants to change what is only shared with it."""
    return Problem(
        403,
        f"The context {name!r} is shared with you: it can be asked and seen, and only who runs the server "
        "can change it.",
        "context",
        "context_shared",
    )
