"""One context in one file, to be carried elsewhere: an uncompressed tar of `manifest.json` and the part
files.

What comes from elsewhere is read with distrust: only the files that the manifest names are taken, each with
the size and the checksum that it states. All of it is checked in temporary files, then room is made, then it
is taken: what is refused removes nothing. The library's key, and the codes made with it, are not in the file.
Called by `sakuin contexts export` and `import`.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sakuin import arguments
from sakuin.errors import SakuinError
from sakuin.library.folder import Folder
from sakuin.library.library import Library
from sakuin.library.quota import check_room, make_room
from sakuin.library.sweeping import sweep
from sakuin.snapshot import manifest as manifests
from sakuin.snapshot.manifest import KINDS, Manifest, StoredPart
from sakuin.snapshot.part_files import PartFiles
from sakuin.storage.folders import free_bytes, make_folder, sync_folder
from sakuin.storage.locks import locked
from sakuin.storage.tar import Member, TarError, members
from sakuin.storage.whole_files import new_file, publish, settle

_MANIFEST = "manifest.json"
_BLOCK = 1 << 20
_EPOCH = 0
_OTHER = "give another name after the file"


def export_to(library: Library, name: str, path: str | os.PathLike[str]) -> int:
    """Write the context `name` into the new file `path`; its bytes."""
    target = Path(arguments.path("path", path))
    manifest = library.find(name).manifest
    if target.exists():
        raise SakuinError(f"{target} is there already; name another file, or remove it first.")
    if not target.parent.is_dir():
        raise SakuinError(f"there is no folder {target.parent}; make it first.")
    need, free = manifest.size + _BLOCK, free_bytes(target.parent)
    if free < need:
        raise SakuinError(
            f"the disk that holds {target.parent} has {free / 1e6:,.0f} MB free and the file takes "
            f"{need / 1e6:,.0f} MB; free some."
        )
    with new_file(target.parent) as (file, temporary), tarfile.open(fileobj=file, mode="w") as archive:
        data = manifest.encode()
        archive.addfile(_entry(_MANIFEST, len(data)), io.BytesIO(data))
        for part in manifest.parts:
            if damage := library.folder.parts.damage(part):
                raise SakuinError(f"{damage}: the context {name!r} cannot be exported.")
            try:
                with (library.folder.parts.folder / part.file).open("rb") as held:
                    archive.addfile(_entry(part.file, part.size), held)
            except FileNotFoundError:
                raise SakuinError(f"the context {name!r} was changed meanwhile; export it again.") from None
        archive.close()
        publish(file, temporary, target)
    return target.stat().st_size


def import_from(
    library: Library, path: str | os.PathLike[str], name: str | None = None, *, trust: bool = False
) -> str:
    """Take the context in the file `path` as `name` (else as the file is called); its name.

    trust : share its parts with contexts that are read later, as if they had been computed here. Without it
    they are of use to this context alone, and to what it grows to.

    Whether it fits a model is seen when it is opened. What it says is believed as the model's own: import
    what you trust.
    """
    source, folder = Path(arguments.path("path", path)), library.folder
    name = library.check_free(source.name.split(".")[0] if name is None else name, _OTHER)
    folder.make()
    with folder.working_on(name), _opened(source) as (entries, size):
        manifest = replace(_manifest(entries, source), pinned=False)
        if (needed := manifest.size) > size:
            raise _odd(
                source,
                f"it is no whole tar file: it has {size:,} bytes and its manifest names {needed:,} bytes",
            )
        place = folder.incoming / name
        shutil.rmtree(place, ignore_errors=True)
        make_folder(place)
        try:
            with locked(folder.lock):
                check_room(folder, _new_bytes(folder, manifest), keep=manifest.files)
            _check_all(entries, manifest, place, folder, source)
            library.check_free(name, _OTHER)
            _take(folder, name, manifest, place, trust)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return name


@contextmanager
def _opened(source: Path) -> Iterator[tuple[Iterator[Member], int]]:
    """The files in the archive, and the bytes that it has at most."""
    try:
        with source.open("rb") as file:
            size = os.fstat(file.fileno()).st_size if source.is_file() else 1 << 62
            yield members(file), size
    except FileNotFoundError as error:
        if error.filename != str(source):
            raise
        raise SakuinError(f"there is no file {source}; check the path.") from None
    except TarError as error:
        raise _odd(source, f"it is no whole tar file ({str(error)[:200]})") from None
    except OSError as error:
        if error.filename != str(source):
            raise
        raise SakuinError(f"{source} cannot be read: {error.strerror or error}.") from None


def _manifest(entries: Iterator[Member], source: Path) -> Manifest:
    entry = next(entries, None)
    if entry is None or entry.name != _MANIFEST or entry.size > manifests.MOST_BYTES:
        raise _odd(source, "it does not begin with a manifest")
    manifest = manifests.decode(b"".join(entry.blocks()), f"{source} ({_MANIFEST})")
    if not manifest.complete or {part.kind for part in manifest.parts} - set(KINDS):
        raise _odd(source, "its context is not whole")
    if len({(part.kind, part.start, part.end) for part in manifest.parts}) < len(manifest.parts):
        raise _odd(source, "its manifest names a part twice")
    return manifest


def _new_bytes(folder: Folder, manifest: Manifest) -> int:
    """Bytes of what is not in the library yet, the manifest's among them."""
    there = folder.parts.all()
    new = {part.file: part.size for part in manifest.parts if there.get(part.file) != part.size}
    return sum(new.values()) + len(manifest.encode())


