"""Uploads from strangers: what they hold and how they are called harms nothing, and costs bounded room."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from contexts_app import Held, ready, served
from stored import TEXT

from sakuin.server.contexts import spool, upload
from sakuin.server.contexts.upload import apart, cleaned


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Held, httpx.Client]]:
    sizes = {"max_body_bytes": 100_000, "max_upload_bytes": 1_000_000}
    with served(tmp_path / "library", **sizes) as found:
        yield found


def spooled(held: Held) -> list[str]:
    return [str(path) for path in held.readings.spool.path.glob("*/*") if path.name != "lock"]


def test_names_of_files_are_only_names() -> None:
    assert cleaned("../../etc/passwd") == "etc/passwd"
    assert cleaned("C:\\Users\\me\\a.txt") == "C:/Users/me/a.txt"
    assert cleaned("a\0b\n\x1b[31m.txt") == "ab[31m.txt"
    assert cleaned("\u202egnp.exe") == "gnp.exe"
    assert cleaned("/../..//. /") == ""
    assert cleaned("注文.pdf") == "注文.pdf"
    assert len(cleaned("x" * 10_000 + ".pdf")) == 200
    assert cleaned("x" * 10_000 + ".pdf").endswith(".pdf")


def test_two_of_one_name_are_told_apart() -> None:
    one = spool.Spooled("0", "a", 1)
    assert apart("a", [one]) == "a (2)"
    assert apart("a", [one, spool.Spooled("1", "a (2)", 1)]) == "a (3)"


@pytest.mark.parametrize(
    "name", ["../../x.txt", "/etc/passwd", "a\0b.txt", "x" * 3000 + ".txt", "..", "'\"; rm"]
)
def test_a_hostile_name_of_a_file_leads_nowhere(
    name: str, small: tuple[Held, httpx.Client], tmp_path: Path
) -> None:
    held, client = small
    disposition = f'form-data; name="files"; filename="{name}"'.encode().replace(b'"; rm"', b'\\"; rm"')
    body = b"--x\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + TEXT.encode() + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    sent = client.post("/v1/contexts?wait=true", content=body, headers=headers)
    assert sent.status_code in (201, 400), sent.text
    if sent.status_code == 201:
        called = sent.json()["documents"][0]["name"]
        assert called
        assert not called.startswith("/")
        assert ".." not in called.split("/")
        assert "\0" not in called
    assert {path.name for path in tmp_path.iterdir()} == {"library"}
    assert spooled(held) == []


def test_files_without_end_are_cut_off(small: tuple[Held, httpx.Client]) -> None:
    held, client = small
    for sent in (
        client.post("/v1/contexts", json={"text": "x" * 200_000}),
        client.post("/v1/contexts", files={"files": ("a.txt", b"x" * 2_000_000)}),
        client.post("/v1/contexts", data={"text": "x" * 200_000}, files={"x": ("", b"")}),
        client.post("/v1/contexts", files=[("files", ("a.txt", b"x" * 300_000))] * 4),
    ):
        assert sent.status_code in (400, 413), sent.text
        assert sent.json()["error"]["message"].endswith(".")
    assert spooled(held) == []


def test_ten_thousand_files_are_too_many(small: tuple[Held, httpx.Client]) -> None:
    held, client = small
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\na\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    sent = client.post("/v1/contexts", content=part * 10_000 + b"--x--\r\n", headers=headers)
    assert sent.status_code == 413
    assert f"{upload.MOST_FILES:,} files" in sent.json()["error"]["message"]
    assert spooled(held) == []


def test_forms_of_odd_shapes_are_refused(small: tuple[Held, httpx.Client]) -> None:
    held, client = small
    some = ("a.txt", b"hello")
    for data, files, param in (
        ({"name": "a"}, [("files", ("a.txt", b""))], "files"),  # an empty file
        ({"name": "a"}, [("picture", some)], "picture"),  # a field that is none
        ({"name": "a", "text": "hello"}, [("files", some)], "text"),  # both
        ({"name": ["a", "b"]}, [("files", some)], "name"),  # twice
        ({"pinned": "perhaps"}, [("files", some)], "pinned"),
        ({"keep_for": "nan"}, [("files", some)], "keep_for"),
        ({"colour": "red"}, [("files", some)], "colour"),
        ({"encoding": "klingon"}, [("files", some)], "encoding"),
        ({f"f{i}": "x" for i in range(40)}, [("files", some)], None),
        ({"files": "hello"}, [("files", some)], "files"),  # a file without a name
    ):
        sent = client.post("/v1/contexts", data=data, files=files)
        assert sent.status_code == 400, (data, sent.text)
        assert sent.json()["error"]["param"] == param
    nothing = client.post("/v1/contexts", files={"name": (None, "a")})
    assert nothing.status_code == 400
    assert "nothing to read" in nothing.json()["error"]["message"]
    assert spooled(held) == []


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.pdf", b"%PDF-1.7 \n" + b"\0" * 500, "a.pdf"),
        ("a.docx", b"PK\3\4" + b"\xff" * 500, "a.docx"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 500, "a.png"),
        ("a.txt", "Größe".encode("cp1252") * 50, "a.txt"),
        ("a.html", b"<html><body>" + b"<div>" * 5, "a.html"),
    ],
)
def test_a_document_that_cannot_be_read_fails_in_a_sentence(
    name: str, data: bytes, words: str, small: tuple[Held, httpx.Client]
) -> None:
    held, client = small
    assert client.post("/v1/contexts", data={"name": "x"}, files={"files": (name, data)}).status_code == 202
    found = ready(client, "x")
    assert found["status"] == "failed"
    message = found["error"]["message"]
    assert words in message
    assert str(held.shelves.root) not in message
    assert [path for path in spooled(held) if not path.endswith(".json")] == spooled(held)  # only a record
    assert client.delete("/v1/contexts/x").status_code == 200
    assert spooled(held) == []


def test_who_goes_away_in_the_middle_leaves_nothing(small: tuple[Held, httpx.Client]) -> None:
    held, client = small
    address = client.base_url.host, client.base_url.port
    head = (
        "POST /v1/contexts HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        "Content-Length: 500000\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
    )
    for _ in range(3):
        with socket.create_connection(address) as connection:
            connection.sendall(head.encode() + b"x" * 300_000)
    gone = threading.Event()
    for _ in range(500):
        if not spooled(held):
            break
        gone.wait(0.01)
    assert spooled(held) == []
    assert client.get("/v1/contexts").json()["data"] == []


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Within, no file of this process grows longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_is_said(
    small: tuple[Held, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, client = small
    assert client.post("/v1/contexts?wait=true", json={"name": "a", "text": TEXT}).status_code == 201
    with files_of_at_most(2000):
        for sent in (
            client.post("/v1/contexts", json={"text": TEXT * 10}),
            client.post("/v1/contexts", files={"files": ("a.txt", TEXT.encode() * 100)}),
        ):
            assert sent.status_code == 507, sent.text
            assert sent.json()["error"]["code"] == "disk_full"
    monkeypatch.setattr(spool, "_SPARE", 1 << 60)  # more than any disk has
    sent = client.post("/v1/contexts", files={"files": ("a.txt", TEXT.encode())})
    assert (sent.status_code, sent.json()["error"]["code"]) == (507, "disk_full")
    assert spooled(held) == []
    assert client.get("/v1/contexts/a").json()["status"] == "ready"
