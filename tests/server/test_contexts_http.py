"""Contexts over HTTP: documents are uploaded, read, listed, shown, changed and removed; what cannot be is
said in a sentence that names the field."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from contexts_app import Held, ready, served
from stored import CONFIG, MORE, TEXT, model_of, said

from sakuin import Context, Library
from sakuin.documents import Document
from sakuin.server.tenants.tenant import Tenant

FAR = "Far more than can be read at once, which nobody wanted. " * 400
"""Longer than the tiny model's window of 4,096."""


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Held, httpx.Client]]:
    with served(tmp_path / "library") as found:
        yield found


def error(response: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = response.json()["error"]
    assert set(found) >= {"message", "type", "param", "code"}
    assert found["message"].endswith(".")
    return found


def test_a_text_becomes_a_context_that_answers(both: tuple[Held, httpx.Client], tmp_path: Path) -> None:
    held, client = both
    sent = client.post("/v1/contexts", json={"name": "fox", "text": TEXT, "pinned": True})
    assert sent.status_code == 202
    assert sent.headers["location"] == "/v1/contexts/fox"
    assert (sent.json()["id"], sent.json()["object"]) == ("fox", "context")
    found = ready(client, "fox")
    assert (found["status"], found["askable"], found["progress"], found["pinned"]) == (
        "ready",
        True,
        1.0,
        True,
    )
    assert found["tokens"] == found["tokens_done"] > 1000
    assert found["documents"] == [{"name": "text", "characters": len(TEXT), "pages": None, "notes": []}]
    from_library = said(Library(tmp_path / "library").open("fox", *model_of()))
    assert said(held.shelves.of(Tenant()).open("fox"))[0] == from_library[0]
    expected = Context.from_documents(*model_of(), [Document("text", TEXT)], CONFIG)
    assert from_library[0] == said(expected)[0]
    shown = client.get("/v1/contexts/fox/text").json()
    assert [one["text"] for one in shown["documents"]] == [TEXT]
    assert [one["id"] for one in client.get("/v1/contexts").json()["data"]] == ["fox"]


def test_files_of_several_kinds_are_read_with_their_pages_and_headings(
    both: tuple[Held, httpx.Client],
) -> None:
    _, client = both
    files = [
        ("files", ("notes.md", b"# Rules\n\nNo dogs.\n\n# Hours\n\nFrom nine to five.\n")),
        ("files", ("page.html", b"<html><body><h1>Fees</h1><p>Three coins.</p></body></html>")),
        ("file", ("notes.md", b"# Other\n\nAnother file of the same name.\n")),
    ]
    sent = client.post("/v1/contexts", data={"name": "house", "keep_for": "3600"}, files=files)
    assert sent.status_code == 202, sent.text
    found = ready(client, "house")
    assert [one["name"] for one in found["documents"]] == ["notes.md", "page.html", "notes.md (2)"]
    assert 3500 < found["kept_until"] - time.time() < 3601
    shown = client.get("/v1/contexts/house/text").json()["documents"]
    assert [mark["heading"] for mark in shown[0]["marks"]][-1] == "Hours"
    assert "Three coins." in shown[1]["text"]


def test_who_waits_is_answered_when_all_is_read(both: tuple[Held, httpx.Client]) -> None:
    _, client = both
    sent = client.post("/v1/contexts", json={"name": "a", "text": TEXT, "wait": True})
    assert (sent.status_code, sent.json()["status"]) == (201, "ready")
    sent = client.post("/v1/contexts?wait=true", json={"text": TEXT})
    assert sent.status_code == 201
    assert sent.json()["id"].startswith("context-")
    sent = client.post("/v1/contexts/a/append", json={"text": MORE, "wait": True})
    assert (sent.status_code, sent.json()["status"]) == (200, "ready")
    shown = client.get("/v1/contexts/a/text").json()["documents"]
    assert [one["text"] for one in shown] == [TEXT + MORE]
    sent = client.post("/v1/contexts?wait=true", json={"name": "far", "text": FAR[:9000]})
    assert sent.status_code == 400
    assert error(sent)["code"] == "context_length_exceeded"


def test_a_text_past_the_window_says_how_long_it_is(both: tuple[Held, httpx.Client]) -> None:
    _, client = both
    at_once = client.post("/v1/contexts", json={"name": "far", "text": FAR * 10})
    assert at_once.status_code == 400
    assert error(at_once)["n_ctx"] == 4096
    assert error(at_once)["n_prompt_tokens"] > 100_000
    later = client.post("/v1/contexts", data={"name": "far"}, files={"files": ("far.txt", FAR.encode())})
    assert later.status_code == 202
    found = ready(client, "far")
    assert (found["status"], found["askable"]) == ("failed", False)
    assert found["error"]["n_ctx"] == 4096
    assert found["error"]["n_prompt_tokens"] == pytest.approx(len(FAR), abs=20)
    again = client.post(
        "/v1/contexts?wait=true", json={"name": "far", "text": TEXT}
    )  # a failure holds no name
    assert again.status_code == 201


def test_a_file_goes_on_where_it_was(both: tuple[Held, httpx.Client]) -> None:
    _, client = both
    client.post("/v1/contexts?wait=true", data={"name": "log"}, files={"files": ("a.log", TEXT.encode())})
    tokens = client.get("/v1/contexts/log").json()["tokens"]
    path = "/v1/contexts/log/append?wait=true"
    same = client.post(path, files={"files": ("a.log", TEXT.encode())})
    assert (same.status_code, same.json()["tokens"]) == (200, tokens)
    grown = client.post(path, files={"files": ("a.log", (TEXT + MORE).encode())})
    assert grown.json()["tokens"] == tokens + len(MORE)
    changed = client.post(path, files={"files": ("a.log", MORE.encode())})
    assert changed.status_code == 409
    assert error(changed)["code"] == "document_changed"
    assert "--replace" not in error(changed)["message"]
    found = ready(client, "log")
    assert (found["status"], found["askable"]) == ("failed", True)  # the append failed, and it can be asked
    replaced = client.post(path, data={"replace": "true"}, files={"files": ("a.log", MORE.encode())})
    assert replaced.status_code == 200
    shown = client.get("/v1/contexts/log/text").json()["documents"]
    assert [one["text"] for one in shown] == [MORE]


def test_who_watches_sees_it_become_ready(both: tuple[Held, httpx.Client]) -> None:
    _, client = both
    client.post("/v1/contexts", json={"name": "fox", "text": TEXT})

    def watched() -> list[dict[str, Any]]:
        with client.stream("GET", "/v1/contexts/fox/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = [line for line in response.iter_lines() if line.startswith("data:")]
        return [json.loads(line.removeprefix("data:")) for line in lines]

    with ThreadPoolExecutor(8) as pool:
        every = [one.result(60) for one in [pool.submit(watched) for _ in range(8)]]
    for seen in every:
        assert seen[-1]["status"] == "ready"
        done = [one["tokens_done"] for one in seen]
        assert done == sorted(done)


def test_what_is_removed_while_somebody_waits_for_it_is_no_error(both: tuple[Held, httpx.Client]) -> None:
    _, client = both
    with ThreadPoolExecutor(2) as pool:
        for i in range(5):
            waiting = pool.submit(client.post, "/v1/contexts?wait=true", json={"name": "x", "text": TEXT})
            time.sleep(0.02 * i)
            while client.delete("/v1/contexts/x").status_code == 404:
                pass
            assert waiting.result(60).status_code in (201, 202)


def test_two_uploads_of_one_name_at_once_make_one_context(both: tuple[Held, httpx.Client]) -> None:
    held, client = both

    def add(i: int) -> int:
        return client.post("/v1/contexts", json={"name": "one", "text": f"{i} {TEXT}"}).status_code

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(add, range(6))) == [202] + [409] * 5
    ready(client, "one")
    refused = client.post("/v1/contexts", json={"name": "one", "text": TEXT})
    assert refused.status_code == 409
    assert error(refused)["code"] == "context_exists"
    assert "append" in error(refused)["message"]
    assert spooled(held) == []


def spooled(held: Held) -> list[str]:
    """What lies in the spool."""
    return [str(path) for path in held.readings.spool.path.glob("*/*") if path.name != "lock"]


def test_what_is_removed_while_it_is_read_leaves_nothing(both: tuple[Held, httpx.Client]) -> None:
    held, client = both
    for at in (0.0, 0.02, 0.05, 0.1, 0.3):
        client.post("/v1/contexts", json={"name": "gone", "text": TEXT})
        client.post("/v1/contexts/gone/append", json={"text": MORE})
        time.sleep(at)
        assert client.delete("/v1/contexts/gone").json()["deleted"]
        missing = client.get("/v1/contexts/gone")
        assert missing.status_code == 404
        assert error(missing)["code"] == "context_not_found"
        assert spooled(held) == []
        library = Library(held.shelves.root)
        assert library.entries() == []
        assert library.folder.parts.all() == {}
    assert client.delete("/v1/contexts/gone").status_code == 404


def test_it_answers_while_more_is_appended_and_after_it_is_removed(both: tuple[Held, httpx.Client]) -> None:
    held, client = both
    client.post("/v1/contexts?wait=true", json={"name": "fox", "text": TEXT})
    shelf = held.shelves.of(Tenant())
    before, stop, answers = said(shelf.open("fox")), threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            context = shelf.open("fox")
            answers.append((context.tokens, said(context)))

    thread = threading.Thread(target=ask)
    thread.start()
    old = shelf.open("fox")
    for _ in range(3):
        assert client.post("/v1/contexts/fox/append?wait=true", json={"text": MORE}).status_code == 200
    stop.set()
    thread.join(60)
    assert {tokens for tokens, _ in answers} > {old.tokens} or len(answers) < 2
    assert {answer[0] for tokens, answer in answers if tokens == old.tokens} == {before[0]}
    assert shelf.open("fox").tokens > old.tokens
    client.delete("/v1/contexts/fox")
    assert said(old)[0] == before[0]


def test_a_context_is_renamed_pinned_and_kept(both: tuple[Held, httpx.Client]) -> None:
    _, client = both
    for name in ("a", "b"):
        client.post("/v1/contexts?wait=true", json={"name": name, "text": TEXT})
    changed = client.patch("/v1/contexts/a", json={"name": "c", "pinned": True, "keep_for": 60})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["id"], changed.json()["pinned"]) == ("c", True)
    assert 50 < changed.json()["kept_until"] - time.time() < 61
    assert client.patch("/v1/contexts/c", json={"keep_for": None}).json()["kept_until"] is None
    assert client.get("/v1/contexts/a").status_code == 404
    assert client.patch("/v1/contexts/c", json={"name": "b"}).status_code == 409
    assert client.patch("/v1/contexts/c", json={"name": "../b"}).status_code == 400
    assert client.patch("/v1/contexts/nobody", json={"pinned": True}).status_code == 404


