"""Over real sockets: clients that are slow, never end, do not read, send headers without end or no HTTP.
Each is told why where it listens, and each connection ends."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from guarded_app import App

from sakuin.server.connection import Connection
from sakuin.server.settings import Settings
from sakuin.server.tenants.keys import Keys
from sakuin.server.tenants.tenant import Allowed

POST = b"POST %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
MOST = 100_000


class Hasty(Connection):
    headers_s = 0.5
    reader_s = 0.5


class Served:
    """An application that listens at a port of its own."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.server = uvicorn.Server(
            uvicorn.Config(
                app.api, port=0, http=Hasty, ws="none", log_level="error", h11_max_incomplete_event_size=16384
            )
        )

    @property
    def address(self) -> tuple[str, int]:
        found: tuple[str, int] = self.server.servers[0].sockets[0].getsockname()
        return found

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"

    def idle(self) -> None:
        """Return when no connection and no request is left."""
        until(lambda: not self.server.server_state.connections and not self.server.server_state.tasks)


def until(true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come")


@contextmanager
def serving(app: App) -> Iterator[Served]:
    served = Served(app)
    thread = threading.Thread(target=served.server.run)
    thread.start()
    try:
        until(lambda: served.server.started)
        yield served
        served.idle()
    finally:
        served.server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    with serving(App(Settings(max_body_bytes=MOST, body_s=0.5))) as served:
        yield served


@pytest.fixture
def served(shared: Served) -> Iterator[Served]:
    shared.app.seen.clear()
    yield shared
    shared.idle()


def told(client: socket.socket) -> tuple[int, dict[str, Any]]:
    """The status and the error that a client reads until the server closes."""
    client.settimeout(30)
    data = b""
    while piece := client.recv(1 << 16):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    assert head.lower().count(b"content-length") == 1
    error = json.loads(body)["error"]
    assert error["message"].endswith(".")
    return int(head.split()[1]), error


@contextmanager
def client_of(served: Served, data: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(served.address) as client:
        client.sendall(data)
        yield client


def post(path: str, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in headers)
    return POST % (path.encode(), lines.encode())


@pytest.mark.parametrize("path", ["/v1/echo", "/v1/contexts"])
def test_a_body_that_stops_coming_is_told(served: Served, path: str) -> None:
    for header, begun in (("Content-Length: 1000", b'{"a":'), ("Transfer-Encoding: chunked", b"2\r\n{}\r\n")):
        with client_of(served, post(path, header) + begun) as client:
            status, error = told(client)
        assert (status, error["code"]) == (408, "body_too_slow")
        assert f"; {2 if begun.startswith(b'2') else len(begun)} bytes came: " in error["message"]


def test_a_body_that_comes_byte_by_byte_is_told(served: Served) -> None:
    with client_of(served, post("/v1/echo", "Content-Length: 90000")) as client:
        with suppress(OSError):
            for _ in range(3000):
                client.sendall(b" ")
                time.sleep(0.01)
        status, error = told(client)
    assert (status, error["code"]) == (408, "body_too_slow")


def test_a_body_that_never_ends_is_cut_and_told(served: Served) -> None:
    with client_of(served, post("/v1/contexts", "Transfer-Encoding: chunked")) as client:
        with suppress(OSError):
            for _ in range(200_000):
                client.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
                if sum(served.app.seen) > MOST:
                    break
                client.setblocking(False)
                with suppress(BlockingIOError):
                    if client.recv(1, socket.MSG_PEEK):
                        break
                client.setblocking(True)
        client.setblocking(True)
        client.shutdown(socket.SHUT_WR)
        status, error = told(client)
    assert (status, error["code"]) == (413, "body_too_large")
    assert sum(served.app.seen) <= MOST


def test_who_sends_too_much_reads_why(served: Served) -> None:
    with httpx.Client() as client:  # sends all of it before it reads
        for _ in range(3):
            answer = client.post(f"{served.url}/v1/contexts", content=b"x" * (8 << 20))
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "body_too_large"
            pieces = (b"x" * 65536 for _ in range(64))
            answer = client.post(f"{served.url}/v1/contexts", content=pieces)
            assert answer.status_code == 413


def test_who_sends_all_before_it_reads_is_not_cut_off(served: Served) -> None:
    for body in (b"x" * (8 << 20), b"400\r\n" + b"x" * 1024 + b"\r\n"):
        length = f"Content-Length: {8 << 20}" if body.startswith(b"x") else "Transfer-Encoding: chunked"
        with client_of(served, post("/v1/contexts", length)) as client:
            client.sendall(body if body.startswith(b"x") else body * 4000 + b"0\r\n\r\n")
            status, error = told(client)
        assert (status, error["code"]) == (413, "body_too_large")


def test_who_asks_whether_to_send_is_told_no(served: Served) -> None:
    asked = post("/v1/contexts", "Content-Length: 1000000", "Expect: 100-continue")
    with client_of(served, asked) as client:
        status, error = told(client)
    assert (status, error["code"]) == (413, "body_too_large")


def test_a_body_that_nobody_reads_does_not_keep_the_connection(served: Served) -> None:
    with client_of(served, post("/v1/unread", "Content-Length: 90000") + b"x") as client:
        client.settimeout(30)
        data = b""
        while piece := client.recv(1 << 16):
            data += piece
    assert data.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in data


@pytest.mark.parametrize(
    "bomb",
    [
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X-Bomb: 1\r\n" * 20_000,
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Bomb: " + b"x" * 400_000,
        b"GET /" + b"x" * 400_000,
        b"x" * 400_000,
    ],
    ids=["many", "long", "path", "word"],
)
def test_headers_without_end_are_told(served: Served, bomb: bytes) -> None:
    with client_of(served) as client:
        for at in range(0, len(bomb), 8192):
            with suppress(OSError):
                client.sendall(bomb[at : at + 8192])
        with suppress(ConnectionResetError):  # who goes on sending may miss why
            status, error = told(client)
            assert (status, error["code"]) in ((431, "headers_too_long"), (400, "invalid_http"))
    # Sent as much as is just too much, the reason is read.
    with client_of(served, bomb[:17_000]) as client:
        status, error = told(client)
        assert (status, error["code"]) == (431, "headers_too_long")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
        b"GET /health HTTP/9\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nA b: c\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: -2\r\n\r\n{}",
        b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    ],
)
def test_what_is_no_http_is_told(served: Served, data: bytes) -> None:
    with client_of(served, data) as client:
        assert told(client)[0] == 400
    assert served.app.seen == []


