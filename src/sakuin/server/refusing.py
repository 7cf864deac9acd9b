"""Answering a request before anything of the application has seen it. Called by the guards."""

from __future__ import annotations

import asyncio
import contextlib
import time

from starlette.types import Receive, Scope, Send

from sakuin.server.problems import Problem

LOOKS = ("GET", "HEAD", "OPTIONS")
"""Methods that change and compute nothing."""

_MOST_DRAINED, _DRAIN_S = 64 << 20, 2.0
"""Bytes and seconds of a body that nobody wants which are read on after the answer."""


def header_of(scope: Scope, name: bytes) -> bytes | None:
    """The value of a header, given in lower case; of several the first."""
    return next((value for key, value in scope["headers"] if key.lower() == name), None)


def route_of(scope: Scope) -> str:
    """The path within this application, which may be mounted in another."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(root) if path.startswith(f"{root}/") or path == root else path


def announces_body(scope: Scope) -> bool:
    """Whether a request has a body by its headers."""
    length = header_of(scope, b"content-length")
    return header_of(scope, b"transfer-encoding") is not None or length not in (None, b"0")


async def refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a problem. What is still to come of the body is read for a moment and thrown away, since a
    client that is cut off while it sends may never read why; then the connection is closed."""
    body = announces_body(scope)
    response = problem.response()
    headers = list(response.raw_headers)
    if body:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": body})
    if body:
        if header_of(scope, b"expect") is None:  # who asked first has not begun to send
            await _drain(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    seen, until = 0, time.monotonic() + _DRAIN_S
    with contextlib.suppress(TimeoutError):
        while seen < _MOST_DRAINED and (left := until - time.monotonic()) > 0:
            async with asyncio.timeout(left):
                message = await receive()
            if message["type"] != "http.request" or not message.get("more_body", False):
                return
            seen += len(message.get("body", b""))
