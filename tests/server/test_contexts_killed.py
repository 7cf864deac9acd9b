"""Servers are killed at any moment, while documents are uploaded and read: what was acknowledged is there
after the next start and answers, and what was not has left nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from contexts_app import ready
from stored import CONFIG, MORE, TEXT, model_of, said

from sakuin import Context, Library
from sakuin.documents import Document
from sakuin.storage.whole_files import may_be_temporary

HERE = Path(__file__).parent
CLIENTS = 3


class Servers:
    """The process of contexts_worker.py, and the server that it runs now."""

    def __init__(self, root: Path) -> None:
        path = os.pathsep.join([str(HERE.parent), str(HERE)])
        self.process = subprocess.Popen(
            [sys.executable, HERE / "contexts_worker.py", root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        )
        assert self._line() == "ready"

    def _line(self, word: str | None = None) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if word is not None:
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def start(self) -> httpx.Client:
        self.server, port = map(int, self._line("start").split())
        return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def kill(self) -> None:
        os.kill(self.server, signal.SIGKILL)
        assert self._line("gone?") == "gone"

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0


class Acknowledged:
    """What the servers have taken: the text of each context. open : texts that a context may have instead,
    since nobody knows whether the last append to it was taken. gone : contexts that may or may not be there,
    since nobody knows whether they were removed, or taken. wrong : what no server should do."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.open: dict[str, str] = {}
        self.gone: set[str] = set()
        self.sent = 0
        self.wrong: list[BaseException] = []
        self.lock = threading.Lock()


def upload(client: httpx.Client, taken: Acknowledged, draw: random.Random, ended: threading.Event) -> None:
    """Upload, append and remove until the server is gone."""
    while not ended.is_set():
        with taken.lock:
            taken.sent += 1
            number = taken.sent
            mine = sorted(name for name in taken.texts if name not in taken.gone | taken.open.keys())
            old = draw.choice(mine) if mine else None
            what = draw.choice(("add", "add", "append", "remove")) if old else "add"
            if old is not None and what in ("append", "remove"):
                (taken.gone.add(old) if what == "remove" else taken.open.__setitem__(old, ""))
        name = old if old is not None and what != "add" else f"c{number}"
        text = f"{number} {TEXT[: draw.randrange(50, 700)]}"
        try:
            step(client, taken, what, name, text)
        except httpx.HTTPError:  # nobody knows whether it was taken
            with taken.lock:
                if what == "append":
                    taken.open[name] = taken.texts[name] + text
                else:
                    taken.gone.add(name)
            return
        except BaseException as error:
            taken.wrong.append(error)
            return


def step(client: httpx.Client, taken: Acknowledged, what: str, name: str, text: str) -> None:
    if what == "remove":
        answer = client.delete(f"/v1/contexts/{name}")
        assert answer.status_code == 200, answer.text
        with taken.lock:
            taken.gone.discard(name)
            del taken.texts[name]
        return
    if what == "append":
        answer = client.post(f"/v1/contexts/{name}/append", json={"text": text})
    else:
        files = {"files": ("a.txt", text.encode())}
        answer = client.post("/v1/contexts", data={"name": name}, files=files)
    assert answer.status_code == 202, answer.text
    with taken.lock:
        taken.texts[name] = taken.texts.get(name, "") + text
        taken.open.pop(name, None)


def check(client: httpx.Client, taken: Acknowledged) -> None:
    """All that was acknowledged is there and becomes ready, with its text."""
    listed = {one["id"] for one in client.get("/v1/contexts").json()["data"]}
    for name in taken.gone:
        taken.texts.pop(name, None)
        if name in listed:
            assert client.delete(f"/v1/contexts/{name}").status_code == 200
    taken.gone = set()
    listed = {one["id"] for one in client.get("/v1/contexts").json()["data"]}
    assert listed == taken.texts.keys()
    for name, text in taken.texts.items():
        found = ready(client, name)
        assert found["status"] == "ready", found
        [document] = client.get(f"/v1/contexts/{name}/text").json()["documents"]
        assert document["text"] in (text, taken.open.get(name, text)), name
        taken.texts[name] = document["text"]
    taken.open = {}


def kill_often(root: Path, kills: int, seed: int) -> None:
    servers, taken, draw = Servers(root), Acknowledged(), random.Random(seed)
    for _ in range(kills):
        client, ended = servers.start(), threading.Event()
        threads = [
            threading.Thread(target=upload, args=(client, taken, random.Random(draw.random()), ended))
            for _ in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        time.sleep(draw.uniform(0.05, 1.5))
        servers.kill()
        ended.set()
        for thread in threads:
            thread.join(60)
        client.close()
        assert taken.wrong == []
        with servers.start() as client:
            if draw.random() < 0.3:  # killed again while it goes on
                time.sleep(draw.uniform(0, 0.3))
                servers.kill()
                client = servers.start()
            check(client, taken)
            # Few are kept, so that the test does not grow.
            for name in sorted(taken.texts)[6:]:
                assert client.delete(f"/v1/contexts/{name}").status_code == 200
                del taken.texts[name]
            client.close()
        servers.kill()
    servers.end()
    assert taken.texts
    print(f"{kills} kills, {taken.sent} requests")
    library = Library(root)
    assert {entry.name for entry in library.entries()} == taken.texts.keys()
    assert all(damage == [] for damage in library.verify().values())
    for name, text in taken.texts.items():
        context = library.open(name, *model_of())
        fresh = Context.from_documents(*model_of(), [Document("a.txt", text)], CONFIG)
        assert context.tokens == fresh.tokens
        assert said(context)[0]
    library.gc()
    needed = {file for name in taken.texts for file in library.find(name).manifest.files}
    assert library.folder.parts.all().keys() == needed
    assert [path for path in (root / "spool").glob("*/*") if path.is_dir()] == []
    assert [path for path in (root / "contexts").iterdir() if may_be_temporary(path.name)] == []


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    kill_often(tmp_path / "library", 4, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_nothing_acknowledged_is_lost_in_fifty_kills(tmp_path: Path) -> None:
    kill_often(tmp_path / "library", 50, seed=2)


def test_a_context_answers_after_a_kill_as_before(tmp_path: Path) -> None:
    root = tmp_path / "library"
    servers = Servers(root)
    with servers.start() as client:
        assert client.post("/v1/contexts?wait=true", json={"name": "fox", "text": TEXT}).status_code == 201
        before = said(Library(root).open("fox", *model_of()))[0]
        assert client.post("/v1/contexts", json={"name": "late", "text": TEXT + MORE}).status_code == 202
    servers.kill()
    assert said(Library(root).open("fox", *model_of()))[0] == before
    with servers.start() as client:
        assert ready(client, "late")["status"] == "ready"
        assert ready(client, "fox")["status"] == "ready"
    servers.kill()
    servers.end()
    expected = Context.from_documents(*model_of(), [Document("text", TEXT + MORE)], CONFIG)
    assert said(Library(root).open("late", *model_of()))[0] == said(expected)[0]
