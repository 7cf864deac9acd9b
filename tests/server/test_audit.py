"""The audit log: a line for each, whole whoever else writes; contents only if asked for; never in the way."""

from __future__ import annotations

import json
import logging
import os
import resource
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sakuin.errors import SakuinError
from sakuin.server.tenants.audit import MOST_QUESTION, Audit
from sakuin.server.tenants.tenant import Tenant

ANN = Tenant("ann")


def lines(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    assert data.isascii()
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def test_a_line_says_who_asked_which_context_when_and_not_what(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    before = os.umask(0)
    try:
        audit = Audit(path)
    finally:
        os.umask(before)
    audit.write("ask", ANN, "paper", "req-1", question="What is secret?", tokens=7, share=float("nan"))
    audit.write("add", Tenant(), None, "req-2", time="forged", request="forged")
    first, second = lines(path)
    time = first.pop("time")
    assert time.endswith("+00:00")
    assert first == {
        "event": "ask", "tenant": "ann", "context": "paper", "request": "req-1", "tokens": 7, "share": None
    }  # fmt: skip
    assert (second["tenant"], second["context"], second["request"]) == ("", None, "req-2")
    assert second["time"].endswith("+00:00")
    assert "secret" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_contents_come_where_they_are_asked_for_and_no_sign_of_them_ends_a_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(path, contents=True)
    question = 'a\n{"event": "forged"}\r\u2028\x1b[2J\ud800日本'
    audit.write("ask", ANN, "paper", "req-1", question=question)
    audit.write("ask", ANN, "paper", "req-2", question="x" * (MOST_QUESTION + 1))
    audit.write("ask", ANN, "paper", "req-3")
    first, second, third = lines(path)
    assert first["question"] == question
    assert (len(second["question"]), second["question_characters"]) == (MOST_QUESTION, MOST_QUESTION + 1)
    assert "question" not in third


def test_lines_of_many_never_run_into_each_other(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audits = [Audit(path, contents=True) for _ in range(4)]  # as processes have their own

    def write(n: int) -> None:
        for i in range(50):
            audits[n % 4].write("ask", ANN, "paper", f"{n}-{i}", question="x" * 5000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert sorted(line["request"] for line in lines(path)) == sorted(
        f"{n}-{i}" for n in range(8) for i in range(50)
    )


def test_a_file_that_is_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    audit = Audit(path)
    audit.write("ask", ANN, None, "1")
    path.rename(old)
    audit.write("ask", ANN, None, "2")
    path.unlink()
    audit.write("ask", ANN, None, "3")
    assert [line["request"] for line in lines(old)] == ["1"]
    assert [line["request"] for line in lines(path)] == ["3"]


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files may have 400 bytes: what is over fails as on a full disk, after what fits."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_told_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(path)
    for n in range(8):
        audit.write("ask", ANN, "paper", f"req-{n}")
    assert path.stat().st_size == 400
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1  # not once for each line
    assert "lines are lost" in told[0].getMessage()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (before[1], before[1]))
    audit.write("ask", ANN, "paper", "req-8")
    *_, torn, lost, last = path.read_bytes().splitlines()
    with pytest.raises(ValueError, match=r"."):
        json.loads(torn)
    written = len(path.read_bytes().splitlines()) - 3
    assert json.loads(lost)["event"] == "audit_lost"
    assert json.loads(lost)["lines"] == 8 - written
    assert json.loads(last)["request"] == "req-8"


def test_a_file_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "audit.jsonl"):
        with pytest.raises(
            SakuinError, match=r"the audit log .* cannot be written \(.*\); name another file"
        ):
            Audit(path)
    os.mkfifo(tmp_path / "pipe")  # nobody reads it, and nobody waits for that
    with pytest.raises(SakuinError, match="cannot be written"):
        Audit(tmp_path / "pipe")


def test_without_a_file_nothing_is_written(tmp_path: Path) -> None:
    Audit().write("ask", ANN, "paper", "req-1", question="What?")
    audit = Audit(tmp_path / "audit.jsonl")
    audit.close()
    audit.write("ask", ANN, "paper", "req-1")
    assert (tmp_path / "audit.jsonl").read_bytes() == b""
