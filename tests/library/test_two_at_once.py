"""Two at work on a library at once: of two that make a context of one name one does and the other is told.
What is removed while it is looked at is not called damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored import CONFIG, model_of, read

from sakuin import Library
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.library.folder import Folder

FIRST, SECOND = "The first text is about foxes. " * 20, "The second text is about dogs. " * 20


@pytest.fixture
def taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """A library in which somebody else takes the name "x" between the check of it and its lock."""
    library, other = Library(tmp_path / "library"), Library(tmp_path / "library")
    other.folder.make()
    make = Folder.make

    def made(folder: Folder) -> None:
        make(folder)
        if folder is library.folder:
            other.save("x", read(text=FIRST))

    monkeypatch.setattr(Folder, "make", made)
    return library


def test_an_add_does_not_overwrite_what_came_meanwhile(taken: Library) -> None:
    with pytest.raises(SakuinError, match="there is a context named 'x' already"):
        taken.add("x", [Document("second", SECOND)], *model_of(), CONFIG)
    assert [one.text for one in taken.documents("x")] == [FIRST]


def test_a_save_does_not_overwrite_what_came_meanwhile(taken: Library) -> None:
    with pytest.raises(SakuinError, match="there is a context named 'x' already"):
        taken.save("x", read(text=SECOND))
    assert [one.text for one in taken.documents("x")] == [FIRST]


def test_an_add_that_may_replace_does(taken: Library) -> None:
    taken.add("x", [Document("second", SECOND)], *model_of(), CONFIG, replace=True)
    assert [one.text for one in taken.documents("x")] == [SECOND]


@pytest.fixture
def stored(tmp_path: Path) -> Library:
    library = Library(tmp_path / "stored")
    library.add("x", [Document("first", FIRST)], *model_of(), CONFIG)
    library.add("y", [Document("second", SECOND)], *model_of(), CONFIG)
    return library


@pytest.mark.parametrize("change", ["removed", "grown", "damaged"])
def test_what_others_do_meanwhile_is_no_damage(
    change: str, stored: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, other, times = Folder.listed, Library(stored.folder.path), [0]

    def meanwhile(folder: Folder) -> object:
        found = listed(folder)
        times[0] += folder is stored.folder
        if folder is stored.folder and times[0] == 1:
            if change == "removed":
                other.remove("x")
            elif change == "grown":
                other.append("x", "More of it. " * 30, *model_of())
            else:
                part = other.find("x").manifest.parts[-1]
                (other.folder.parts.folder / part.file).unlink()
        return found

    monkeypatch.setattr(Folder, "listed", meanwhile)
    found = stored.verify()
    assert [len(found[name]) for name in ("x", "y")] == [int(change == "damaged"), 0]


def test_what_is_removed_while_it_is_shown_is_told_in_a_sentence(
    stored: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, other = Folder.find, Library(stored.folder.path)

    def meanwhile(folder: Folder, name: str, late: bool = False) -> object:
        found = find(folder, name, late)
        if folder is stored.folder:
            other.remove("x")
        return found

    monkeypatch.setattr(Folder, "find", meanwhile)
    with pytest.raises(SakuinError, match="there is no context named 'x'"):
        stored.show("x")
