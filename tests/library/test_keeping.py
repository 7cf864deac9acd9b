"""How long things stay, whom they belong to, and what of a library needs no right to write."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from stored import CONFIG, MORE, TEXT, model_of, read, said

from sakuin import Library
from sakuin.cli import app
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.library import archive
from sakuin.storage.locks import locked

DAY = 86400.0


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """A library that holds one context, `first`, kept for an hour."""
    library = Library(tmp_path / "above" / "library")
    text = [Document("a.txt", TEXT[:700])]
    library.add("first", text, *model_of(), CONFIG, keep_for=3600)
    return library


def states(library: Library) -> list[tuple[str, str]]:
    return [(entry.name, entry.state) for entry in library.entries()]


# -- clocks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [2 * 3600.0, 400 * DAY])
def test_a_clock_that_is_set_forward_and_back_removes_nothing(
    library: Library, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, other = time.time, read()
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time", lambda: now() + jump)
        assert states(library) == [("first", "expired")]
        for _ in range(2):
            library.gc()
            library.save("other", other)
            library.remove("other")
    assert states(library) == [("first", "whole")]
    assert library.gc().contexts == []
    assert said(library.open("first", *model_of()))[0]
    with monkeypatch.context() as wrong:  # what was noted then is forgotten
        wrong.setattr(time, "time", lambda: now() + jump + 2 * DAY)
        assert library.gc().contexts == []


def test_a_context_goes_a_day_after_it_was_found_expired(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    for after, gone in ((3601, []), (3601 + 0.9 * DAY, []), (3601 + 1.1 * DAY, ["first"])):
        monkeypatch.setattr(time, "time", lambda after=after: now() + after)
        assert library.gc().contexts == gone
    assert list(library.folder.contexts.iterdir()) == []


# -- modes ---------------------------------------------------------------------------------------------------


@contextmanager
def masked(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0, 0o277])
def test_folders_and_files_are_the_users_alone_whatever_the_umask(mask: int, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own").chmod(0o755)
    context = read(text=TEXT[:300])
    with masked(mask):
        library = Library(tmp_path / "own" / "above" / "library")
        library.save("first", context)
        library.open("first", *model_of())
        library.append("first", MORE, *model_of())
        archive.export_to(library, "first", tmp_path / "own" / "first.tar")
        archive.import_from(library, tmp_path / "own" / "first.tar", "again")
        context.save(tmp_path / "own" / "deep" / "snapshot")
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "own").rglob("*")}
    assert len(found) > 20
    assert {mode for path, mode in found.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in found.items() if path.is_file()} == {0o600}
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o755


# -- a library that may only be read -------------------------------------------------------------------------


@pytest.fixture
def read_only(library: Library, tmp_path: Path) -> Iterator[Library]:
    """The same where this process may read but not write; root may always, so it is somebody else."""
    archive.export_to(library, "first", tmp_path / "first.tar")
    place = Path(tempfile.mkdtemp(prefix="sakuin-test-"))
    shutil.copytree(library.folder.path, place / "library")
    shutil.copy(tmp_path / "first.tar", place / "first.tar")
    for path in [place, *place.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    user = os.geteuid()
    if not user:
        os.seteuid(65534)
    try:
        yield Library(place / "library")
    finally:
        if not user:
            os.seteuid(0)
        for path in place.rglob("*"):
            if path.is_dir():
                path.chmod(0o700)
        place.chmod(0o700)
        shutil.rmtree(place)


def test_a_library_that_may_only_be_read_is_looked_at_and_asked(read_only: Library) -> None:
    assert states(read_only) == [("first", "whole")]
    assert read_only.show("first")["tokens"] > 500
    assert read_only.verify() == {"first": []}
    assert read_only.imported() == {"first": []}
    assert read_only.quota is None
    assert read_only.open("first", *model_of()).ask("Who jumps?", 2).text is not None


CHANGES: dict[str, Callable[[Library], Any]] = {
    "add": lambda one: one.add("new", [Document("", TEXT)], *model_of(), CONFIG),
    "append": lambda one: one.append("first", MORE, *model_of()),
    "save": lambda one: one.save("new", read()),
    "change": lambda one: one.change("first", pinned=True),
    "remove": lambda one: one.remove("first"),
    "gc": lambda one: one.gc(),
    "import": lambda one: archive.import_from(one, one.folder.path.parent / "first.tar", "new"),
    "export": lambda one: archive.export_to(one, "first", one.folder.path / "new.tar"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_would_change_it_says_that_it_cannot(read_only: Library, change: str) -> None:
    with pytest.raises(SakuinError, match=r"cannot be (written|made) \(Permission denied\).*name another"):
        CHANGES[change](read_only)
    with pytest.raises(SakuinError, match=r"cannot be written \(Permission denied\).*name another"):
        read_only.quota = 10**9


def test_commands_on_it_say_the_same(read_only: Library, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--library", str(read_only.folder.path))
    for words in (["list"], ["list", "--json"], ["show", "first"], ["verify"], ["quota"]):
        assert not app(["contexts", *words, *place], prog_name="sakuin", standalone_mode=False)
        captured = capsys.readouterr()
        assert captured.out
        assert "Error" not in captured.err
    for words in (["rm", "first"], ["gc"], ["keep", "first", "--pin"], ["quota", "1GB"]):
        assert app(["contexts", *words, *place], prog_name="sakuin", standalone_mode=False) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "cannot be written (Permission denied)" in captured.err


def test_a_library_that_may_not_be_read_is_not_called_empty(read_only: Library) -> None:
    if os.geteuid() != 65534:
        pytest.skip("what is this process's own it may make readable")
    os.seteuid(0)
    (read_only.folder.path / "contexts").chmod(0o700)
    os.seteuid(65534)
    with pytest.raises(SakuinError, match=r"contexts cannot be read \(Permission denied\)"):
        read_only.entries()


# -- what an append leaves -----------------------------------------------------------------------------------


def test_an_append_that_is_interrupted_or_refused_leaves_what_there_was(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sakuin.backends.transformers.backend.CHUNK", 128)
    before = said(library.open("first", *model_of()))
    files = library.folder.parts.all()
    manifest = library.folder.manifest("first").read_bytes()

    def stop(done: int, total: int, phase: str) -> None:
        if phase == "prefill" and done > 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.append("first", TEXT, *model_of(), progress=stop)
    with pytest.raises(SakuinError, match="window"):
        library.append("first", TEXT * 200, *model_of())
    with locked(library.folder.locks / "first"), pytest.raises(SakuinError, match="by another process"):
        library.append("first", MORE, *model_of())
    library.quota = library.folder.size() + 10
    with pytest.raises(SakuinError, match="quota"):
        library.append("first", MORE, *model_of())
    library.quota = None
    assert library.folder.parts.all() == files
    assert library.folder.manifest("first").read_bytes() == manifest
    assert library.verify() == {"first": []}
    assert said(library.open("first", *model_of())) == before
    library.append("first", MORE, *model_of())
    assert library.verify() == {"first": []}