@pytest.mark.parametrize(
    "name", ["../x", "..", "a/b", "/etc/passwd", ".hidden", "a\0b", "a b", "", "é" * 101, "CON:"]
)
def test_no_name_leads_out_of_the_library(name: str, both: tuple[Held, httpx.Client], tmp_path: Path) -> None:
    _, client = both
    sent = client.post("/v1/contexts", json={"name": name, "text": "Hello there."})
    assert sent.status_code == 400
    assert error(sent)["param"] == "name"
    path = "/v1/contexts/" + "".join(f"%{byte:02x}" for byte in (name or "?").encode())
    for method in ("GET", "DELETE", "PATCH"):
        assert client.request(method, path, json={}).status_code in (404, 405)
    assert client.post(f"{path}/append", json={"text": "Hello."}).status_code == 404
    assert {path.name for path in tmp_path.iterdir()} == {"library"}


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"name": "a"}, "text", "missing"),
        ({"name": "a", "text": 3}, "text", "string"),
        ({"name": "a", "text": " \n"}, "text", "empty"),
        ({"text": "x", "colour": "red"}, "colour", "not supported"),
        ({"text": "x", "keep_for": -1}, "keep_for", "greater than or equal to 1"),
        ({"text": "x", "pinned": "perhaps"}, "pinned", "boolean"),
        ({"text": "x", "system": " "}, "system", "empty"),
        ({"text": "x", "encoding": "klingon"}, "encoding", "klingon"),
    ],
)
def test_what_is_wrong_with_a_body_is_said(
    body: dict[str, Any], param: str, words: str, both: tuple[Held, httpx.Client]
) -> None:
    held, client = both
    sent = client.post("/v1/contexts", json=body)
    assert sent.status_code == 400
    assert error(sent)["param"] == param
    assert words in error(sent)["message"]
    assert spooled(held) == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400"])
def test_no_number_is_none(number: str, both: tuple[Held, httpx.Client]) -> None:
    _, client = both
    body = '{"text": "x", "keep_for": ' + number + "}"
    sent = client.post("/v1/contexts", content=body, headers={"Content-Type": "application/json"})
    assert sent.status_code == 400


def test_bodies_of_other_kinds_are_refused(both: tuple[Held, httpx.Client]) -> None:
    held, client = both
    for kind, body, status in (
        ("text/plain", b"hello", 415),
        ("", b"hello", 415),
        ("application/json", b"{", 400),
        ("application/json", b'{"text": "\\ud800"}', 400),
        ("application/json", b"[" * 100_000, 400),
        ("multipart/form-data", b"hello", 400),
        ("multipart/form-data; boundary=x", b"hello", 400),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nhello\r\n--x--\r\n", 400),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 400),
    ):
        sent = client.post("/v1/contexts", content=body, headers={"Content-Type": kind})
        assert sent.status_code == status, (kind, body[:20], sent.text)
        assert error(sent)["message"]
    assert spooled(held) == []