def _check_all(
    entries: Iterator[Member], manifest: Manifest, place: Path, folder: Folder, source: Path
) -> None:
    """Put all files that `manifest` names into the folder `place`, each as it must be."""
    wanted = {part.file: part for part in manifest.parts}
    for entry in entries:
        part = wanted.pop(entry.name, None)
        if part is None or entry.size != part.size:
            raise _odd(source, f"it holds {entry.name[:80]!r}, which its manifest does not name so")
        held = _linked(folder, part, place)
        digest = hashlib.sha256()
        with new_file(place) as (file, temporary):
            for block in entry.blocks():
                digest.update(block)
                if not held:
                    file.write(block)
            if digest.hexdigest() != part.sha256:
                raise _odd(source, f"{part.file} in it is damaged")
            if not held:
                settle(file)
                temporary.rename(place / part.file)
    if wanted:
        raise _odd(source, f"{next(iter(wanted))} is missing in it")


def _linked(folder: Folder, part: StoredPart, place: Path) -> bool:
    """Whether the library holds the file already, sound; it is then in `place` too, whoever removes it."""
    try:
        os.link(folder.parts.folder / part.file, place / part.file)
    except OSError:  # it is not there, or this disk has no links
        return False
    if PartFiles(place).damage(part) is None:
        return True
    (place / part.file).unlink()
    return False


def _take(folder: Folder, name: str, manifest: Manifest, place: Path, trust: bool) -> None:
    """Take what was checked: from here on there is nothing to refuse but that there is no room."""
    parts = folder.parts.folder
    with locked(folder.lock), new_file(folder.contexts) as (file, temporary):
        file.write(manifest.encode())
        settle(file)
        keep = manifest.files | {temporary.name}
        sweep(folder, keep=keep)
        make_room(folder, _new_bytes(folder, manifest), keep=keep)
        if trust:
            folder.codes.add(sorted(manifest.files))
        for one in sorted(manifest.files):
            os.replace(place / one, parts / one)
        sync_folder(parts)
        os.replace(temporary, folder.manifest(name))
        sync_folder(folder.contexts)
        folder.touch(name)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o600, _EPOCH
    return entry


def _odd(source: Path, why: str) -> SakuinError:
    return SakuinError(f"{source} cannot be imported: {why}. Nothing was taken.")
