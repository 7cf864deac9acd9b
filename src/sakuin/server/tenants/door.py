"""Who asks, found out before anything of a request's body is read.

A key that is known costs microseconds. One that is not is hashed, one at a time, in a thread of its own; the
same key of many requests once. What an attacker can make the server hash is bounded: so many wait, and of
wrong keys each address has so many. Called by `sakuin.server.guard`; routes ask `tenant_of`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from sakuin.errors import SakuinError
from sakuin.server.problems import Problem
from sakuin.server.refusing import LOOKS, header_of, refuse
from sakuin.server.tenants.keys import Keys
from sakuin.server.tenants.limits import TenantLimits
from sakuin.server.tenants.tenant import Tenant

log = logging.getLogger("sakuin.server")

MOST_CHECKED = 64
"""Keys that are hashed or wait for it."""

MOST_OF_ONE = 32
"""Of these, how many one address may send."""

MOST_WRONG, WRONG_S = 10, 2.0
"""Wrong keys that an address may send at once, and seconds after which it may send one more."""

_MOST_ADDRESSES = 4096


class Door:
    """Whom a request comes from. keys : None where everybody may ask. clock : seconds that never go back.

    All but `close` is called in the event loop.
    """

    def __init__(
        self, keys: Keys | None, limits: TenantLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys, self._limits, self._clock = keys, limits, clock
        self._thread = ThreadPoolExecutor(1, "sakuin-keys")
        self._checked: dict[str, Future[Tenant | None]] = {}
        self._waiting: Counter[str] = Counter()  # by address: how many of its keys are checked
        self._wrong: OrderedDict[str, float] = OrderedDict()  # by address: when all of them are forgotten

    def close(self) -> None:
        """End the thread; what is not hashed yet is given up."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def tenant(self, scope: Scope) -> Tenant | None:
        """Whose key a request has; None for one without a key on a server with keys.

        Raises `Problem`: 401 for a wrong key, 429 where too many are checked, 503 where the keys cannot be
        read.
        """
        if self._keys is None:
            return Tenant()
        said = header_of(scope, b"authorization")
        if said is None:
            return None
        kind, _, key = said.decode("latin-1").partition(" ")
        if kind.lower() != "bearer":
            raise _refused("The header Authorization must be `Bearer` and a key.")
        try:
            found = self._keys.remembered(key.strip())
            if found is True:
                found = await self._check(self._keys, key.strip(), _address(scope)) or False
        except SakuinError as error:
            if isinstance(error, Problem):
                raise
            log.error("%s", error)
            raise Problem(
                503, "The server cannot read its keys now: its log says why.", code="no_keys"
            ) from None
        if not isinstance(found, Tenant):
            raise _refused("This key is not known to the server, or was revoked.")
        return found

    def entered(self, scope: Scope, tenant: Tenant | None) -> AbstractContextManager[None]:
        """While the request runs. Raises `Problem` 429 where it is one too many."""
        if tenant is None or tenant.is_anyone:
            return nullcontext()
        return self._limits.enter(tenant, looks=scope["method"] in LOOKS)

    async def _check(self, keys: Keys, key: str, address: str) -> Tenant | None:
        """Whose key it is, by its hash."""
        check = self._checked.get(key)
        if check is not None:
            return await asyncio.shield(asyncio.wrap_future(check))
        over = self._forgotten(address) - self._clock() - (MOST_WRONG - 1) * WRONG_S
        if over > 0:
            raise _busy("Too many wrong keys came from this address", int(over) + 1)
        if len(self._checked) >= MOST_CHECKED or self._waiting[address] >= MOST_OF_ONE:
            raise _busy("Too many keys are being checked", 1)
        check = self._checked[key] = self._thread.submit(keys.find, key)
        self._waiting[address] += 1
        ended = partial(self._ended, key, address)
        loop = asyncio.get_running_loop()
        # Also where the client has gone meanwhile.
        check.add_done_callback(lambda done: loop.call_soon_threadsafe(ended, done))
        return await asyncio.shield(asyncio.wrap_future(check))

    def _ended(self, key: str, address: str, check: Future[Tenant | None]) -> None:
        """A key has been checked."""
        self._checked.pop(key, None)
        self._waiting[address] -= 1
        if not self._waiting[address]:
            del self._waiting[address]
        if not check.cancelled() and check.exception() is None and check.result() is None:
            log.warning("a wrong key from %s", address)
            self._wrong[address] = self._forgotten(address) + WRONG_S
            self._wrong.move_to_end(address)
            if len(self._wrong) > _MOST_ADDRESSES:
                self._wrong.popitem(last=False)

    def _forgotten(self, address: str) -> float:
        """When all wrong keys of an address are forgotten."""
        now = self._clock()
        return max(self._wrong.get(address, now), now)


class Askers:
    """Puts who asks into `scope["state"]["tenant"]`, and counts the request against its limits until it is
    answered. A wrong key is refused everywhere; without one a server with keys lets look, not send: which of
    its pages need a key, their routes say (`tenant_of`)."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            tenant = await self.door.tenant(scope)
            if tenant is None and scope["method"] not in LOOKS:
                raise missing_key()
            entered = self.door.entered(scope, tenant)
            entered.__enter__()
        except Problem as problem:
            await refuse(problem, scope, receive, send)
            return
        scope.setdefault("state", {})["tenant"] = tenant
        try:
            await self.app(scope, receive, send)
        finally:
            entered.__exit__(None, None, None)


def tenant_in(scope: Scope) -> Tenant:
    """Who asks, as `Askers` has found out. Raises `Problem` 401 where there is no key."""
    tenant = scope.get("state", {}).get("tenant")
    if not isinstance(tenant, Tenant):
        raise missing_key()
    return tenant


def missing_key() -> Problem:
    return _refused("This needs a key: send it as `Authorization: Bearer sk-…`.")


def _refused(message: str) -> Problem:
    return Problem(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _busy(why: str, wait: int) -> Problem:
    return Problem(
        429, f"{why}: ask again in {wait} s.", code="too_many_keys", headers={"Retry-After": str(wait)}
    )


def _address(scope: Scope) -> str:
    """The network that a request comes from: an address, of IPv6 the 64 bits that a home has."""
    said = (scope.get("client") or ("", 0))[0]
    try:
        found = ipaddress.ip_address(said)
    except ValueError:
        return str(said)
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else str(found)
