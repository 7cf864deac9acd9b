"""A server's log is a line of JSON for each event and each request, and has no contents in it."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sakuin.server.logs import JsonLines, configure

SERVER = """
import asyncio, contextvars, logging
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sakuin.errors import SakuinError
from sakuin.server import logs, problems
from sakuin.server.logs import Requests

asked = contextvars.ContextVar("asked", default=None)
app = FastAPI()
problems.install(app)

class Ids:
    def __init__(self, app): self.app = app
    async def __call__(self, scope, receive, send):
        async def named(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", b"id-7")]
            await send(message)
        if scope["type"] == "http":
            scope.setdefault("state", {})["request_id"] = "id-7"
            token = asked.set("id-7")
            try:
                await self.app(scope, receive, named)
            finally:
                asked.reset(token)
            return
        await self.app(scope, receive, named)

@app.get("/v1/contexts/{name}")
def context(name: str):
    if name == "broken":
        raise ValueError("SECRET of the document")
    if name == "refused":
        raise SakuinError("SECRET is too long.")
    logging.getLogger("sakuin.server").info("opened", extra={"tokens": 12})
    return name

@app.get("/health")
def health(): return "well"

@app.get("/stream")
async def stream():
    async def pieces():
        while True:
            yield b"x" * 1000
            await asyncio.sleep(0.01)
    return StreamingResponse(pieces())

app.add_middleware(Ids)
app.add_middleware(Requests)
logs.configure("info", request_id=asked.get)
uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False)).run()
"""


class Served:
    """A real server in a process of its own. lines : what it has logged, as it was written."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        started = self.until(lambda told: "running on" in told["message"])
        address = started["message"].split()[3]
        # After an error in the application uvicorn closes a connection.
        self.client = httpx.Client(base_url=address, timeout=60, headers={"Connection": "close"})

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next line that is wanted; all lines are JSON."""
        assert self.process.stderr is not None
        while line := self.process.stderr.readline():
            self.lines.append(line)
            told: dict[str, Any] = json.loads(line)
            if wanted(told):
                return told
        raise AssertionError(f"it ended: {self.lines}")

    def request(self) -> dict[str, Any]:
        return self.until(lambda told: told["logger"] == "sakuin.server.logs")


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with subprocess.Popen([sys.executable, "-c", SERVER], stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Served(process)
        finally:
            process.terminate()


def test_a_request_is_a_line_with_its_route_and_id(served: Served) -> None:
    before = len(served.lines)
    served.client.get("/v1/contexts/harbour?key=hidden")
    line = served.request()
    assert line["time"].endswith("+00:00")
    assert line.pop("ms") >= 0
    del line["time"]
    assert line == {
        "level": "info",
        "logger": "sakuin.server.logs",
        "message": "request",
        "request": "id-7",
        "method": "GET",
        "route": "/v1/contexts/{name}",
        "status": 200,
        "bytes": 9,
    }
    (opened,) = (json.loads(each) for each in served.lines[before:-1])
    assert (opened["message"], opened["request"], opened["tokens"]) == ("opened", "id-7", 12)
    assert "harbour" not in "".join(served.lines)
    assert "hidden" not in "".join(served.lines)


def test_errors_are_logged_without_what_they_quote(served: Served) -> None:
    assert served.client.get("/v1/contexts/broken").status_code == 500
    line = served.request()
    assert (line["status"], line["request"], "cut" in line) == (500, "id-7", False)
    told = served.until(lambda told: told["message"] == "unforeseen")
    assert told["error"] == "ValueError"
    assert any(place.endswith(" context") for place in told["trace"])
    served.client.get("/v1/contexts/refused")
    assert served.request()["status"] == 400
    assert "SECRET" not in "".join(served.lines)


def test_polls_that_go_well_are_quiet_and_what_is_not_there_is_told(served: Served) -> None:
    served.client.get("/health")
    served.client.get("/secret/place")
    line = served.request()
    assert (line["route"], line["status"]) == ("unmatched", 404)
    assert "secret" not in "".join(served.lines)


def test_an_answer_that_nobody_waited_for_is_told_as_cut(served: Served) -> None:
    with served.client.stream("GET", "/stream") as reply:
        next(reply.iter_bytes())
    line = served.request()
    assert (line["route"], line["status"], line["cut"]) == ("/stream", 200, True)
    assert line["bytes"] >= 1000


# -- a line ------------------------------------------------------------------------------------------------


def line_of(message: str, error: BaseException | None = None, messages: bool = False, **extra: Any) -> Any:
    record = logging.makeLogRecord(
        {"name": "x", "levelno": 20, "levelname": "INFO", "msg": message, "args": (), **extra}
        | ({"exc_info": (type(error), error, error.__traceback__)} if error else {})
    )
    text = JsonLines(lambda: None, messages).format(record)
    assert "\n" not in text
    text.encode("ascii")
    return json.loads(text)


def raised(of: Callable[[], Any]) -> BaseException:
    try:
        of()
    except Exception as error:
        return error
    raise AssertionError("it raised nothing")


def test_whatever_is_logged_is_one_short_line() -> None:
    assert line_of("a\nb \udc80 索引")["message"] == "a\nb \udc80 索引"
    assert len(line_of("x" * 100_000, note="y" * 100_000)["message"]) == 4000
    assert len(line_of("x", note="y" * 100_000)["note"]) == 4000
    assert "request" not in line_of("x")
    assert "thing" not in line_of("x", thing=object())


def nested() -> None:
    try:
        {}["SECRET"]
    except KeyError:
        raise RuntimeError("SECRET too") from None


def chained() -> None:
    try:
        Path("/nowhere/SECRET").read_text()
    except OSError as error:
        raise RuntimeError("SECRET too") from error


def test_an_error_is_told_by_kind_and_place() -> None:
    assert line_of("x", raised(nested))["error"] == "RuntimeError"
    told = line_of("x", raised(chained))
    assert told["error"] == "RuntimeError from FileNotFoundError: No such file or directory"
    assert any(place.endswith(" chained") for place in told["trace"])
    assert "SECRET" not in str(told)
    assert "SECRET too" in line_of("x", raised(chained), messages=True)["error"]


def test_errors_that_lead_to_each_other_end() -> None:
    one, other = ValueError(), TypeError()
    one.__cause__, other.__cause__ = other, one
    assert line_of("x", one)["error"] == "ValueError from TypeError"


# -- what is set up ----------------------------------------------------------------------------------------


@pytest.fixture
def restored() -> Iterator[None]:
    """Loggers as they were, after a test that sets them up."""
    names = ("", "sakuin", "uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access")
    before = [(log, log.level, log.handlers[:], log.propagate, log.disabled) for log in map(_log, names)]
    yield
    logging.captureWarnings(False)
    for log, level, handlers, propagate, disabled in before:
        log.setLevel(level)
        log.handlers, log.propagate, log.disabled = handlers, propagate, disabled


def _log(name: str) -> logging.Logger:
    return logging.getLogger(name or None)


@pytest.mark.usefixtures("restored")
def test_levels_are_ours_and_others_tell_only_warnings() -> None:
    for level, wanted in (("debug", ["d", "i", "w"]), ("info", ["i", "w"]), ("error", [])):
        stream = io.StringIO()
        configure(level, stream)
        configure(level, stream)  # again changes nothing
        log, other = logging.getLogger("sakuin.server"), logging.getLogger("others")
        log.debug("d")
        log.info("i")
        log.warning("w")
        other.info("what others say")
        told = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
        assert told == wanted, level


class Full(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.usefixtures("restored")
def test_a_full_disk_stops_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", Full())
    logging.getLogger("sakuin.server").error("x")
    assert capsys.readouterr().err == ""
