"""A log is followed as `tail -F` does it: through rotation, truncation, removal and bad bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stored import CONFIG, TEXT, model_of

from sakuin import Library
from sakuin.cli.contexts import follow
from sakuin.cli.contexts.follow import ANEW, CUT, NEW, Follower, Watched
from sakuin.documents import Document
from sakuin.errors import SakuinError


class Followed:
    """A file that is followed in this process, look by look: what was handed on, and what was told."""

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        self.told: list[str] = []
        self.texts: list[str] = []
        self.hows: list[str] = []
        self.watched = Watched(path, self.told.append)
        self.follower = Follower(self.watched, encoding, self.grow, self.told.append)
        self.take()

    def grow(self, document: Document, how: str) -> None:
        if how:
            self.hows.append(how)
        if how or not self.texts:
            self.texts.append("")
        self.texts[-1] = document.text

    def take(self, quiet: bool = True) -> list[str]:
        self.watched.look()
        self.follower._take(quiet)
        return self.texts


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "server.log"
    path.write_text("one\n")
    return path


def add(path: Path, data: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(data.encode() if isinstance(data, str) else data)


def test_a_rotated_log_is_read_to_its_end_and_the_new_one_after_it(log: Path) -> None:
    followed = Followed(log)
    assert followed.texts == ["one\n"]
    old = log.rename(log.with_suffix(".1"))
    add(old, "two\n")
    log.write_text("")  # made anew, and not written to yet
    assert followed.take() == ["one\ntwo\n"]
    add(old, "three\n")  # by who has the old file open still
    add(log, "four\n")
    assert followed.take() == ["one\ntwo\nthree\n", "four\n"]
    add(log, "five\n")
    assert followed.take() == ["one\ntwo\nthree\n", "four\nfive\n"]


def test_what_was_written_before_two_rotations_is_not_lost(log: Path) -> None:
    followed = Followed(log)
    for i in range(3):
        add(log, f"end {i}")
        log.rename(log.with_suffix(f".{i}"))
        log.write_text(f"begin {i}\n")
        followed.watched.look()  # the model is busy; the thread looks on
    assert followed.take() == ["one\nend 0", "begin 0\nend 1", "begin 1\nend 2", "begin 2\n"]


@pytest.mark.parametrize("after", ["", "a", "another beginning that is longer than what was there before\n"])
def test_a_truncated_log_begins_anew(log: Path, after: str) -> None:
    followed = Followed(log)
    log.write_text(after)
    followed.take()
    add(log, "two\n")
    assert followed.take() == ["one\n", f"{after}two\n"]
    assert followed.hows == [ANEW if len(after) > 4 else CUT]


def test_a_log_that_was_rotated_is_a_new_file(log: Path) -> None:
    followed = Followed(log)
    log.rename(log.with_suffix(".1"))
    log.write_text("two\n")
    assert followed.take() == ["one\n", "two\n"]
    assert followed.hows == [NEW]


@pytest.mark.parametrize("was_there", [True, False])
@pytest.mark.parametrize("kind", ["a folder", "a pipe"])
def test_what_has_the_name_for_a_while_is_waited_out(log: Path, kind: str, was_there: bool) -> None:
    if not was_there:
        log.unlink()
    followed = Followed(log)
    told, texts = len(followed.told), list(followed.texts)
    log.unlink(missing_ok=True)
    if kind == "a folder":
        log.mkdir()
    else:
        os.mkfifo(log)
    for _ in range(3):
        assert followed.take() == texts
    assert followed.told[told:] == [f"{log} is {kind} now; waiting for a file"]
    if kind == "a folder":
        log.rmdir()
    else:
        with pytest.raises(OSError, match="No such device"):  # nobody reads it
            os.open(log, os.O_WRONLY | os.O_NONBLOCK)
        log.unlink()
    log.write_text("two\n")
    assert followed.take() == [*texts, "two\n"]
    assert followed.watched.error is None
    log.unlink()
    followed.take()
    assert len(followed.told) == told + 2  # once each time


def test_a_log_that_is_not_there_or_empty_is_waited_for(log: Path) -> None:
    log.unlink()
    followed = Followed(log)
    assert followed.told == [f"{log} is not there; waiting for it"]
    log.write_text("")
    assert followed.take() == []
    add(log, "one\n")
    assert followed.take() == ["one\n"]
    log.unlink()
    assert followed.take() == ["one\n"]
    log.write_text("two\n")
    assert followed.take() == ["one\n", "two\n"]
    assert len(followed.told) == 2


def test_half_a_letter_waits_and_what_is_no_text_is_replaced_and_noted(log: Path) -> None:
    followed = Followed(log)
    letter = "\N{HIRAGANA LETTER A}".encode()
    add(log, b"two " + letter[:2])
    assert followed.take() == ["one\ntwo "]
    add(log, letter[2:] + b"\n")
    assert followed.take() == ["one\ntwo \N{HIRAGANA LETTER A}\n"]
    add(log, b"thr\xffee\n")
    followed.take()
    assert followed.take() == ["one\ntwo \N{HIRAGANA LETTER A}\nthr\N{REPLACEMENT CHARACTER}ee\n"]
    assert len(followed.told) == 1
    add(log, letter[:1])
    assert followed.take()[-1].endswith("ee\n")
    log.rename(log.with_suffix(".1"))
    log.write_text("new\n")
    texts = followed.take()
    assert texts[0].endswith("ee\n\N{REPLACEMENT CHARACTER}")
    assert texts[1:] == ["new\n"]


def test_another_encoding_is_followed_letter_by_letter(tmp_path: Path) -> None:
    log, text = tmp_path / "a.log", "\u7d22\u5f15\u306e\u672c\u3092\u8aad\u3080\n" * 4
    log.write_bytes(text.encode("cp932"))
    followed = Followed(log, "cp932")
    letter = "\u7d22".encode("cp932")
    add(log, letter[:1])
    assert followed.take() == [text]
    add(log, letter[1:])
    assert followed.take() == [text + "\u7d22"]


def test_of_a_line_that_is_being_written_nothing_is_taken(log: Path) -> None:
    followed = Followed(log)
    add(log, "two\nthr")
    assert followed.take(quiet=False) == ["one\ntwo\n"]
    assert followed.take(quiet=False) == ["one\ntwo\n"]
    assert followed.take() == ["one\ntwo\nthr"]
    add(log, "e")
    assert followed.take(quiet=False) == ["one\ntwo\nthr"]


def test_an_editor_that_saves_a_new_file_adds_to_the_same_text(log: Path) -> None:
    long = "a line of many\n" * 100
    log.write_text(long)
    followed = Followed(log)
    other = log.with_suffix(".new")
    other.write_text(long + "more\n")
    other.rename(log)
    assert followed.take() == [long + "more\n"]


def test_what_cannot_be_followed_is_said(tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match="no regular file"):
        Watched(tmp_path, print)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SakuinError, match="no regular file"):
        Watched(tmp_path / "pipe", print)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "PAUSE", 0.05)
    monkeypatch.setattr(follow, "LONGEST", 0.5)


def run_until(log: Path, grow: Callable[[list[str]], bool]) -> list[str]:
    """Follow until `grow`, given all that was handed on, is true."""
    found: list[str] = []

    def take(document: Document, _: str) -> None:
        found.append(document.text)
        if grow(found):
            raise KeyboardInterrupt

    watched = Watched(log, lambda _: None)
    try:
        Follower(watched, None, take, lambda _: None).run()
    finally:
        watched.stop()
    return found


def test_what_is_written_while_a_log_is_read_is_read_next(log: Path, quick: None) -> None:
    def grow(found: list[str]) -> bool:
        add(log, "two\n")
        return len(found) == 2

    assert run_until(log, grow) == ["one\n", "one\ntwo\n"]


class NeverQuiet(Watched):
    """A file that is another whenever one looks."""

    looks = 0

    @property
    def size(self) -> tuple[int, int]:
        self.looks += 1
        return 1, self.looks


def test_a_log_that_never_pauses_is_read_by_lines(
    log: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[bool] = []

    def take(self: Follower, quiet: bool) -> tuple[int, int]:
        taken.append(quiet)
        if len(taken) == 3:
            raise KeyboardInterrupt
        return -1, -1

    monkeypatch.setattr(Follower, "_take", take)
    watched = NeverQuiet(log, lambda _: None)
    Follower(watched, None, lambda *_: None, lambda _: None).run()
    watched.stop()
    assert taken == [True, False, False]


@pytest.fixture
def following(tmp_path: Path, model: str, log: Path) -> Iterator[tuple[subprocess.Popen[str], Library]]:
    library = Library(tmp_path / "library")
    library.add("log", [Document("first", TEXT[:200])], *model_of(), CONFIG)
    words = ["contexts", "append", "log", str(log), "--follow", "--json", "--model", model]
    with subprocess.Popen(
        [sys.executable, "-m", "sakuin", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SAKUIN_LIBRARY": str(library.folder.path)},
    ) as process:
        yield process, library
        process.kill()


def test_a_log_that_is_rotated_is_a_new_document_and_ctrl_c_leaves_all_of_it(
    following: tuple[subprocess.Popen[str], Library], log: Path
) -> None:
    process, library = following
    assert process.stdout is not None

    def said() -> Any:
        assert process.stdout is not None
        return [(one["name"], one["what"]) for one in json.loads(process.stdout.readline())["documents"]]

    assert said() == [(str(log), "new")]
    log.rename(log.with_suffix(".1"))
    log.write_text("another day\n")
    assert said() == [(f"{log} (2)", "new")]
    add(log, b"and a bad byte \xff in it\n")
    assert said() == [(f"{log} (2)", "grown")]
    log.write_text("cut\n")
    assert said() == [(f"{log} (3)", "new")]
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode in (0, 130)
    assert f"{log} is a new file; it is read as {log} (2)" in told
    assert f"{log} was cut short and begins again; it is read as {log} (3)" in told
    context = library.open("log", *model_of())
    assert [one.text for one in context.documents][1:] == [
        "one\n",
        "another day\nand a bad byte \N{REPLACEMENT CHARACTER} in it\n",
        "cut\n",
    ]
    assert library.verify() == {"log": []}
