"""A name is the same however its letters are spelled: `é` is one character, or an `e` and an accent."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from stored import CONFIG, MORE, TEXT, model_of, read

from sakuin import Library
from sakuin.cli import app
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.library import archive

NAME = "café"
SPELLED = unicodedata.normalize("NFD", NAME)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """A library that holds one context, made under the decomposed spelling."""
    library = Library(tmp_path / "library")
    library.add(SPELLED, [Document("a.txt", TEXT[:400])], *model_of(), CONFIG)
    return library


def test_every_method_takes_both_spellings(library: Library, tmp_path: Path) -> None:
    assert SPELLED != NAME
    assert [entry.name for entry in library.entries()] == [NAME]
    for name in (NAME, SPELLED):
        assert library.is_there(name)
        assert library.find(name).name == library.show(name)["name"] == NAME
        assert library.verify(name) == library.imported(name) == {NAME: []}
        assert library.open(name, *model_of()).tokens > 300
        assert library.folder.asked(name) > 0
        assert library.kept_of(name) == 0
        before = library.find(NAME).manifest.outline.tokens
        assert library.append(name, MORE, *model_of()).tokens > before
        assert library.find(NAME).manifest.outline.tokens > before
        with library.appending(name, *model_of()) as (context, keep):
            context.append(MORE)
            keep()
            with pytest.raises(SakuinError, match="by another process"):
                library.remove(NAME if name == SPELLED else SPELLED)
        library.change(name, pinned=name == NAME)
        assert library.find(NAME).manifest.pinned == (name == NAME)
        with pytest.raises(SakuinError, match="already"):
            library.add(name, [Document("a.txt", TEXT)], *model_of(), CONFIG)
        with pytest.raises(SakuinError, match="already"):
            library.save(name, read())
    archive.export_to(library, SPELLED, tmp_path / "one.tar")
    with pytest.raises(SakuinError, match="already"):
        archive.import_from(library, tmp_path / "one.tar", SPELLED)
    assert library.remove(SPELLED).contexts == [NAME]
    assert archive.import_from(library, tmp_path / "one.tar", SPELLED) == NAME
    library.remove(NAME)
    library.save(SPELLED, read())
    folders = (library.folder.contexts, library.folder.locks)
    files = [path.name for folder in folders for path in folder.iterdir()]
    assert files
    assert all(name == unicodedata.normalize("NFC", name) for name in files)


def test_every_command_takes_both_spellings(
    library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAKUIN_LIBRARY", str(library.folder.path))

    def said(*words: str) -> str:
        assert not app(["contexts", *words], prog_name="sakuin", standalone_mode=False)
        return capsys.readouterr().out

    assert said("verify", SPELLED) == f"{NAME}: well\n"
    assert json.loads(said("verify", SPELLED, "--json"))["damage"] == {NAME: []}
    assert json.loads(said("show", SPELLED, "--json"))["name"] == NAME
    assert NAME in said("show", SPELLED)
    said("keep", SPELLED, "--pin")
    assert library.find(NAME).manifest.pinned
    said("export", SPELLED, str(tmp_path / "x.tar"))
    assert f"removed {NAME} and" in said("rm", SPELLED)
    assert said("import", str(tmp_path / "x.tar"), SPELLED) == f"{NAME} is here now\n"


@pytest.mark.parametrize("name", [None, 7, b"x", ["x"]])
def test_what_is_no_name_is_said(library: Library, name: object) -> None:
    for method in (library.find, library.is_there, library.check_new, library.kept_of):
        with pytest.raises(TypeError, match="name must be a text"):
            method(name)  # type: ignore[operator]
