"""What finished requests have read, to be gone on from by requests that begin the same.

Each tenant has its own, so that nobody can tell by the time what another has asked. Called by
`sakuin.server.asking.origins` and `.running`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sakuin.backends.base import Backend
from sakuin.config import RetrievalConfig
from sakuin.snapshot.going_back import beginning
from sakuin.snapshot.part import Part

LEAST = 32
"""Tokens that are worth going on from."""


@dataclass
class Known:
    """Tokens that a cache holds. windows : its states on the way, where layers have windows. shared : whether
    several requests begin with it."""

    ids: np.ndarray
    cache: Any
    config: RetrievalConfig
    windows: Sequence[Part] = ()
    nbytes: int = 0
    shared: bool = False
    used: float = field(default_factory=time.monotonic)


class Kept:
    """Of all tenants. most_bytes : of host memory that they may take together."""

    def __init__(self, backend: Backend, most_bytes: int) -> None:
        self._backend, self._most = backend, most_bytes
        self._known: dict[str, list[Known]] = {}
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """What they take."""
        with self._lock:
            return sum(one.nbytes for many in self._known.values() for one in many)

    def keep(
        self,
        tenant: str,
        ids: Sequence[int],
        cache: Any,
        config: RetrievalConfig,
        *,
        held: int = 0,
        windows: Sequence[Part] = (),
        shared: bool = False,
    ) -> None:
        """Keep what a request has read and said. held : bytes of it that are kept elsewhere."""
        retrieval = self._backend.retrieval(cache)
        if retrieval is None or len(ids) < LEAST or not self._most:
            return
        retrieval.track_mass(False)
        nbytes = max(sum(self._backend.nbytes(cache).values()) - held, 0)
        new = Known(np.asarray(ids, np.int32), cache, config, windows, nbytes, shared)
        with self._lock:
            mine = self._known.setdefault(tenant, [])
            # What it goes on from is in it.
            mine[:] = [one for one in mine if one.shared or _common(one.ids, new.ids) < len(one.ids)]
            mine.append(new)
            self._make_room()

    def _make_room(self) -> None:
        every = [(one.used, tenant, one) for tenant, many in self._known.items() for one in many]
        total = sum(one.nbytes for *_, one in every)
        for _, tenant, one in sorted(every, key=lambda each: each[0]):
            if total <= self._most:
                break
            self._known[tenant] = [other for other in self._known[tenant] if other is not one]
            total -= one.nbytes

    def forget(self, tenant: str) -> None:
        """Let go of all that a tenant has."""
        with self._lock:
            self._known.pop(tenant, None)

    def longest(
        self, tenant: str, ids: Sequence[int], others: Iterable[Known], most: int, least: int = LEAST
    ) -> tuple[Any, int] | None:
        """A cache that nobody else holds with the longest beginning of `ids` that is known, of at most `most`
        tokens, and how many it has; None where that is less than `least`. others : what is known beside what
        was kept."""
        wanted = np.asarray(ids[:most], np.int32)
        with self._lock:
            mine = list(self._known.get(tenant, ()))
        every = [(_common(one.ids, wanted), one) for one in [*mine, *others]]
        best = max(every, key=lambda each: each[0], default=None)
        if best is None or best[0] < least:
            return None
        n, one = best
        one.used = time.monotonic()
        if n == len(one.ids):
            return self._backend.fork(one.cache), n
        begun = beginning(self._backend, one.config, one.cache, one.windows, n)
        if begun.n_tokens < least:
            return None
        # To go back takes as long as to read some hundred tokens: who begins like that is not the last.
        fork = self._backend.fork(begun.cache)
        self.keep(tenant, ids[: begun.n_tokens], fork, one.config, windows=begun.windows, shared=True)
        return begun.cache, begun.n_tokens


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """How many first tokens are the same."""
    n = min(len(a), len(b))
    if n and not np.array_equal(a[: min(n, LEAST)], b[: min(n, LEAST)]):
        n = min(n, LEAST)
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n
