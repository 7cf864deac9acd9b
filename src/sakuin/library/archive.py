"""One context in one file, to be carried elsewhere: an uncompressed tar of `manifest.json` and the part
files.

What comes from elsewhere is read with distrust: only the files that the manifest names are taken, each with
the size and the checksum that it states. Called by `sakuin contexts export` and `import`.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from sakuin import arguments
from sakuin.errors import SakuinError
from sakuin.library.folder import checked_name
from sakuin.library.library import Library
from sakuin.library.quota import make_room
from sakuin.library.sweeping import sweep
from sakuin.snapshot import manifest as manifests
from sakuin.snapshot.manifest import KINDS, Manifest, StoredPart
from sakuin.storage.folders import free_bytes
from sakuin.storage.locks import locked
from sakuin.storage.whole_files import new_file, publish

_MANIFEST = "manifest.json"
_MOST_MANIFEST = 1 << 30
_BLOCK = 1 << 20
_EPOCH = 0


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
            if damage := library.folder.parts.missing([part]):
                raise SakuinError(f"{damage}: the context {name!r} cannot be exported.")
            with (library.folder.parts.folder / part.file).open("rb") as held:
                archive.addfile(_entry(part.file, part.size), held)
        archive.close()
        publish(file, temporary, target)
    return target.stat().st_size


def import_from(library: Library, path: str | os.PathLike[str], name: str | None = None) -> str:
    """Take the context in the file `path` as `name` (else as the file is called); its name.

    Whether it fits a model is seen when it is opened. What it says is believed as the model's own: import
    what you trust.
    """
    source = Path(arguments.path("path", path))
    name = checked_name(source.name.split(".")[0] if name is None else name)
    library.folder.make()
    if library.is_there(name):
        raise SakuinError(f"there is a context named {name!r} already; give the new one another name.")
    busy = f"the context {name!r} is being read or appended to by another process; wait until it is done."
    with locked(library.folder.locks / name, busy), _opened(source) as archive:
        manifest = _manifest(archive, source)
        wanted = {part.file: part for part in manifest.parts}
        with locked(library.folder.lock):
            sweep(library.folder)
            there = library.folder.parts.all()
            make_room(library.folder, sum(p.size for f, p in wanted.items() if f not in there))
            taken: list[Path] = []
            try:
                while (entry := archive.next()) is not None:
                    part = wanted.pop(entry.name, None)
                    if part is None or not entry.isreg() or entry.size != part.size:
                        raise _odd(
                            source, f"it holds {entry.name[:80]!r}, which its manifest does not name so"
                        )
                    held = archive.extractfile(entry)
                    assert held is not None
                    if part.file not in there:
                        _take(held, part, library.folder.parts.folder, source)
                        taken.append(library.folder.parts.folder / part.file)
                if wanted:
                    raise _odd(source, f"{next(iter(wanted))} is missing in it")
            except BaseException:
                for path in taken:
                    path.unlink(missing_ok=True)
                raise
            manifest = replace(manifest, pinned=False)
            library.folder.write(name, manifest)
            library.folder.touch(name)
    return name


@contextmanager
def _opened(source: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(source, "r|") as archive:
            yield archive
    except FileNotFoundError:
        raise SakuinError(f"there is no file {source}; check the path.") from None
    except tarfile.TarError as error:
        raise _odd(source, f"it is no whole tar file ({str(error)[:80]})") from None
    except OSError as error:
        if error.filename != str(source):
            raise
        raise SakuinError(f"{source} cannot be read: {error.strerror}.") from None


def _manifest(archive: tarfile.TarFile, source: Path) -> Manifest:
    entry = archive.next()
    if entry is None or entry.name != _MANIFEST or not entry.isreg() or entry.size > _MOST_MANIFEST:
        raise _odd(source, "it does not begin with a manifest")
    held = archive.extractfile(entry)
    assert held is not None
    manifest = manifests.decode(held.read(), f"{source} ({_MANIFEST})")
    if not manifest.complete or {part.kind for part in manifest.parts} - set(KINDS):
        raise _odd(source, "its context is not whole")
    return manifest


def _take(held: IO[bytes], part: StoredPart, folder: Path, source: Path) -> None:
    digest = hashlib.sha256()
    with new_file(folder) as (file, temporary):
        while block := held.read(_BLOCK):
            file.write(block)
            digest.update(block)
        if digest.hexdigest() != part.sha256:
            raise _odd(source, f"{part.file} in it is damaged")
        publish(file, temporary, folder / part.file)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o600, _EPOCH
    return entry


def _odd(source: Path, why: str) -> SakuinError:
    return SakuinError(f"{source} cannot be imported: {why}. Nothing was taken.")
