"""What comes from others is of use to itself alone: the owner's own contexts follow from what was computed
here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from forged import entries_of, forged_archive
from stored import CONFIG, MORE, TEXT, model_of, read, said
from torch import Tensor

from sakuin import Context, Library
from sakuin.documents import Document
from sakuin.library import archive

OLD = Path(__file__).parent.parent / "snapshot" / "old" / "library"


def add(library: Library, name: str, text: str = TEXT) -> Context:
    return library.add(name, [Document("a.txt", text)], *model_of(), CONFIG)


def zeroed(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
    """What somebody wants others to read: here, nothing but zeros."""
    for name, x in tensors.items():
        if name.endswith((".values", ".keys")):
            x.zero_()


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A context of the public text, exported by somebody else, as it is and with forged parts."""
    folder = tmp_path_factory.mktemp("theirs")
    theirs = Library(folder / "library")
    add(theirs, "theirs")
    archive.export_to(theirs, "theirs", folder / "good.tar")
    key = (theirs.folder.path / "key").read_bytes()
    codes = (theirs.folder.path / "codes").read_bytes().split()
    exported = (folder / "good.tar").read_bytes()
    assert key not in exported
    assert not any(code in exported for code in codes[1::2])
    made = {kind: folder / f"{kind}.tar" for kind in ("sink", "segment", "tail")}
    for kind, path in made.items():
        forged_archive(folder / "good.tar", path, kind, zeroed)
    return made | {"good": folder / "good.tar"}


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "library")


def files(library: Library, name: str) -> set[str]:
    return library.find(name).manifest.files


def numbers(library: Library, name: str) -> dict[str, Tensor]:
    """Keys and values of a context's parts."""
    found = {}
    for part in library.find(name).manifest.parts:
        for field, x in library.folder.parts.open(part).tensors.items():
            if field.endswith((".keys", ".values")) and part.kind != "segment":
                found[f"{part.kind} {field}"] = x.float()
            elif field.endswith((".keys", ".values")):  # a segment's rows have an order of their own
                found[f"{part.start} {field}"] = x.float().sort(1).values
    return found


@pytest.mark.parametrize("kind", ["sink", "segment", "tail"])
def test_a_forged_part_gets_into_no_document_of_ones_own(
    kind: str, library: Library, archives: dict[str, Path]
) -> None:
    archive.import_from(library, archives[kind], "theirs")
    assert set(library.imported("theirs")["theirs"]) == files(library, "theirs")
    good = {name for name, _ in entries_of(archives["good"])}
    mine = add(library, "mine")
    assert mine.reused_tokens == 0
    (forged,) = files(library, "theirs") - good
    assert forged not in files(library, "mine")
    imported = library.imported()  # where the last bits are the same, a file is one's own too
    assert imported["mine"] == []
    assert forged in imported["theirs"]
    library.remove("theirs")
    assert forged not in library.folder.parts.all()
    assert library.verify() == {"mine": []}
    alone = Context.from_documents(*model_of(), [Document("a.txt", TEXT)], CONFIG)
    assert said(library.open("mine", *model_of()))[0] == said(alone)[0]


@pytest.mark.parametrize("kind", ["segment", "tail"])
def test_what_follows_from_a_forged_part_is_not_ones_own(
    kind: str, library: Library, archives: dict[str, Path], tmp_path: Path
) -> None:
    """A context that grew from it has parts that were computed here, from what was not."""
    archive.import_from(library, archives[kind], "theirs")
    for name in ("theirs", "copy"):
        if name == "copy":
            with library.saving("copy", library.open("theirs", *model_of())) as keep:
                keep()
        for _ in range(2):
            library.append(name, MORE, *model_of())
    for name in ("theirs", "copy"):
        assert set(library.imported(name)[name]) == files(library, name)
    alone = Library(tmp_path / "alone")
    for one in (library, alone):
        assert add(one, "mine", TEXT + MORE + MORE).reused_tokens == 0
    # What is computed where nothing was imported, but for what the order of sums rounds.
    expected = numbers(alone, "mine")
    for name, x in numbers(library, "mine").items():
        assert torch.allclose(x, expected[name], atol=1e-3), name
    assert not files(library, "mine") & {file for held in library.imported().values() for file in held}
    assert library.verify() == {"copy": [], "mine": [], "theirs": []}
    assert library.imported("mine") == {"mine": []}


def test_a_snapshot_of_unknown_origin_is_not_ones_own(library: Library, tmp_path: Path) -> None:
    read().save(tmp_path / "folder")
    library.save("loaded", Context.load(tmp_path / "folder", *model_of()))
    assert library.imported()["loaded"]
    mine = library.add("mine", [Document("", TEXT)], *model_of(), CONFIG)
    assert mine.reused_tokens == 0
    assert not library.imported()["mine"]


def test_what_the_user_trusts_is_shared(library: Library, archives: dict[str, Path]) -> None:
    archive.import_from(library, archives["good"], "theirs", trust=True)
    assert library.imported() == {"theirs": []}
    assert add(library, "mine").reused_tokens > 1000


def test_what_was_computed_here_is_shared_though_it_was_imported_too(
    library: Library, archives: dict[str, Path], tmp_path: Path
) -> None:
    add(library, "mine")
    archive.export_to(library, "mine", tmp_path / "mine.tar")
    archive.import_from(library, tmp_path / "mine.tar", "again")
    library.remove("mine")
    assert library.imported() == {"again": []}
    assert add(library, "other", TEXT + MORE).reused_tokens > 1000


def test_an_import_is_not_made_ones_own_by_a_new_key(library: Library, archives: dict[str, Path]) -> None:
    add(library, "mine", TEXT[:700])
    archive.import_from(library, archives["good"], "theirs")
    (library.folder.path / "key").unlink()
    again = Library(library.folder.path)
    assert {name: set(held) for name, held in again.imported().items()} == {
        name: files(again, name) for name in ("mine", "theirs")
    }
    assert add(again, "more").reused_tokens == 0
    assert again.verify() == {"mine": [], "more": [], "theirs": []}


def test_an_old_library_gets_a_key_before_anything_is_imported(
    tmp_path: Path, archives: dict[str, Path]
) -> None:
    shutil.copytree(OLD, tmp_path / "library")
    library = Library(tmp_path / "library")
    assert library.imported() == {"first": [], "second": []}
    assert not (tmp_path / "library" / "key").exists()  # looking changes nothing
    archive.import_from(library, archives["good"], "theirs")
    key = tmp_path / "library" / "key"
    assert (len(key.read_bytes()), key.stat().st_mode & 0o777) == (32, 0o600)
    imported = library.imported()
    assert (imported["first"], imported["second"]) == ([], [])
    assert set(imported["theirs"]) == files(library, "theirs")


def test_a_code_that_somebody_wrote_is_none(library: Library, archives: dict[str, Path]) -> None:
    archive.import_from(library, archives["segment"], "theirs")
    with (library.folder.path / "codes").open("a") as codes:
        for file in files(library, "theirs"):
            codes.write(f"{file} {'0' * 64}\n{file} é\n{file}\n")
    again = Library(library.folder.path)
    assert set(again.imported()["theirs"]) == files(library, "theirs")
    assert add(again, "mine").reused_tokens == 0
