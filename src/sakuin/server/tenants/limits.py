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
from sakuin.server.tenants.tenant import Tenant

MINUTE = 60.0
_SOON = "1"


class TenantLimits:
    """Counts what each tenant asks. clock : seconds that never go back. From any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._begun: dict[str, deque[float]] = {}
        self._running: dict[str, int] = {}

    @contextmanager
    def enter(self, tenant: Tenant, counts_as_running: bool = True) -> Iterator[None]:
        """Count a request of `tenant`, and let it run until the end of the `with`.

        counts_as_running : False for one that only looks, such as at how far a document is read, which
        counts by the minute alone.
        Raises `Problem` 429 where that would be one too many; what is refused is not counted.
        """
        self._begin(tenant, counts_as_running)
        try:
            yield
        finally:
            if counts_as_running:
                self._end(tenant.name)

    def _begin(self, tenant: Tenant, runs: bool) -> None:
        with self._lock:
            running, most = self._running.get(tenant.name, 0), tenant.allowed.concurrent
            if runs and most is not None and running >= most:
                raise Problem(
                    429,
                    f"This key may ask {most} at once, and that many are running: wait until one has ended.",
                    code="too_many_at_once",
                    headers={"Retry-After": _SOON},
                )
            self._count(tenant)
            if runs:
                self._running[tenant.name] = running + 1

    def _count(self, tenant: Tenant) -> None:
        """Count a request by the minute. The caller holds the lock."""
        most = tenant.allowed.requests_per_minute
        if most is None:
            self._begun.pop(tenant.name, None)
            return
        now = self._clock()
        begun = self._begun.setdefault(tenant.name, deque())
        while begun and begun[0] <= now - MINUTE:
            begun.popleft()
        if len(begun) >= most:
            # As many as are too many have to be a minute old; the limit may have been higher before.
            wait = max(1, math.ceil(begun[len(begun) - most] + MINUTE - now))
            raise Problem(
                429,
                f"This key may ask {most:,} times a minute, and has: ask again in {wait} s.",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(wait)},
            )
        begun.append(now)

    def _end(self, name: str) -> None:
        with self._lock:
            left = self._running[name] - 1
            if left:
                self._running[name] = left
            else:
                del self._running[name]
