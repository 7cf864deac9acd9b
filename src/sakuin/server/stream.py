"""Server-sent events: lines of JSON, and comments that say that the server is alive.

Called by the routes that stream.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def comment(text: str) -> bytes:
    """A line that clients pass over; it keeps proxies from cutting the stream."""
    return f": {text}\n\n".encode()


def data(value: Any, event: str | None = None) -> bytes:
    """An event. A value that is a text is sent as it is."""
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return (f"event: {event}\n" if event else "").encode() + f"data: {said}\n\n".encode()


async def alive(source: AsyncIterator[bytes], every: float) -> AsyncIterator[bytes]:
    """`source`, and a comment whenever it has been silent for so many seconds."""
    step: asyncio.Task[bytes] | None = None
    try:
        while True:
            step = step or asyncio.ensure_future(anext(source))
            done, _ = await asyncio.wait({step}, timeout=every or None)
            if not done:
                yield comment("alive")
                continue
            try:
                piece = step.result()
            except StopAsyncIteration:
                return
            step = None
            yield piece
    finally:
        if step is not None:
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)
        await source.aclose()  # type: ignore[attr-defined]


class EventStream(StreamingResponse):
    """A stream of events, which ends what it shows when the client goes."""

    def __init__(self, source: AsyncIterator[bytes], keep_alive_s: float) -> None:
        self._source = alive(source, keep_alive_s)
        super().__init__(self._source, media_type="text/event-stream", headers=HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._source.aclose()  # type: ignore[attr-defined]
