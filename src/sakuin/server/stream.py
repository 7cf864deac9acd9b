"""Server-sent events: lines of JSON, and comments, which clients pass over.

Called by the routes that stream.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
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


class EventStream(StreamingResponse):
    """A stream of events, which ends what it shows when the client goes."""

    def __init__(self, source: AsyncGenerator[bytes, None]) -> None:
        self._source = source
        super().__init__(source, media_type="text/event-stream", headers=HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._source.aclose()
