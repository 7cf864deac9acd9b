"""How large a request's body may be, and how long it may take to come.

Nothing is kept here: pieces are counted as the application asks for them. A body that says its length is
refused before any of it is read. Called by `sakuin.server.guard`.
"""

from __future__ import annotations

import asyncio
import re
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sakuin.server.problems import Problem
from sakuin.server.refusing import announces_body, header_of, refuse, route_of
from sakuin.server.settings import Settings

BYTES_A_SECOND = 100_000
"""Of a body, for each of which it gets a second more."""

_UPLOAD = re.compile(r"/v1/contexts(/[^/]+/append)?/?")
_LENGTH = re.compile(rb"[0-9]{1,18}")


class BodyLimits:
    """Refuses bodies that are too long (413) or do not come (408)."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = self._most(scope)
        problem = _length_problem(scope, most)
        if problem is not None:
            await refuse(problem, scope, receive, send)
            return
        body = _Body(receive, send, most, self.settings.body_s, announces_body(scope))
        try:
            await self.app(scope, body.receive, body.send)
        except Exception:
            if body.problem is None or body.answered:
                raise
        if body.problem is not None and not body.answered:
            await refuse(body.problem, scope, receive, send)

    def _most(self, scope: Scope) -> int:
        """Bytes that the body may have: files may be larger."""
        kind = header_of(scope, b"content-type") or b""
        if kind.lower().startswith(b"multipart/form-data") and _UPLOAD.fullmatch(route_of(scope)):
            return self.settings.max_upload_bytes
        return self.settings.max_body_bytes


class _Body:
    """A body as it comes. problem : why it is refused. answered : whether the application has begun to
    answer."""

    def __init__(self, receive: Receive, send: Send, most: int, within: float, expected: bool) -> None:
        self._receive, self._send, self._most, self._within = receive, send, most, within
        self._seen, self._waited, self._more, self._expected = 0, 0.0, True, expected
        self.problem: Problem | None = None
        self.answered = False

    async def receive(self) -> Message:
        if self.problem is not None:
            raise HTTPException(self.problem.status, str(self.problem))
        if not self._more:  # from now on only the end of the connection can come
            return await self._receive()
        # What the application takes for itself between two pieces is not the client's.
        begun = time.monotonic()
        left = self._within + self._seen / BYTES_A_SECOND - self._waited
        try:
            async with asyncio.timeout(max(left, 0.0)):
                message = await self._receive()
        except TimeoutError:
            self._refuse(_late(self._within, self._seen))
        self._waited += time.monotonic() - begun
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            self._more = message.get("more_body", False)
            if self._seen > self._most:
                self._refuse(_too_large(self._most))
        else:
            self._more = False
        return message

    async def send(self, message: Message) -> None:
        if self.problem is not None and not self.answered:
            return  # whatever the application makes of it, the answer is ours
        if message["type"] == "http.response.start":
            self.answered = True
            if self._more and self._expected:  # else what is still to come would keep the connection for ever
                message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        await self._send(message)

    def _refuse(self, problem: Problem) -> None:
        """Leave the application, in a way that frameworks hand through."""
        self.problem = problem
        raise HTTPException(problem.status, str(problem))


def _length_problem(scope: Scope, most: int) -> Problem | None:
    """What is wrong with the length that a request announces."""
    said = [value for key, value in scope["headers"] if key.lower() == b"content-length"]
    if not said:
        return None
    if len(set(said)) > 1 or not _LENGTH.fullmatch(said[0]):
        return Problem(400, "Content-Length must be one number of bytes.", code="invalid_header")
    return _too_large(most, int(said[0])) if int(said[0]) > most else None


def _too_large(most: int, size: int | None = None) -> Problem:
    has = "is longer" if size is None else f"has {size:,} bytes, more"
    return Problem(
        413,
        f"The body {has} than the {most:,} bytes that this server takes: send less.",
        code="body_too_large",
    )


def _late(within: float, seen: int) -> Problem:
    return Problem(
        408,
        f"The body did not come within {within:g} s and a second for each {BYTES_A_SECOND // 1000} KB; "
        f"{seen:,} bytes came: send it again over a faster connection.",
        code="body_too_slow",
    )
