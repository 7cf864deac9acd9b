"""A file of the right name is taken for a part only if its content is what was written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stored import CONFIG, MORE, TEXT, model_of, read, said

from sakuin import Context, Library
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.snapshot import store


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """A library that holds one context, `first`."""
    library = Library(tmp_path / "library")
    add(library, "first")
    return library


def add(library: Library, name: str, text: str = TEXT) -> Context:
    return library.add(name, [Document("a.txt", text)], *model_of(), CONFIG)


def spoil(path: Path, how: str) -> None:
    """As a disk that fails: the time of the last change says nothing of it."""
    data, before = bytearray(path.read_bytes()), path.stat()
    data[-7] ^= 4
    path.write_bytes(data if how == "flipped" else data[:-9])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("how", ["flipped", "cut"])
@pytest.mark.parametrize("kind", ["sink", "segment", "tail"])
def test_add_reads_anew_what_is_damaged(library: Library, kind: str, how: str) -> None:
    damaged = next(part for part in library.find("first").manifest.parts if part.kind == kind)
    spoil(library.folder.parts.folder / damaged.file, how)
    second = add(library, "second")
    assert second.reused_tokens <= damaged.start or kind == "tail"
    assert library.verify("second") == {"second": []}
    # Of a tail that is there already, sound, the last bits are of another reading.
    assert said(library.open("second", *model_of()))[0] == said(second)[0]


def test_a_context_in_memory_is_saved_over_damaged_files(library: Library, tmp_path: Path) -> None:
    context = read()
    for folder in (library.folder.parts.folder, tmp_path / "saved" / store.PARTS):
        context.save(tmp_path / "saved")
        for path in list(folder.iterdir()):
            spoil(path, "flipped")
    context.save(tmp_path / "saved")
    assert store.verify(tmp_path / "saved") == []
    library.save("third", context)
    assert library.verify("third") == {"third": []}


def test_damage_is_not_signed_by_saving_what_was_loaded_from_it(library: Library, tmp_path: Path) -> None:
    """Written anew, damaged numbers would have a checksum that fits."""
    read(text=TEXT[:900]).save(tmp_path / "saved")
    for path in (tmp_path / "saved" / store.PARTS).iterdir():
        spoil(path, "flipped")
    loaded = Context.load(tmp_path / "saved", *model_of())
    with pytest.raises(SakuinError, match=r"is damaged: .* cannot be kept"):
        loaded.save(tmp_path / "other")
    with pytest.raises(SakuinError, match=r"is damaged: .* cannot be kept"):
        library.save("loaded", loaded)
    loaded.append(MORE)
    loaded.save(tmp_path / "saved")
    assert store.verify(tmp_path / "saved")  # as before: what is damaged stays known as damaged
    assert [entry.name for entry in library.entries()] == ["first"]


def test_an_append_takes_its_own_files_as_they_are_and_says_nothing_false(library: Library) -> None:
    segment = next(part for part in library.find("first").manifest.parts if part.kind == "segment")
    spoil(library.folder.parts.folder / segment.file, "flipped")
    library.append("first", MORE, *model_of())
    assert segment.file in library.verify("first")["first"][0]


def test_what_is_damaged_is_not_exported(library: Library, tmp_path: Path) -> None:
    from sakuin.library import archive

    spoil(library.folder.parts.folder / library.find("first").manifest.parts[1].file, "flipped")
    with pytest.raises(SakuinError, match=r"is damaged.* cannot be exported"):
        archive.export_to(library, "first", tmp_path / "first.tar")
    assert not (tmp_path / "first.tar").exists()


def test_a_damaged_manifest_evicts_nothing(library: Library) -> None:
    for name in ("second", "third"):
        add(library, name, f"{name} {TEXT}")
    path = library.folder.manifest("first")
    path.write_bytes(path.read_bytes().replace(b'"at": ', b'"at": 1'))
    library.quota = library.folder.size() + 10
    with pytest.raises(SakuinError, match=r"'first' is damaged.*Nothing was removed"):
        add(library, "fourth", f"fourth {TEXT}")
    assert {"second", "third"} <= {entry.name for entry in library.entries()}
    assert library.verify("second") == {"second": []}


def test_an_add_that_fails_evicts_nothing(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sakuin.backends.transformers.backend.CHUNK", 128)

    def stop(done: int, total: int, phase: str) -> None:
        raise KeyboardInterrupt

    add(library, "second", f"2 {TEXT}")
    library.quota = library.folder.size() + 10
    with pytest.raises(KeyboardInterrupt):
        library.add("third", [Document("a.txt", f"3 {TEXT}")], *model_of(), CONFIG, stop)
    assert library.verify() == {"first": [], "second": []}
