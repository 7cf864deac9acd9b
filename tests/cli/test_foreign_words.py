"""Names, questions and documents that would steer the terminal, be markup, or be no text: a command prints
them as they are, says in a sentence what it cannot take, and never ends in a traceback."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stored import CONFIG, TEXT, model_of
from test_cli import run
from test_cli_contexts import LIBRARY, Here
from test_printing import CONTROL

from sakuin import Context, Library
from sakuin.cli.contexts.follow import Follower, Watched
from sakuin.cli.show import tell
from sakuin.documents import Document
from sakuin.documents.document import Mark

CODES = "\x1b]0;OWNED\x07\x1b[31munit 31\x1b[0m\x1b[2J\x1b]8;;http://evil/\x07click\x1b]8;;\x07\x9b2J\u202e"
NAMES = (
    "minutes [/2024].txt",
    "[draft] pond [v2].txt",
    "[link=http://evil]a[/link] :smile:.md",
    f"log{CODES}\n.log",
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A library with one context, of documents whose names and words are hostile; and its model."""
    base = tmp_path_factory.mktemp("hostile")
    folder, saved = base / "library [/x]", base / "model [/x] :smile:"
    models = model_of()
    for one in models:
        one.save_pretrained(saved)
    texts = [Document(name, f"{CODES} {TEXT[:900]}", (Mark(0, heading=f"[/b] {CODES}"),)) for name in NAMES]
    Library(folder).add("talk", texts, *models, CONFIG)
    return str(folder), str(saved)


@pytest.fixture
def library(stored: tuple[str, str]) -> str:
    return stored[0]


@pytest.fixture
def model(stored: tuple[str, str]) -> str:
    return stored[1]


