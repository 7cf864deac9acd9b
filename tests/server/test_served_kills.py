"""`sakuin serve` as its own process, ended at any moment: killed under load, it has lost no context that it
acknowledged; told to end, it lets what runs end, or says that it cannot, and ends itself."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

CLIENTS = 4
FACT = "The harbour master of Lindholm is called Agneta Falk. "


class Process:
    """A server that runs."""

    def __init__(self, library: Path, **settings: float) -> None:
        config = library.parent / "settings.toml"
        config.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        words = [
            "serve", "--model", "smollm2", "--port", "0",
            "--library", str(library), "--config", str(config),
        ]  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sakuin", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        )
        assert self.process.stdout is not None
        self.said: list[str] = []
        for line in self.process.stdout:
            self.said.append(line)
            if "http://127.0.0.1:" in line:
                break
        else:
            raise AssertionError("".join(self.said))
        self.url = f"http://127.0.0.1:{line.split('http://127.0.0.1:')[1].split()[0]}"
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.said.extend(self.process.stdout)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120)

    def end(self, how: signal.Signals, times: int = 1) -> int:
        """The exit code after a signal."""
        for i in range(times):
            if i:
                time.sleep(0.5)
            self.process.send_signal(how)
        code = self.process.wait(60)
        self._reader.join(10)
        return code

    @property
    def failures(self) -> list[str]:
        return [line for line in self.said if '"error"' in line or "Traceback" in line]


@contextmanager
def served(library: Path, **settings: float) -> Iterator[Process]:
    process = Process(library, **settings)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.end(signal.SIGKILL)


ENDLESS = {"stream": True, "max_tokens": 7000, "end_loops": False, "logit_bias": {"0": -100, "2": -100}}
"""It cannot end by itself: the tokens that end an answer are forbidden."""


def chat(question: str = "What is a harbour?", **more: Any) -> dict[str, Any]:
    asked = {"model": "smollm2", "messages": [{"role": "user", "content": question}], "max_tokens": 8}
    return {**asked, **more}


def model_of(client: httpx.Client) -> str:
    found: str = client.get("/v1/models").json()["data"][0]["id"]
    return found


def answer(client: httpx.Client, context: str) -> str:
    """What a context answers, greedily."""
    asked = chat("Who is the harbour master?", model=model_of(client), context=context)
    said = client.post("/v1/chat/completions", json=asked)
    assert said.status_code == 200, said.text
    text: str = said.json()["choices"][0]["message"]["content"]
    return text


class Load:
    """Clients that chat, stream and upload until the server is gone. taken : the texts of contexts that were
    acknowledged."""

    def __init__(self, process: Process, number: int, seed: int) -> None:
        self.process, self.number = process, number
        self.taken: dict[str, str] = {}
        self.wrong: list[BaseException] = []
        self.ended = threading.Event()
        self.threads = [
            threading.Thread(target=self._work, args=(i, random.Random(f"{seed} {i}")), daemon=True)
            for i in range(CLIENTS)
        ]
        for thread in self.threads:
            thread.start()

    def _work(self, who: int, draw: random.Random) -> None:
        with self.process.client() as client, suppress(httpx.HTTPError):
            model, sent = model_of(client), 0
            while not self.ended.is_set():
                sent += 1
                try:
                    self._step(client, draw, model, f"k{self.number}-{who}-{sent}")
                except httpx.HTTPError:
                    raise
                except BaseException as error:
                    self.wrong.append(error)
                    return

    def _step(self, client: httpx.Client, draw: random.Random, model: str, name: str) -> None:
        what = draw.choice(("add", "chat", "stream"))
        if what == "add":
            text = FACT + f"{name} lies by the sea. " * draw.randrange(1, 6)
            said = client.post("/v1/contexts", json={"name": name, "text": text})
            assert said.status_code in (202, 429), said.text
            if said.status_code == 202:
                self.taken[name] = text
        elif what == "chat":
            said = client.post("/v1/chat/completions", json=chat(model=model))
            assert said.status_code in (200, 429), said.text
        else:
            asked = chat(model=model, stream=True, max_tokens=30)
            with client.stream("POST", "/v1/chat/completions", json=asked) as stream:
                assert stream.status_code in (200, 429)
                for _ in stream.iter_lines():
                    if draw.random() < 0.02:
                        return

    def end(self) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()
        assert self.wrong == []


def all_there(client: httpx.Client, taken: dict[str, str]) -> None:
    """What was acknowledged is listed, becomes ready, and has its text."""
    until = time.monotonic() + 300
    while True:
        listed = {one["id"]: one["status"] for one in client.get("/v1/contexts").json()["data"]}
        assert taken.keys() <= listed.keys()
        assert all(listed[name] != "failed" for name in taken)
        if all(listed[name] == "ready" for name in taken):
            break
        assert time.monotonic() < until, listed
        time.sleep(0.1)
    for name, text in taken.items():
        [document] = client.get(f"/v1/contexts/{name}/text").json()["documents"]
        assert document["text"] == text


def kill_often(library: Path, kills: int, seed: int) -> None:
    draw, taken, before = random.Random(seed), dict[str, str](), dict[str, str]()
    for number in range(kills + 1):
        with served(library) as process, process.client() as client:
            all_there(client, taken)
            for name, said in before.items():
                assert answer(client, name) == said
            for name in sorted(taken)[3:]:  # few are kept, so that the test does not grow
                assert client.delete(f"/v1/contexts/{name}").status_code == 200
                before.pop(name, None)
                del taken[name]
            before = {name: answer(client, name) for name in taken}
            assert process.failures == []
            if number == kills:
                break
            load = Load(process, number, draw.randrange(1 << 30))
            time.sleep(draw.uniform(0.3, 3.0))
            process.end(signal.SIGKILL)
            load.end()
            taken |= load.taken
    assert taken


@pytest.mark.slow  # a minute
def test_nothing_acknowledged_is_lost_in_kills_under_load(tmp_path: Path) -> None:
    kill_often(tmp_path / "library", 3, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_in_fifty_kills_under_load(tmp_path: Path) -> None:
    kill_often(tmp_path / "library", 50, seed=2)


@pytest.mark.parametrize("how", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_server_told_to_end_lets_what_runs_end(tmp_path: Path, how: signal.Signals) -> None:
    library = tmp_path / "library"
    with served(library, drain_s=60) as process, process.client() as client:
        asked = chat(model=model_of(client), stream=True, max_tokens=60, end_loops=False)
        client.post("/v1/contexts", json={"name": "fox", "text": FACT}).raise_for_status()
        with client.stream("POST", "/v1/chat/completions", json=asked) as stream:
            lines = stream.iter_lines()
            next(lines)
            process.process.send_signal(how)
            said = [line for line in lines if line]
        assert said[-1] == "data: [DONE]"
        assert json.loads(said[-2][6:])["choices"][0]["finish_reason"] in ("stop", "length")
        assert process.process.wait(60) == 0
        assert process.failures == []
    with served(library) as process, process.client() as client:
        all_there(client, {"fox": FACT})
        assert process.end(signal.SIGINT) == 0


def test_what_does_not_end_in_time_is_told(tmp_path: Path) -> None:
    with served(tmp_path / "library", drain_s=0.5) as process, process.client() as client:
        asked = chat(model=model_of(client), **ENDLESS)
        with client.stream("POST", "/v1/chat/completions", json=asked) as stream:
            lines = stream.iter_lines()
            next(lines)
            process.process.send_signal(signal.SIGTERM)
            said = [line for line in lines if line]
        assert said[-1] == "data: [DONE]"
        assert json.loads(said[-2][6:])["error"]["code"] == "closing"
        assert process.process.wait(60) == 0
        assert process.failures == []


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with served(tmp_path / "library", drain_s=600) as process, process.client() as client:
        asked = chat(model=model_of(client), **ENDLESS)
        with client.stream("POST", "/v1/chat/completions", json=asked) as stream:
            lines = stream.iter_lines()  # which ends the stream where nobody holds it
            next(lines)
            assert process.end(signal.SIGINT, times=2) == 128 + signal.SIGINT
