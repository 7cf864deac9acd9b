"""What stands before the application: names that are not the server's, pages that are strange and bodies that
are too long are refused with a sentence, before anything of the application has seen them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from guarded_app import App, ask, error_of

from sakuin.server.guard import request_id
from sakuin.server.settings import Settings


@pytest.fixture
def keyless() -> App:
    return App(Settings())


# Ids and headers


def test_each_request_has_an_id_the_clients_own_where_it_is_harmless(keyless: App) -> None:
    first, second = (ask(keyless, "POST", "/v1/echo", json={}) for _ in range(2))
    assert first.json()["id"] == first.headers["x-request-id"] != second.headers["x-request-id"]
    own = ask(keyless, "POST", "/v1/echo", json={}, headers={"X-Request-Id": "my-id.7"})
    assert own.json()["id"] == own.headers["x-request-id"] == "my-id.7"
    for odd in ("a b", "a" * 65, '{"x":1}', "\x1b[2J", ""):
        said = ask(keyless, "POST", "/v1/echo", json={}, headers={"X-Request-Id": odd}).headers[
            "x-request-id"
        ]
        assert said.startswith("req-")
    assert request_id.get() == "-"


@pytest.mark.parametrize("path", ["/health", "/nothing", "/fails"])
def test_every_answer_has_an_id_and_tells_browsers_what_it_may_do(keyless: App, path: str) -> None:
    answer = ask(keyless, "GET", path)
    assert answer.status_code == {"/health": 200, "/nothing": 404, "/fails": 500}[path]
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; frame-ancestors 'none'")


def test_a_page_may_have_a_policy_of_its_own(keyless: App) -> None:
    assert ask(keyless, "GET", "/").headers["content-security-policy"] == "default-src 'self'"


# Hosts


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("LOCALHOST.:1", 200),
        ("[::1]:8000", 200),
        ("192.168.1.7:8000", 200),  # figures cannot be turned to another machine
        ("models.example", 200),
        ("evil.example", 421),
        ("evil.example:8000", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("models.example.evil.example", 421),
        ("", 400),
        ("a b", 400),
        ("localhost:x", 400),
        ("localhost@evil.example", 400),
        ("<script>", 400),
    ],
)
def test_names_that_are_not_the_servers_are_refused(host: str, status: int) -> None:
    app = App(Settings(hosts=("models.example",)))
    answer = ask(app, "POST", "/v1/echo", json={}, headers={"Host": host})
    assert answer.status_code == status
    if status != 200:
        assert error_of(answer)["code"] == ("wrong_host" if status == 421 else "invalid_host")
        assert app.seen == []


# Origins


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # no browser
        ({"Origin": "http://127.0.0.1:8000"}, 200),
        ({"Origin": "https://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}, 200),  # TLS ended before us
        ({"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:3000"}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[evil"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_another_page_cannot_ask_a_server_without_keys(
    keyless: App, headers: dict[str, str], status: int
) -> None:
    # as a form can send it, without being asked first whether it may
    plain = {"Content-Type": "text/plain"}
    answer = ask(keyless, "POST", "/v1/unread", content=b"{}", headers=plain | headers)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers
    if status == 403:
        assert error_of(answer)["code"] == "cross_origin"


def test_pages_of_other_origins_are_let_in_where_that_is_asked_for() -> None:
    app = App(Settings(cors=("http://app.example",)))
    ours = {"Origin": "http://app.example"}
    asked = ours | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    preflight = ask(app, "OPTIONS", "/v1/echo", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "http://app.example"
    assert "access-control-allow-credentials" not in preflight.headers
    answer = ask(app, "POST", "/v1/echo", json={}, headers=ours)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "http://app.example"
    refused = ask(app, "POST", "/v1/echo", content=b"x" * 10, headers=ours | {"Content-Length": str(10**12)})
    assert refused.status_code == 413
    assert refused.headers["access-control-allow-origin"] == "http://app.example"  # the page can read why
    others = ask(app, "POST", "/v1/echo", json={}, headers={"Origin": "http://evil.example"})
    assert others.status_code == 403
    assert "access-control-allow-origin" not in others.headers


def test_without_being_asked_for_no_preflight_succeeds(keyless: App) -> None:
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = ask(keyless, "OPTIONS", "/v1/echo", headers=asked)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


# Bodies


async def endless(size: int = 1000) -> AsyncIterator[bytes]:
    while True:
        yield b" " * size
        await asyncio.sleep(0)


def test_a_body_that_says_it_is_too_long_is_not_read(keyless: App) -> None:
    app = App(Settings(max_body_bytes=100))
    answer = ask(app, "POST", "/v1/contexts", content=b"x" * 101)
    assert (answer.status_code, error_of(answer)["code"]) == (413, "body_too_large")
    assert error_of(answer)["message"].startswith("The body has 101 bytes, more than the 100 bytes")
    assert app.seen == []
    assert ask(app, "POST", "/v1/contexts", content=b"x" * 100).json() == {"bytes": 100}


def test_a_body_without_a_length_is_cut_where_it_is_too_long() -> None:
    app = App(Settings(max_body_bytes=100_000))
    for path in ("/v1/contexts", "/v1/echo"):
        answer = ask(app, "POST", path, content=endless())
        assert (answer.status_code, error_of(answer)["code"]) == (413, "body_too_large")
    assert sum(app.seen) <= 100_000


@pytest.mark.parametrize("length", ["-1", "1e3", "", "0x10", "9" * 30, "+5"])
def test_a_length_that_is_none_is_refused(keyless: App, length: str) -> None:
    answer = ask(keyless, "POST", "/v1/echo", content=b"{}", headers={"Content-Length": length})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_header")


def test_files_may_be_longer_where_they_are_uploaded() -> None:
    app = App(Settings(max_body_bytes=100, max_upload_bytes=5000))
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert ask(app, "POST", "/v1/contexts", content=b"x" * 5000, headers=form).status_code == 200
    assert ask(app, "POST", "/v1/contexts", content=b"x" * 5001, headers=form).status_code == 413
    assert ask(app, "POST", "/v1/contexts", content=b"x" * 101).status_code == 413
    assert ask(app, "POST", "/v1/echo", content=b"x" * 101, headers=form).status_code == 413
    outer = FastAPI()
    outer.mount("/model", app.api)
    app.api = outer  # mounted, it is the same
    assert ask(app, "POST", "/model/v1/contexts", content=b"x" * 5000, headers=form).status_code == 200
    assert ask(app, "POST", "/model/v1/echo", content=b"x" * 101, headers=form).status_code == 413
