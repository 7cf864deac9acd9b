"""What a forged manifest says of documents and tokens: refused where it comes in, or taken as it was read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forged import entries_of, packed, signed
from stored import CONFIG, MORE, TEXT, model_of

from sakuin import Context, Library
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.library.archive import export_to, import_from
from sakuin.snapshot.numbers import packed as packed_numbers
from sakuin.snapshot.numbers import unpacked

BEYOND = 10**6
MORES: dict[str, Any] = {
    "another text": {"text": "Nothing of this was read."},
    "another name": {"name": "contract.pdf"},
    "marks that are none": {"marks": 5},
    "marks that are a word": {"marks": "abc"},
    "marks of numbers": {"marks": [5]},
    "notes that are a word": {"notes": "abc"},
    "notes that are none": {"notes": None},
    "notes of numbers": {"notes": [3]},
    "a path that is a list": {"path": ["/etc/passwd"]},
    "an offset below nothing": {"offset": -1},
    "an offset beyond all": {"offset": 10**30},
    "lines that are true": {"lines_before": True},
    "no object": [],
    "nothing": None,
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, bytes]]:
    folder = tmp_path_factory.mktemp("exported")
    library = Library(folder / "library")
    library.add("a", [Document("one.txt", TEXT), Document("two.txt", MORE)], *model_of(), CONFIG)
    export_to(library, "a", folder / "a.tar")
    return entries_of(folder / "a.tar")


def _imported(
    exported: list[tuple[str, bytes]], folder: Path, change: Callable[[dict[str, Any]], object]
) -> Library:
    (_, manifest), *files = exported
    said = json.loads(manifest)
    change(said)
    library = Library(folder / "library")
    import_from(library, packed(folder / "odd.tar", [("manifest.json", signed(said)), *files]), "x")
    return library


@pytest.mark.parametrize("more", MORES)
def test_a_document_is_what_was_read(more: str, exported: Any, tmp_path: Path) -> None:
    def change(said: dict[str, Any]) -> None:
        said["documents"][0]["more"] = MORES[more]

    with pytest.raises(SakuinError, match=r"is damaged: 'one\.txt' is not described\.$"):
        _imported(exported, tmp_path, change)


def test_what_later_releases_say_of_a_document_is_passed_over(exported: Any, tmp_path: Path) -> None:
    library = _imported(exported, tmp_path, lambda said: said["documents"][0]["more"].update(later=1))
    assert [one.text for one in library.documents("x")] == [TEXT, MORE]


def test_a_manifest_of_another_form_is_told_without_pythons_words(exported: Any, tmp_path: Path) -> None:
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda said: said.pop("lead"),
        lambda said: said.update(documents=5),
        lambda said: said.update(documents=[5]),
        lambda said: said.update(parts={"a": 1}),
        lambda said: said.update(drawn=None),
        lambda said: said.update(fingerprint=[]),
    ]
    for i, change in enumerate(changes):
        (place := tmp_path / str(i)).mkdir()
        with pytest.raises(SakuinError, match="is damaged: ") as refused:
            _imported(exported, place, change)
        assert "Error" not in str(refused.value)
        assert "object" not in str(refused.value)


@pytest.mark.parametrize("where", ["lead", "ids"])
def test_tokens_that_the_model_does_not_have_are_refused(where: str, exported: Any, tmp_path: Path) -> None:
    def change(said: dict[str, Any]) -> None:
        if where == "lead":
            said["lead"] = [BEYOND]
        else:
            said["ids"] = packed_numbers([*unpacked(said["ids"])[:-1], BEYOND])

    library = _imported(exported, tmp_path, change)
    with pytest.raises(SakuinError, match=r"is damaged: 1,000,000 is no token of this model"):
        library.open("x", *model_of())


def test_what_is_as_it_was_is_opened(exported: Any, tmp_path: Path) -> None:
    library = _imported(exported, tmp_path, lambda said: None)
    context: Context = library.open("x", *model_of())
    assert [one.name for one in context.documents] == ["one.txt", "two.txt"]
