"""`sakuin contexts` and `sakuin chat` as a user meets them, with a tiny model in a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from stored import CONFIG, MORE, TEXT, model_of
from test_cli import run

from sakuin import Library
from sakuin.cli import app
from sakuin.cli.contexts import add
from sakuin.documents import Document

LIBRARY = "SAKUIN_LIBRARY"


class Here:
    """Commands called in this process, which saves them a start: exit code, output, errors."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        code = app(list(words), prog_name="sakuin", standalone_mode=False)
        said = self._capsys.readouterr()
        return int(code or 0), said.out, said.err

    def refused(self, *words: str) -> str:
        code, out, err = self(*words)
        assert (code, out) == (2, "")
        assert err.startswith("sakuin: ")
        assert err.endswith(".\n")
        assert len(err.splitlines()) == 1
        return err


@pytest.fixture
def here(
    added: tuple[str, dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Here:
    monkeypatch.setenv(LIBRARY, added[0])
    return Here(capsys)


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("papers") / "paper.txt"
    path.write_text(TEXT)
    return str(path)


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory, model: str, paper: str) -> tuple[str, dict[str, Any]]:
    """A library with one context, and what `add` said."""
    library = str(tmp_path_factory.mktemp("library"))
    done = run("contexts", "add", "paper", paper, "--model", model, "--json", **{LIBRARY: library})
    assert done.returncode == 0, done.stderr
    return library, json.loads(done.stdout)


def test_a_stored_context_is_asked_without_being_read_again(added: tuple[str, dict[str, Any]]) -> None:
    library, said = added
    assert said["tokens"] > 1400
    assert said["reused_tokens"] == 0
    done = run(
        "contexts", "ask", "paper", "Who jumps?", "--max-new-tokens", "4", "--json", **{LIBRARY: library}
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["reused_tokens"] == said["tokens"]
    assert answer["tokens"] - answer["reused_tokens"] < 40
    assert answer["evidence"][0]["file"].endswith("paper.txt")


def test_the_library_is_listed_shown_verified_and_tidied(
    added: tuple[str, dict[str, Any]], here: Here, tmp_path: Path
) -> None:
    (listed,) = json.loads(here("contexts", "list", "--json")[1])
    assert (listed["name"], listed["state"]) == ("paper", "whole")
    assert listed["asked"] == Library(added[0]).folder.asked("paper")
    assert "paper" in here("contexts", "list")[1]
    assert json.loads(here("contexts", "show", "paper", "--json")[1])["tokens"] == added[1]["tokens"]
    assert here("contexts", "verify")[:2] == (0, "paper: well\n")
    part = max(Path(added[0], "parts").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    code, out, _ = here("contexts", "verify", "--json")
    data[-1] ^= 1
    part.write_bytes(data)
    assert code == 1
    assert part.name in json.loads(out)["damage"]["paper"][0]
    assert "removed 0 files" in here("contexts", "gc")[1]
    assert here("contexts", "quota", "2GB")[1].endswith("; its quota is 2.00 GB\n")
    assert here("contexts", "quota", "none")[1].endswith("; no quota limits it\n")
    assert here("contexts", "keep", "paper", "--pin", "--for", "30d")[0] == 0
    listed = here("contexts", "list")[1]
    assert "pinned" in listed
    assert "for 30 d" not in listed  # what is pinned stays
    shown = here("contexts", "show", "paper")[1]
    assert "for ever, pinned; without the pin for 30 d more" in " ".join(shown.split())
    assert here("contexts", "keep", "paper", "--no-pin", "--for", "ever")[0] == 0
    file = str(tmp_path / "paper.tar")
    assert here("contexts", "export", "paper", file)[0] == 0
    assert here("contexts", "import", file, "copy")[1] == "copy is here now\n"
    assert "no context named 'nosuch'" in here.refused("contexts", "rm", "copy", "nosuch")
    Library().change("copy", keep_for=-1)
    assert "command that changes the library" in here("contexts", "list")[2]
    assert "copy: well, expired\n" in here("contexts", "verify")[1]
    assert here("contexts", "verify", "copy")[:2] == (0, "copy: well, expired\n")
    assert here("contexts", "keep", "copy", "--for", "ever")[0] == 0
    assert here("contexts", "rm", "copy")[1] == "removed copy and 0 files, 0 MB\n"


def test_mistakes_are_said_in_a_sentence(
    here: Here, paper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no context named 'other'" in here.refused("contexts", "ask", "other", "Who?")
    assert "already" in here.refused("contexts", "add", "paper", paper)
    assert "cannot be named" in here.refused("contexts", "add", "a/b", paper)
    assert "got '3'" in here.refused("contexts", "add", "b", paper, "--keep-for", "3")
    assert "got 'much'" in here.refused("contexts", "quota", "much")
    assert "say what to change" in here.refused("contexts", "keep", "paper")
    assert "needs one file" in here.refused("contexts", "append", "paper", paper, paper, "--follow")
    assert "no file" in here.refused("contexts", "import", str(tmp_path / "x.tar"))
    assert "not both" in here.refused("chat", paper, "--context", "paper")
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setenv(LIBRARY, str(tmp_path))
    assert "other things" in here.refused("contexts", "quota", "1GB")


def test_a_log_is_followed_and_stays(model: str, tmp_path: Path) -> None:
    library, log = {LIBRARY: str(tmp_path / "library")}, tmp_path / "server.log"
    log.write_text(TEXT)
    assert (
        run("contexts", "add", "log", str(log), "--model", model, "--dtype", "fp32", **library).returncode
        == 0
    )
    with log.open("a") as file:
        file.write("first\n")
    with subprocess.Popen(
        [sys.executable, "-m", "sakuin", "contexts", "append", "log", str(log), "--follow", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **library},
    ) as following:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["appended"] > 0
        time.sleep(1)
        with log.open("a") as file:
            file.write(MORE)
        grown = json.loads(following.stdout.readline())
        assert 0 < len(MORE) - grown["appended"] + 6 < 64
        following.send_signal(signal.SIGINT)
        assert following.wait(60) in (0, 130)
    held = Library(library[LIBRARY]).open("log", *model_of())
    assert held.documents[0].text == log.read_text()
    nothing = run("contexts", "append", "log", str(log), **library)
    assert "holds all of it already" in nothing.stderr


def test_a_conversation_is_kept(added: tuple[str, dict[str, Any]]) -> None:
    library = {LIBRARY: added[0]}
    words = ("chat", "--context", "paper", "--max-new-tokens", "4", "--save", "talk", "--json")
    done = run(*words, data=b"Who jumps?\nAnd why?\n/quit\nnot this\n", **library)
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert second["reused_tokens"] == first["tokens"] + first["new_tokens"]
    listed = json.loads(run("contexts", "list", "--json", **library).stdout)
    assert {one["name"]: one["tokens"] for one in listed}["talk"] > added[1]["tokens"]
    assert run("contexts", "rm", "talk", **library).returncode == 0


def test_an_interrupted_add_says_what_is_kept(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "sakuin", "contexts", "add", "long", "-", "--resume"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, LIBRARY: str(tmp_path)},
    ) as adding:
        assert adding.stderr is not None
        assert "begins anew" in adding.stderr.readline()
        time.sleep(1)
        adding.send_signal(signal.SIGINT)
        assert adding.wait(60) == 130
        assert adding.stderr.read() == "sakuin: Interrupted. Nothing of long is kept yet.\n"
    library = Library(tmp_path)

    def stop(done: int, total: int, phase: str) -> None:
        if done > 1000:
            raise KeyboardInterrupt

    # Sealed by who reads: how much a background thread has done by then would depend on its speed.
    sealing = patch("sakuin.cache.sealing.spare_core", lambda: False)
    chunks = patch("sakuin.backends.transformers.backend.CHUNK", 128)
    with chunks, sealing, pytest.raises(KeyboardInterrupt):
        library.add("long", [Document("a.txt", TEXT)], *model_of(), CONFIG, stop)
    tokens = f"{library.kept_of('long'):,} tokens of long are kept"
    assert tokens in add._left_of("long", str(tmp_path))
    library.add("long", [Document("a.txt", TEXT)], *model_of(), CONFIG, resume=True)
    assert add._left_of("long", str(tmp_path)) == "long is in the library."


def test_a_conversation_that_is_interrupted_is_kept(added: tuple[str, dict[str, Any]]) -> None:
    library = {LIBRARY: added[0]}
    words = ("chat", "--context", "paper", "--max-new-tokens", "4", "--save", "cut", "--json")
    with subprocess.Popen(
        [sys.executable, "-m", "sakuin", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **library},
    ) as talking:
        assert talking.stdin is not None
        assert talking.stdout is not None
        talking.stdin.write("Who jumps?\n")
        talking.stdin.flush()
        answer = json.loads(talking.stdout.readline())
        assert Library(added[0]).show("cut")["tokens"] == added[1]["tokens"]  # before anything was said
        talking.send_signal(signal.SIGINT)
        assert talking.wait(60) == 130
    assert Library(added[0]).show("cut")["tokens"] >= answer["tokens"]
    Library(added[0]).remove("cut")


def test_a_conversation_that_has_no_room_is_refused_before_it(here: Here, paper: str) -> None:
    Library().quota = 1000
    Library().change("paper", pinned=True)
    try:
        refused = run("chat", "--context", "paper", "--save", "talk", data=b"Who jumps?\n")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "quota" in refused.stderr
    finally:
        Library().quota = None
        Library().change("paper", pinned=False)
