"""A connection as uvicorn serves it, with patience that ends: for `uvicorn.run(…, http=Connection)`.

uvicorn waits for ever for the headers of a request, and for a client that does not read its answer. What is
no HTTP gets its 400, and headers without end their 431, in the form of all errors. How much the headers of a
request may have is uvicorn's `h11_max_incomplete_event_size`; httptools has no such limit, and is not used.
Called by `sakuin.cli.serve`.
"""

from __future__ import annotations

import asyncio
import json
import sys

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from sakuin.server.problems import Problem

HEADERS_S = 10.0
"""Seconds within which the headers of a request must come, from its first byte or the connection on."""

READER_S = 60.0
"""Seconds for which a client may read nothing while more than the system keeps for it waits to be read."""


class Connection(H11Protocol):
    """HTTP/1.1 with uvicorn, for clients that may be slow or hostile."""

    headers_s, reader_s = HEADERS_S, READER_S
    _coming: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._coming = self.loop.call_later(self.headers_s, self._headers_late)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.reader_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread = _ended(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        self._coming, self._unread = _ended(self._coming), _ended(self._unread)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        error = sys.exc_info()[1]  # uvicorn calls this where it has caught one
        if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            self._end(
                Problem(
                    431, "The headers are too long: send fewer, or shorter ones.", code="headers_too_long"
                )
            )
        else:
            self._end(Problem(400, "This is not HTTP/1.1 as the server understands it.", code="invalid_http"))

    def _watch(self) -> None:
        """Time the headers of a request that has begun to come, and no other."""
        waits = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if not waits:
            self._coming = _ended(self._coming)
        elif self._coming is None:
            self._coming = self.loop.call_later(self.headers_s, self._headers_late)

    def _headers_late(self) -> None:
        self._coming = None
        if not self.conn.trailing_data[0]:  # browsers open connections in case they need them
            self.transport.close()
        elif not self.transport.is_closing():
            self._end(
                Problem(408, f"The headers did not come within {self.headers_s:g} s.", code="headers_late")
            )

    def _end(self, problem: Problem) -> None:
        """Say what is wrong where no answer has begun, and close the connection."""
        self._coming = _ended(self._coming)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(problem.body()).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
                (b"x-content-type-options", b"nosniff"),
            ]
            response = h11.Response(status_code=problem.status, headers=headers, reason=b"")
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _ended(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """No timer, the one that there was ended."""
    if timer is not None:
        timer.cancel()
    return None
