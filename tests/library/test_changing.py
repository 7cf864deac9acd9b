"""Documents of a stored context are replaced and removed, and contexts renamed and replaced: the library
holds what was before or what is after, whatever happens."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stored import CONFIG, MORE, TEXT, counted, model_of, said

from sakuin import Library
from sakuin.cli import app
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.storage.locks import locked

EXACT = CONFIG.with_changes(index="flat")
FIRST = TEXT[:900]
TWO = [Document("a.txt", FIRST), Document("b.txt", MORE)]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    library = Library(tmp_path / "library")
    library.add("first", TWO, *model_of(), EXACT)
    return library


def texts(library: Library, name: str = "first") -> list[tuple[str, str]]:
    return [(one.name, one.text) for one in library.open(name, *model_of()).documents]


def test_a_stored_document_is_replaced_and_removed(library: Library) -> None:
    other = Document("b.txt", MORE.replace("fox", "cat"))
    with pytest.raises(SakuinError, match=r"b\.txt was changed"):
        library.append("first", other, *model_of())
    with counted(model_of()[0]) as passes:
        library.append("first", other, *model_of(), replace=True)
    assert sum(passes) < len(MORE) + 80
    assert texts(library) == [("a.txt", FIRST), ("b.txt", other.text)]
    fresh = Library(library.folder.path.parent / "fresh").add("x", [TWO[0], other], *model_of(), EXACT)
    opened = library.open("first", *model_of())
    assert opened._reading.ids == fresh._reading.ids
    assert said(opened)[0] == said(fresh)[0]
    library.remove_documents("first", ["a.txt"], *model_of())
    assert texts(library) == [("b.txt", other.text)]
    assert library.verify() == {"first": []}
    assert library.gc().files == 0
    # What a shortened context has made of a beginning is not taken for what a fresh reading makes of it.
    added = library.add("second", [Document("b.txt", other.text + FIRST)], *model_of(), EXACT)
    assert library.verify() == {"first": [], "second": []}
    assert said(library.open("second", *model_of()))[0] == said(added)[0]


CHANGES: dict[str, Callable[[Library], Any]] = {
    "replace": lambda one: one.append("first", Document("b.txt", "Short."), *model_of(), replace=True),
    "remove": lambda one: one.remove_documents("first", ["a.txt"], *model_of()),
    # What was sealed before it was cut short may be there, or not yet.
    "add": lambda one: one.add("first", TWO[1:], *model_of(), EXACT, resume=True, replace=True),
    "rename": lambda one: one.rename("first", "other"),
}
AFTER = {
    "replace": {"first": [("a.txt", FIRST), ("b.txt", "Short.")]},
    "remove": {"first": [("b.txt", MORE)]},
    "add": {"first": [("b.txt", MORE)]},
    "rename": {"other": [("a.txt", FIRST), ("b.txt", MORE)]},
}


class CutShort(BaseException):
    """As if the process ended."""


def cutting(real: Callable[..., Any], calls: Iterator[int]) -> Callable[..., Any]:
    def call(*given: Any, **named: Any) -> Any:
        if next(calls, None) is None:
            raise CutShort
        return real(*given, **named)

    return call


@pytest.mark.parametrize("change", list(CHANGES))
def test_cut_short_at_any_step_the_library_holds_the_one_or_the_other(
    library: Library, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, ended, step = {"first": texts(library)}, False, 0
    while not ended:
        calls = iter(range(step))
        with monkeypatch.context() as cut:
            for name in ("rename", "replace", "link", "unlink"):
                cut.setattr(os, name, cutting(getattr(os, name), calls))
            try:
                CHANGES[change](library)
                ended = True
            except CutShort:
                step += 1
        found = {name: texts(library, name) for name in library.folder.names()}
        assert found in (before, AFTER[change])
        assert all(damage == [] for damage in library.verify().values())
        if found != before:
            break
    assert step > 0
    assert {name: texts(library, name) for name in library.folder.names()} == AFTER[change]


def test_a_renamed_context_is_what_it_was(library: Library) -> None:
    library.change("first", pinned=True, keep_for=3600)
    asked = library.open("first", *model_of())
    was = library.show("first")
    assert library.rename("first", "other") == "other"
    now = library.show("other")
    assert now["asked"] > 0
    assert {**now, "name": "first"} == was
    assert [entry.name for entry in library.entries()] == ["other"]
    assert said(asked) == said(library.open("other", *model_of()))
    assert sorted(path.name for path in library.folder.contexts.iterdir()) == [
        "other.asked",
        "other.json",
        "other.used",
    ]


def test_a_name_that_is_taken_or_odd_is_refused(library: Library) -> None:
    library.add("second", TWO[1:], *model_of(), EXACT)
    for new, why in (("second", "is taken"), ("first", "named 'first' already"), ("a/b", "cannot be named")):
        with pytest.raises(SakuinError, match=why):
            library.rename("first", new)
    with pytest.raises(SakuinError, match="no context named 'third'"):
        library.rename("third", "fourth")
    with locked(library.folder.locks / "first"), pytest.raises(SakuinError, match="by another process"):
        library.rename("first", "other")
    library.change("first", keep_for=-1)
    with pytest.raises(SakuinError, match="takes it back"):
        library.rename("first", "other")
    assert sorted(library.folder.names()) == ["first", "second"]


def test_a_context_is_replaced_by_another_of_its_name(library: Library) -> None:
    library.change("first", pinned=True, keep_for=3600)
    until = library.show("first")["kept_until"]
    with pytest.raises(SakuinError, match=r"already.*--replace"):
        library.add("first", TWO, *model_of(), EXACT)
    context = library.add("first", [*TWO, Document("c", MORE)], *model_of(), EXACT, replace=True)
    assert context.reused_tokens > 500  # of the one that it takes the place of
    assert [name for name, _ in texts(library)] == ["a.txt", "b.txt", "c"]
    assert (library.show("first")["pinned"], library.show("first")["kept_until"]) == (True, until)


def test_commands_say_what_they_did(
    library: Library, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAKUIN_LIBRARY", str(library.folder.path))

    def run(*words: str) -> str:
        assert not app(["contexts", *words], prog_name="sakuin", standalone_mode=False)
        return capsys.readouterr().out

    assert run("keep", "first", "--pin") == "first is pinned and kept for ever\n"
    assert "pinned, so it stays, also when its time is over (until 20" in run("keep", "first", "--for", "30d")
    assert "first is kept until 20" in (out := run("keep", "first", "--no-pin"))
    assert ", 30 d from now, and may be evicted" in out
    library.change("first", keep_for=-1)
    said = run("keep", "first", "--for", "ever")
    assert (
        said == "first is kept for ever, and may be evicted to keep the quota; it was expired and is back\n"
    )
    assert '"pinned": false' in run("keep", "first", "--for", "ever", "--json")
    assert run("rename", "first", "other") == "first is named other now\n"
