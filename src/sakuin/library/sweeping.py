"""Making room in a library: what is past its time, what no context needs, and what gives way to the quota.

All of it is for who holds the library's lock. Called by `sakuin.library.library`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sakuin.errors import SakuinError
from sakuin.library.folder import Folder, expired
from sakuin.snapshot.manifest import Manifest
from sakuin.storage.folders import free_bytes
from sakuin.storage.whole_files import TEMPORARY


@dataclass(frozen=True)
class Swept:
    """What was removed: contexts by name, and files with their bytes."""

    contexts: list[str]
    files: int
    bytes: int


def sweep(folder: Folder, *, spare: str = "", given_up: bool = False, complain: bool = False) -> Swept:
    """Remove contexts past their time, but not `spare`, and files that no manifest names.

    given_up : unfinished contexts that nobody works on too. complain : about a damaged manifest, because of
    which no file can be removed.
    """
    found, gone = [], []
    for name, unfinished, manifest in list(folder.manifests()):
        over = isinstance(manifest, Manifest) and not unfinished and expired(manifest) and name != spare
        if (over or (unfinished and given_up)) and not folder.is_being_read(name):
            folder.remove(name, unfinished)
            gone.append(name)
        else:
            found.append((name, manifest))
    broken = [name for name, manifest in found if isinstance(manifest, SakuinError)]
    if broken:
        # What a manifest that cannot be read needs is not known.
        if complain:
            raise SakuinError(
                f"the manifest of {broken[0]!r} is damaged, so that nobody knows which files it needs; "
                f"restore it, or `sakuin contexts rm {broken[0]}` first."
            )
        return Swept(gone, 0, 0)
    needed = {file for _, manifest in found for file in files_of(manifest)}
    files = folder.parts
    going = {file: size for file, size in files.all().items() if file not in needed}
    strays = [files.folder / stray for stray in files.strays()]
    for place in (folder.path, folder.contexts, folder.unfinished):
        strays += place.glob(f"{TEMPORARY}*")
    for path in [files.folder / file for file in going] + strays:
        path.unlink(missing_ok=True)
    return Swept(gone, len(going) + len(strays), sum(going.values()))


def make_room(folder: Folder, need: int, spare: str = "") -> None:
    """Let `need` more bytes be within the quota: evict contexts, but not `spare`.

    Refuses before anything is removed where that would not be enough.
    """
    free = free_bytes(folder.path)
    if free < need:
        raise SakuinError(
            f"the disk that holds {folder.path} has {free / 1e6:,.0f} MB free and "
            f"{need / 1e6:,.0f} MB are needed; free some, or set SAKUIN_LIBRARY to a folder on another "
            "disk."
        )
    quota, size = folder.quota(), folder.size()
    if quota is None or size + need <= quota:
        return
    found = list(folder.manifests())
    keep = {file for _, _, m in found for file in files_of(m)}
    orphans = sum(s for file, s in folder.parts.all().items() if file not in keep)
    whole = [(n, m) for n, unfinished, m in found if isinstance(m, Manifest) and not unfinished]
    whole.sort(key=lambda one: (not expired(one[1]), folder.used(one[0])))
    going, freed = [], orphans
    others = {id(m): files_of(m) for _, _, m in found}
    for name, manifest in whole:
        if size + need - freed <= quota:
            break
        if name == spare or manifest.pinned or folder.is_being_read(name):
            continue
        mine = others.pop(id(manifest))
        shared = set().union(*others.values()) if others else set()
        freed += sum({p.file: p.size for p in manifest.parts if p.file in mine - shared}.values())
        going.append(name)
    if size + need - freed > quota:
        raise SakuinError(
            f"the library in {folder.path} takes {size / 1e6:,.0f} MB of its quota of "
            f"{quota / 1e6:,.0f} MB, {need / 1e6:,.0f} MB more are needed, and evicting what is not "
            f"pinned or in use would free {freed / 1e6:,.0f} MB; raise the quota with `sakuin contexts "
            "quota`, or `rm` something. Nothing was removed."
        )
    for name in going:
        folder.remove(name, unfinished=False)
    sweep(folder, spare=spare)


def files_of(manifest: Manifest | SakuinError) -> set[str]:
    """The part files that a context needs."""
    return set() if isinstance(manifest, SakuinError) else {part.file for part in manifest.parts}
