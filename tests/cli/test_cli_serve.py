"""`sakuin serve` as people run it: it says where it is, answers, and ends when it is told to."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from sakuin.backends import catalogue


@contextmanager
def serving(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    code = [sys.executable, "-m", "sakuin", "serve", "--port", "0", *options]
    process = subprocess.Popen(code, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = None
        while found is None:
            line = process.stderr.readline()
            assert line, process.wait(60)
            found = re.search(r"http://\S+", line)
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()


def refused(*options: str) -> tuple[int, str]:
    code = [sys.executable, "-m", "sakuin", "serve", *options]
    done = subprocess.run(code, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr


def test_it_answers_and_ends_by_a_signal(tmp_path: Path) -> None:
    catalogue.get("smollm2")
    with serving("--library", str(tmp_path), "--dtype", "fp32", "--threads", "1") as (process, address):
        assert httpx.get(f"{address}/ready").json()["status"] == "ok"
        body = {"model": "smollm2", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 4}
        answer = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=120).json()
        assert answer["usage"]["completion_tokens"] == 4
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert "Traceback" not in process.communicate()[1]


def test_what_cannot_be_served_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, said = refused("--port", str(taken.getsockname()[1]))
        assert (code, said.count("\n")) == (2, 1)
        assert "--port" in said
    assert "sakuin keys add" in refused("--host", "0.0.0.0")[1]
    assert refused("--config", str(tmp_path / "none.toml"))[0] == 2
    keys = tmp_path / "keys.json"
    keys.write_text("{")
    code, said = refused("--api-keys", str(keys))
    assert (code, said.count("\n")) == (2, 1)
