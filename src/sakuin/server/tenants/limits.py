"""How much a tenant may ask: requests a minute, and requests at once.

What its contexts may take is looked at where they are stored. Called by `sakuin.server.tenants.door`.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sakuin.server.problems import Problem
from sakuin.server.tenants.tenant import Allowed, Tenant

MINUTE = 60.0
TIMES_LOOKS = 10
"""Requests that only look, for each that a tenant may ask: they cost little, and the console polls."""
_SOON = "1"

_Who = tuple[str, bool]
"""A tenant's name, and whether it looks."""


class TenantLimits:
    """Counts what each tenant asks. clock : seconds that never go back. From any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._begun: dict[_Who, deque[float]] = {}
        self._running: dict[_Who, int] = {}

    @contextmanager
    def enter(self, tenant: Tenant, looks: bool = False) -> Iterator[None]:
        """Count a request of `tenant`, and let it run until the end of the `with`.

        looks : whether it changes and computes nothing, as one for how far a document is read. These are
        counted by themselves, and `TIMES_LOOKS` times as many may come.
        Raises `Problem` 429 where that would be one too many; what is refused is not counted.
        """
        who = tenant.name, looks
        self._begin(who, tenant.allowed)
        try:
            yield
        finally:
            self._end(who)

    def _begin(self, who: _Who, allowed: Allowed) -> None:
        said, times = ("look", TIMES_LOOKS) if who[1] else ("ask", 1)
        with self._lock:
            running = self._running.get(who, 0)
            if allowed.concurrent is not None and running >= (most := times * allowed.concurrent):
                raise Problem(
                    429,
                    f"This key may {said} {most} at once, and that many are running: wait until one has "
                    "ended.",
                    code="too_many_at_once",
                    headers={"Retry-After": _SOON},
                )
            if allowed.requests_per_minute is None:
                self._begun.pop(who, None)
            else:
                self._count(who, times * allowed.requests_per_minute, said)
            self._running[who] = running + 1

    def _count(self, who: _Who, most: int, said: str) -> None:
        """Count a request by the minute. The caller holds the lock."""
        now = self._clock()
        begun = self._begun.setdefault(who, deque())
        while begun and begun[0] <= now - MINUTE:
            begun.popleft()
        if len(begun) >= most:
            # As many as are too many have to be a minute old; the limit may have been higher before.
            wait = max(1, math.ceil(begun[len(begun) - most] + MINUTE - now))
            raise Problem(
                429,
                f"This key may {said} {most:,} times a minute, and has: {said} again in {wait} s.",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(wait)},
            )
        begun.append(now)

    def _end(self, who: _Who) -> None:
        with self._lock:
            left = self._running[who] - 1
            if left:
                self._running[who] = left
            else:
                del self._running[who]
