"""Logs in JSON, a line for each event and for each request, with the request's id and without contents.

Neither paths nor query strings are logged, which can name contexts; of an error, its kind and where it was
raised, since its message may quote a document. At level debug the message is there too. Called by
`sakuin.cli.serve` (`configure`) and `sakuin.server.app` (`Requests`).
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

requests = logging.getLogger("sakuin.server.logs")

_MOST = 4000
"""Characters of a message; what is longer is cut."""
_FRAMES = 12
"""Frames of an error, the innermost ones."""
_KNOWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}
_POLLED = ("/health", "/ready", "/metrics", "/v1/stats")
"""Routes that are asked every few seconds: logged at debug where all is well."""


class JsonLines(logging.Formatter):
    """A record as one line of JSON: "time" (UTC), "level", "logger", "message", "request" (the id of the one
    that is answered), what was given as `extra`, and of an error "error" and "trace".

    request_id : says the id where a record is made; None outside a request. messages : of errors too.
    """

    def __init__(self, request_id: Callable[[], str | None], messages: bool = False) -> None:
        super().__init__()
        self._request_id, self._messages = request_id, messages

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_MOST],
        }
        if (request := self._request_id()) is not None:
            told["request"] = request
        for name, value in vars(record).items():
            if name not in _KNOWN and isinstance(value, str | int | float | bool | None):
                told[name] = value[:_MOST] if isinstance(value, str) else value
        if record.exc_info and record.exc_info[1] is not None:
            told |= self._error(record.exc_info[1])
        return json.dumps(told, default=str)

    def _error(self, error: BaseException) -> dict[str, Any]:
        """The kinds of an error and of what led to it, and where it was raised."""
        chain: list[BaseException] = []
        cause: BaseException | None = error
        while cause is not None and cause not in chain:
            chain.append(cause)
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
        return {
            "error": " from ".join(self._kind(one) for one in chain),
            "trace": [f"{_module(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames],
        }

    def _kind(self, error: BaseException) -> str:
        kind = type(error).__qualname__
        if self._messages:
            return f"{kind}: {error}"[:_MOST]
        if isinstance(error, OSError) and error.strerror:  # the system's own words, without the file's name
            return f"{kind}: {error.strerror}"
        return kind


def _module(file: str) -> str:
    """The end of a file's path, which says enough."""
    return "/".join(file.replace("\\", "/").rsplit("/", 3)[-3:])


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines; where the stream takes none, nobody is stopped."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def configure(
    level: str = "info",
    stream: TextIO | None = None,
    request_id: Callable[[], str | None] = lambda: None,
) -> None:
    """Have all that this process logs go to `stream` (standard error) in JSON, from `level` on.

    level : debug, info, warning or error. request_id : says the id of the request that is answered. uvicorn
    has to be run with `log_config=None` and `access_log=False`; its lines about requests have paths in them,
    and `Requests` logs them instead. May be called again.
    """
    number = getattr(logging, level.upper())
    handler = _Handler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonLines(request_id, messages=level == "debug"))
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(number, logging.WARNING))  # of others' loggers nobody knows what they log below
    logging.getLogger("sakuin").setLevel(number)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access"):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [], True
        log.setLevel(max(number, logging.INFO))
    logging.getLogger("uvicorn.access").disabled = True
    logging.captureWarnings(True)


class Requests:
    """Around an app: a line and a measurement for each request, when its answer has ended.

    The line has "method", "route" (its pattern), "status", "ms", "bytes" that were sent and, where the answer
    did not come to its end, "cut". Its request's id is that of the answer's X-Request-Id, or of the scope's
    state where the app has raised. measured : told as well, as `Metrics.request`; seconds.
    """

    def __init__(
        self, app: ASGIApp, measured: Callable[[str, str, int, float], object] | None = None
    ) -> None:
        self._app, self._measured = app, measured

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, answer = time.perf_counter(), _Sent(send)
        try:
            await self._app(scope, receive, answer)
        except Exception:
            if not answer.status:  # what the server around it will send
                answer.status, answer.is_whole = 500, True
            raise
        finally:
            self._note(scope, answer, time.perf_counter() - start)

    def _note(self, scope: Scope, answer: _Sent, seconds: float) -> None:
        route, method = getattr(scope.get("route"), "path", None) or "unmatched", scope["method"]
        status = answer.status or 499  # whoever asked had gone before there was an answer
        if self._measured is not None:
            self._measured(route, method, status, seconds)
        quiet = route in _POLLED and status < 400
        facts: dict[str, Any] = {
            "method": method[:16],
            "route": route,
            "status": status,
            "ms": round(1e3 * seconds, 1),
            "bytes": answer.bytes,
        }
        facts |= {} if answer.is_whole else {"cut": True}
        named = answer.request_id or scope.get("state", {}).get("request_id")
        facts |= {} if named is None else {"request": named}
        requests.log(logging.DEBUG if quiet else logging.INFO, "request", extra=facts)


class _Sent:
    """Passes an answer on and notes what it was."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = self.bytes = 0
        self.is_whole = False
        self.request_id: str | None = None

    async def __call__(self, message: Message) -> None:
        await self._send(message)
        if message["type"] == "http.response.start":
            self.status = message["status"]
            found = dict(message.get("headers", ())).get(b"x-request-id")
            self.request_id = None if found is None else found.decode("latin-1")
        elif message["type"] == "http.response.body":
            self.bytes += len(message.get("body", b""))
            self.is_whole = not message.get("more_body", False)
