"""What an earlier release stored is found again: the same names, the same answers, nothing written anew."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from old import write as old

from sakuin import Context, Library, load
from sakuin.documents import Document

SAID = json.loads((old.HERE / "said.json").read_text())
# The last token is a near-tie of a random model, which the error of a step decides; these ask nearly exactly.
FINE = old.CONFIG.with_changes(tolerance=0.001)


@pytest.fixture(scope="module")
def model() -> tuple[Any, Any]:
    return load(old.HERE / "model", dtype="fp32", device="cpu")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A copy of what was stored; git keeps no empty folders."""
    for name in ("snapshot", "library"):
        shutil.copytree(old.HERE / name, tmp_path / name)
    for name in ("locks", "unfinished"):
        (tmp_path / "library" / name).mkdir()
    return tmp_path


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """The part files and by what one is told from another that takes its place."""
    entries = os.scandir(folder / "parts")
    return {entry.name: (entry.inode(), entry.stat().st_size) for entry in entries}


def test_an_old_snapshot_answers_as_it_did_and_is_not_written_anew(
    kept: Path, model: tuple[Any, Any]
) -> None:
    before = files(kept / "snapshot")
    context = Context.load(kept / "snapshot", *model)
    assert context.reused_tokens == context.tokens > 150
    assert context.documents == [Document("a.txt", old.TEXT[:170])]
    assert old.answer_of(context)[:-1] == SAID["snapshot"][:-1]
    assert old.answer_of(Context.load(kept / "snapshot", *model, FINE)) == SAID["snapshot"]
    context.save(kept / "snapshot")
    assert files(kept / "snapshot") == before
    # Read again, the same text has the same names.
    Context.from_documents(*model, context.documents, old.CONFIG).save(kept / "snapshot")
    assert files(kept / "snapshot") == before


def test_an_old_library_answers_as_it_did_and_shares_what_it_holds(
    kept: Path, model: tuple[Any, Any]
) -> None:
    before, library = files(kept / "library"), Library(kept / "library")
    assert [(one.name, one.state) for one in library.entries()] == [("first", "whole"), ("second", "whole")]
    assert library.verify() == {"first": [], "second": []}
    for name in ("first", "second"):
        assert old.answer_of(library.open(name, *model)) == SAID[name]
    again = library.add("again", [Document("b.txt", old.FIRST)], *model, old.CONFIG)
    assert again.reused_tokens > 128
    assert old.answer_of(again) == SAID["first"]
    assert files(kept / "library") == before