def test_headers_that_do_not_come_are_told(served: Served) -> None:
    with client_of(served) as client:
        client.settimeout(30)
        assert client.recv(1) == b""  # who says nothing is told nothing
    for begun in (b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: localhost\r\n"):
        with client_of(served, begun) as client:
            assert told(client)[1]["code"] == "headers_late"
    with client_of(served, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") as client:
        client.settimeout(30)
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /hea")  # the next one, on the same connection
        status, error = told(client)
    assert (status, error["code"]) == (408, "headers_late")
    with client_of(served, b"GET /health HTTP/1.1\r\nHost: localhost\r\n") as client:
        with suppress(OSError):
            for _ in range(3000):  # one header more, again and again
                client.sendall(b"A: b\r\n")
                time.sleep(0.01)
        with suppress(ConnectionResetError):
            assert told(client)[1]["code"] in ("headers_late", "headers_too_long")


def test_long_answers_are_not_cut_for_their_time(served: Served) -> None:
    answer = httpx.get(f"{served.url}/v1/stream?pieces=150")  # three times as long as headers may take
    assert answer.text == "x" * 150
    with httpx.Client() as client:
        for _ in range(3):
            assert client.post(f"{served.url}/v1/echo", json={"a": 1}).json()["a"] == 1


def test_who_does_not_read_is_let_go(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    ann = keys.add("ann", Allowed(concurrent=1))
    app = App(Settings(api_keys=str(keys.path)), keys)
    asked = post("/v1/stream?pieces=100000&size=1000000", f"Authorization: Bearer {ann}")
    with serving(app) as served, client_of(served, asked) as client:
        client.settimeout(30)
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert app.limits._running == {("ann", False): 1}
        until(lambda: not app.limits._running)  # it has had no disconnect and no byte from us
        served.idle()


def test_who_goes_in_the_middle_of_an_answer_makes_room(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    ann = keys.add("ann", Allowed(concurrent=1))
    app = App(Settings(api_keys=str(keys.path)), keys)
    with serving(app) as served:
        asked = post("/v1/stream?pieces=100000", f"Authorization: Bearer {ann}")
        with client_of(served, asked) as client:
            client.settimeout(30)
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            second = httpx.post(f"{served.url}/v1/stream", headers={"Authorization": f"Bearer {ann}"})
            assert (second.status_code, second.json()["error"]["code"]) == (429, "too_many_at_once")
        until(lambda: not app.limits._running)
        third = httpx.post(f"{served.url}/v1/stream", headers={"Authorization": f"Bearer {ann}"})
        assert third.text == "xxx"