@pytest.fixture
def here(library: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    monkeypatch.setenv(LIBRARY, library)
    return Here(capsys)


def clean(said: tuple[int, str, str]) -> str:
    """What a command printed, which neither failed nor steers."""
    code, out, err = said
    assert code == 0, err
    assert not CONTROL.search(out)
    assert not CONTROL.search(err)
    return out


def test_documents_are_shown_by_their_names(here: Here) -> None:
    shown = " ".join(clean(here("contexts", "show", "talk")).split())
    for name in NAMES[:3]:
        assert name in shown
    assert "logunit 31click .log" in shown
    assert "talk" in clean(here("contexts", "list"))
    assert clean(here("contexts", "verify")) == "talk: well\n"
    found = json.loads(clean(here("contexts", "show", "talk", "--json")))
    assert found["documents"] == list(NAMES)


def test_passages_headings_and_the_model_are_shown_as_they_are(here: Here, model: str) -> None:
    words = (
        "contexts",
        "ask",
        "talk",
        "Who jumps [/over] what?",
        "--model",
        model,
        "--max-new-tokens",
        "4",
    )
    said = clean(here(*words, "--figures"))
    assert "OWNED" not in said
    assert "".join(Path(model).name.split()) in "".join(said.split())  # which may be folded
    found = json.loads(clean(here(*words, "--json")))
    assert any("\x1b[2J" in passage["text"] for passage in found["evidence"])


def test_ask_takes_files_and_models_of_any_name(
    here: Here, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("app [/var] [bold] \x1b[2J.log")
    path.parent.mkdir()
    path.write_text(f"{CODES}\n{TEXT[:2000]}")
    said = clean(here("ask", str(path), "Who jumps?", "--model", model, "--max-new-tokens", "4"))
    assert "[/var] [bold]" in said.replace("\n", "")


def test_a_log_of_any_name_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "app [/var]\x1b[2J.log"
    path.parent.mkdir()
    path.write_text("one\n")

    def grow(document: Document, beside: bool) -> None:
        path.write_text(f"{path.read_text()}two\n")
        if path.read_text().count("two") == 2:
            raise KeyboardInterrupt

    watched = Watched(path, tell)
    Follower(watched, None, grow, tell).run()
    watched.stop()
    said = capsys.readouterr().err
    assert "app [/var].log" in said
    assert not CONTROL.search(said)


LONG = "What is the serial number of the disk whose probe failed? " * 6


@pytest.mark.parametrize(
    "question",
    [LONG, "PAPER/why?", "loop", "loop/why?", "Why\0?", "~nobody-at-all/why?", "x" * 5000],
    ids=["long", "through a file", "a loop", "past a loop", "NUL", "nobody", "longer"],
)
def test_a_question_is_no_path(
    question: str, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("paper.txt").write_text(TEXT)
    Path("loop").symlink_to("loop")
    question = question.replace("PAPER", "paper.txt")
    # All is well with the question: what is said is that there is no such model.
    assert "there is no model at './nosuch'" in here.refused(
        "ask", "paper.txt", question, "--model", "./nosuch"
    )
    reason = "a NUL character" if "\0" in question else "there is no model at"
    assert reason in here.refused("ask", "paper.txt", "Why?", "--model", f"./{question}")
    said = here.refused("ask", question, "Why?", "--model", "./nosuch")
    assert "Error" not in said
    assert len(said) < 300


def test_bytes_that_are_no_text_are_told(here: Here, library: str, tmp_path: Path) -> None:
    path = tmp_path / "paper.txt"
    path.write_text(TEXT)
    said = "the question holds the byte 0xe9, which is not UTF-8; write it in UTF-8."
    assert said in here.refused("ask", str(path), "Which caf\udce9?")
    assert said in here.refused("contexts", "ask", "talk", "Which caf\udce9?")
    done = subprocess.run(
        [sys.executable, "-m", "sakuin", "ask", str(path), b"Which caf\xe9?"],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == f"sakuin: {said}\n"


def test_a_message_that_is_no_text_does_not_end_a_conversation(
    here: Here, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = b"caf\xe9?\nWho jumps?\n/quit\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines), encoding="utf-8"))
    code, out, err = here("chat", "--model", model, "--max-new-tokens", "4", "--json")
    assert code == 0
    assert len(out.splitlines()) == 1
    assert "the message holds the byte 0xe9" in err


def test_a_message_without_end_is_refused(here: Here, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sakuin.cli.messages.MOST", 1000)
    with open("/dev/zero") as endless:
        monkeypatch.setattr(sys, "stdin", endless)
        assert "more than 1,000 characters" in here.refused("chat", "--model", model)


def test_messages_that_are_refused_without_end_end(
    here: Here, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sakuin.cli.talk.MOST_REFUSED", 3)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xe9\n" * 9), encoding="utf-8"))
    code, _, err = here("chat", "--model", model)
    assert code == 2
    assert len(err.splitlines()) == 3


C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}


def test_a_terminal_of_ascii_costs_no_traceback(library: str, tmp_path: Path) -> None:
    path = tmp_path / "minutes.txt"
    path.write_text("é " * 10)
    done = run("contexts", "show", "talk", **C, **{LIBRARY: library})
    assert done.returncode == 0, done.stderr
    done = run("contexts", "show", "talk", "--json", **C, **{LIBRARY: library})
    assert json.loads(done.stdout)["documents"] == list(NAMES)
    done = run("contexts", "ask", "nosuch", "Wann fährt er?", **C, **{LIBRARY: library})
    assert "no context named 'nosuch'" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("contexts", "list"),
        ("contexts", "list", "--json"),
        ("--help",),
        ("contexts", "--help"),
        ("--version",),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("error", [False, True], ids=["output", "errors too"])
def test_a_reader_that_is_gone_ends_a_command_quietly(
    words: tuple[str, ...], error: bool, library: str
) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "sakuin", *words],
        stdout=write,
        stderr=write if error else subprocess.PIPE,
        env={**os.environ, LIBRARY: library},
        check=False,
    )
    os.close(write)
    assert done.returncode == 141
    assert not done.stderr


@pytest.mark.parametrize("words", [("contexts", "list", "--json"), ("--version",)], ids=" ".join)
def test_a_full_disk_is_said(words: tuple[str, ...], library: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sakuin", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, LIBRARY: library},
            check=False,
        )
    assert (done.returncode, done.stderr) == (2, b"sakuin: no space left on device.\n")


def test_closed_standard_streams_cost_no_traceback(library: str) -> None:
    environment: dict[str, Any] = {**os.environ, LIBRARY: library}
    for closed in ("<&-", ">&-", "2>&-"):
        done = subprocess.run(
            ["/bin/sh", "-c", f'"{sys.executable}" -m sakuin contexts list --json {closed}'],
            capture_output=True,
            env=environment,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
    done = subprocess.run(
        ["/bin/sh", "-c", f'"{sys.executable}" -m sakuin ask - "Why?" --model ./nosuch <&-'],
        capture_output=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 2
    assert b"standard input is closed" in done.stderr


def test_narrow_terminals_are_printed_to(library: str) -> None:
    done = run("contexts", "list", COLUMNS="0", NO_COLOR="1", **{LIBRARY: library})
    assert done.returncode == 0, done.stderr
    assert "talk" in done.stdout


def test_answers_are_printed_as_they_stream(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    from sakuin.cli.answering import Manner, streamed

    context = Context.from_documents(*model_of(), [Document("a", TEXT[:500])], CONFIG)
    answer = streamed(context, "Who jumps?", Manner(8), stream=True)
    out = capsys.readouterr().out
    assert not CONTROL.search(out)
    assert "".join(out.split()) == "".join(answer.text.split()) or CONTROL.search(answer.text)
