"""What stands before the application: its name, the page that asks, how much is sent, and who asks.

Plain ASGI, from outside to inside: `RequestId`, `SecurityHeaders`, `Hosts`, `Origins` (and CORS where it is
asked for), `BodyLimits`, `Askers`. `install` puts them around an application, around its own handlers of
errors too, so that every answer has them. Called by `sakuin.server.app`.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from contextvars import ContextVar
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sakuin.server.bodies import BodyLimits
from sakuin.server.problems import Problem
from sakuin.server.refusing import LOOKS, header_of, refuse
from sakuin.server.settings import Settings
from sakuin.server.tenants.door import Askers, Door

request_id: ContextVar[str] = ContextVar("sakuin_request_id", default="-")
"""Of the request that is answered, for logs; `-` outside of one."""

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?", re.ASCII)

_NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def guarded(app: ASGIApp, settings: Settings, door: Door) -> ASGIApp:
    """`app` behind all guards."""
    app = Askers(app, door)
    app = BodyLimits(app, settings)
    if settings.cors:
        app = CORSMiddleware(
            app,
            allow_origins=list(settings.cors),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    app = Origins(app, settings)
    app = Hosts(app, settings)
    app = SecurityHeaders(app)
    return RequestId(app)


def install(app: Starlette, settings: Settings, door: Door) -> None:
    """Put the guards around an application, its handlers of errors included."""
    build = app.build_middleware_stack

    def stack() -> ASGIApp:
        return guarded(build(), settings, door)

    app.build_middleware_stack = stack  # type: ignore[method-assign]


class RequestId:
    """Gives each request an id, the client's own where that is harmless: in the answer as `X-Request-Id`, in
    `scope["state"]["request_id"]`, and in `request_id`. Web sockets, of which there are none, end here."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        said = header_of(scope, b"x-request-id") or b""
        name = said.decode() if _ID.fullmatch(said) else f"req-{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = name

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                MutableHeaders(scope=message)["X-Request-Id"] = name
            await send(message)

        token = request_id.set(name)
        try:
            await self.app(scope, receive, named)
        finally:
            request_id.reset(token)


class SecurityHeaders:
    """What browsers are told of each answer that does not say it itself: it is what it says it is, loads
    nothing, stands in no frame and in no cache."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Content-Security-Policy", _NOTHING)
            await send(message)

        await self.app(scope, receive, told)


class Hosts:
    """Refuses (421) who calls the server by a name that is not its own: a page whose name has been turned to
    this machine (DNS rebinding) calls it by that name. An address in figures cannot be turned, so that any is
    right; of names only `localhost`, the one that the server listens at, and `settings.hosts`."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._names = {"localhost", _plain(settings.host), *(_plain(name) for name in settings.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := self._problem(scope)):
            await refuse(problem, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        said = [value.decode("latin-1").lower() for key, value in scope["headers"] if key.lower() == b"host"]
        if len(said) != 1 or not (found := _HOST.fullmatch(said[0])):
            return Problem(
                400, "The header Host must be there once, as a name or address.", code="invalid_host"
            )
        name = _plain(found[1])
        if _is_address(name) or name in self._names or "*" in self._names:
            return None
        return Problem(
            421,
            f"This server does not go by the name {name[:100]!r}: call it by its address, or name it in the "
            "setting hosts.",
            code="wrong_host",
        )


class Origins:
    """Refuses (403) what another web page sends through a browser, where whoever can reach the server may ask
    it. Where there are keys, no page has one that its user did not give it."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._keyless = settings.api_keys is None
        self._others = frozenset(settings.cors)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._keyless and self._is_strange(scope):
            problem = Problem(
                403,
                "A page of another origin may not send this: name its origin in the setting cors.",
                code="cross_origin",
            )
            await refuse(problem, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _is_strange(self, scope: Scope) -> bool:
        origin = header_of(scope, b"origin")
        if scope["method"] in LOOKS:  # without CORS no page can read the answer, and nothing is done
            return False
        if origin is None:
            return header_of(scope, b"sec-fetch-site") in (b"cross-site", b"same-site")
        said = origin.decode("latin-1")
        if "*" in self._others or said in self._others:
            return False
        host = (header_of(scope, b"host") or b"").decode("latin-1").lower()
        try:
            # Who ends TLS before the server changes the scheme, and nothing else.
            return urlsplit(said).netloc.lower() != host
        except ValueError:
            return True


def _plain(name: str) -> str:
    """A name or an address as it is compared."""
    return name.strip().lower().removeprefix("[").removesuffix("]").removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
