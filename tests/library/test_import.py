"""Importing: all is checked, then room is made, then it is taken; and only plain files are."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forged import entries_of, packed
from stored import CONFIG, TEXT, model_of, said

from sakuin import Library
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.library import archive
from sakuin.storage import tar


def add(library: Library, name: str, text: str = TEXT) -> Any:
    return library.add(name, [Document("a.txt", text)], *model_of(), CONFIG)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A context in one file."""
    folder = tmp_path_factory.mktemp("exported")
    library = Library(folder / "library")
    add(library, "theirs")
    archive.export_to(library, "theirs", folder / "theirs.tar")
    return folder / "theirs.tar"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of three contexts, with a quota that lets no other in unless one goes."""
    library = Library(tmp_path_factory.mktemp("full") / "library")
    for name in ("one", "two", "three"):
        add(library, name, f"{name} {TEXT}")
    library.quota = library.folder.size() + 200_000
    return library.folder.path


@pytest.fixture
def full(filled: Path, tmp_path: Path) -> Library:
    shutil.copytree(filled, tmp_path / "full")
    return Library(tmp_path / "full")


@pytest.fixture
def library_of_one(tmp_path: Path) -> Library:
    library = Library(tmp_path / "library")
    add(library, "one")
    return library


def torn(entries: list[tuple[str, bytes]], path: Path) -> Path:
    packed(path, entries)
    path.write_bytes(path.read_bytes()[:-300_000])
    return path


def flipped(entries: list[tuple[str, bytes]], path: Path) -> Path:
    name, data = entries[-1]
    return packed(path, [*entries[:-1], (name, data[:-1] + bytes([data[-1] ^ 1]))])


def short(entries: list[tuple[str, bytes]], path: Path) -> Path:
    return packed(path, entries[:-1])


def longer(entries: list[tuple[str, bytes]], path: Path) -> Path:
    return packed(path, [*entries, ("more", b"x")])


@pytest.mark.parametrize("spoiled", [torn, flipped, short, longer])
def test_a_failed_import_removes_nothing(
    spoiled: Callable[[list[tuple[str, bytes]], Path], Path], full: Library, exported: Path, tmp_path: Path
) -> None:
    files = full.folder.parts.all()
    path = spoiled(entries_of(exported), tmp_path / "odd.tar")
    with pytest.raises(SakuinError, match="Nothing was taken"):
        archive.import_from(full, path, "theirs")
    assert full.verify() == {"one": [], "three": [], "two": []}
    assert full.folder.parts.all() == files
    assert list(full.folder.incoming.iterdir()) == []


def test_what_is_well_makes_room_and_is_taken(full: Library, exported: Path) -> None:
    archive.import_from(full, exported, "theirs")
    names = [entry.name for entry in full.entries()]
    assert "theirs" in names
    assert len(names) == 3
    assert full.folder.size() <= (full.quota or 0)


def test_what_gives_way_takes_nothing_along_that_is_imported(library_of_one: Library, tmp_path: Path) -> None:
    """The files that are there already belong to the very context that is evicted."""
    library = library_of_one
    archive.export_to(library, "one", tmp_path / "one.tar")
    library.quota = library.folder.size() + 100  # the manifest alone is more
    archive.import_from(library, tmp_path / "one.tar", "again")
    assert library.verify() == {"again": []}
    assert said(library.open("again", *model_of()))[0]


def test_an_import_that_is_killed_leaves_nothing(full: Library, exported: Path) -> None:
    place = full.folder.incoming / "theirs"
    place.mkdir(parents=True)
    (place / "begun").write_bytes(b"x" * 1000)
    with full.folder.working_on("theirs"):
        full.gc()
        assert place.exists()  # somebody is at it
    full.gc()
    assert not place.exists()


DECLARED = (1 << 30) - 512
"""Bytes that a sparse entry says it has."""


def entry_of(name: str, size: int, kind: bytes = tarfile.REGTYPE, **more: Any) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    for key, value in more.items():
        setattr(entry, key, value)
    return entry


def sparse_manifest(path: Path) -> None:
    """A manifest of a gigabyte of zeros in one kilobyte, as GNU tar writes it."""
    header = entry_of("manifest.json", 512, tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT)
    fields = bytearray(header)
    fields[386:410] = b"%011o\0%011o\0" % (0, 512)
    fields[483:495] = b"%011o\0" % DECLARED
    fields[148:156] = b" " * 8
    fields[148:156] = b"%06o\0 " % sum(fields)
    path.write_bytes(bytes(fields) + bytes(512) + bytes(1024))


def sparse_by_pax(path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as odd:
        headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(DECLARED)}
        headers |= {"GNU.sparse.map": "0,512", "GNU.sparse.numblocks": "1"}
        odd.addfile(entry_of("manifest.json", 512, pax_headers=headers), io.BytesIO(bytes(512)))


def a_link(path: Path) -> None:
    with tarfile.open(path, "w") as odd:
        odd.addfile(entry_of("manifest.json", 0, tarfile.SYMTYPE, linkname="/etc/passwd"))


def a_huge_header(path: Path) -> None:
    header = entry_of("x", 1 << 32, tarfile.XHDTYPE).tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(header + bytes(1 << 20))


def a_negative_size(path: Path) -> None:
    fields = bytearray(entry_of("manifest.json", 5).tobuf())
    fields[124:136] = b"-0000000001\0"
    fields[148:156] = b" " * 8
    fields[148:156] = b"%06o\0 " % sum(fields)
    path.write_bytes(bytes(fields) + bytes(4096))


@pytest.mark.parametrize("make", [sparse_manifest, sparse_by_pax, a_link, a_huge_header, a_negative_size])
def test_what_declares_more_than_it_holds_takes_no_memory(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "odd.tar")
    script = (
        "import resource, sys\n"
        "from sakuin import Library\n"
        "from sakuin.library import archive\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    archive.import_from(Library(sys.argv[1]), sys.argv[2], 'odd')\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", script, tmp_path / "library", tmp_path / "odd.tar"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    sentence, grown = done.stdout.splitlines()
    assert "Nothing was taken" in sentence
    assert int(grown) < 100_000  # kilobytes


def test_a_sparse_part_is_refused(exported: Path, tmp_path: Path) -> None:
    (manifest, *_), path = entries_of(exported), tmp_path / "odd.tar"
    packed(path, [manifest])
    sparse_manifest(tmp_path / "sparse.tar")
    data = path.read_bytes()
    whole = data[: 512 + len(manifest[1]) + -len(manifest[1]) % 512]
    path.write_bytes(whole + (tmp_path / "sparse.tar").read_bytes() + bytes(8 << 20))
    library = Library(tmp_path / "library")
    with pytest.raises(SakuinError, match="is no plain file"):
        archive.import_from(library, path, "odd")
    assert library.folder.parts.all() == {}


def test_what_the_manifest_names_must_fit_into_the_file(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match=r"names [0-9,]+ bytes"):
        archive.import_from(
            Library(tmp_path / "l"), packed(tmp_path / "x.tar", entries_of(exported)[:1]), "x"
        )


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_usual_form_of_tar_is_read(form: int, exported: Path, tmp_path: Path) -> None:
    entries = entries_of(exported)
    with tarfile.open(tmp_path / "other.tar", "w", format=form) as other:
        for name, data in entries:
            more = {"pax_headers": {"mtime": "1.5"}} if form == tarfile.PAX_FORMAT else {}
            other.addfile(entry_of(name, len(data), **more), io.BytesIO(data))
    with (tmp_path / "other.tar").open("rb") as file:
        read = [(member.name, b"".join(member.blocks())) for member in tar.members(file)]
    assert read == entries
    library = Library(tmp_path / "library")
    archive.import_from(library, tmp_path / "other.tar", "theirs")
    assert library.verify() == {"theirs": []}
