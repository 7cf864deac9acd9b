"""Making room in a library: which contexts give way so that its quota and the disk are kept.

The caller holds the library's lock. Called by `sakuin.library.writing`, `adding` and `archive`.
"""

from __future__ import annotations

from sakuin.errors import SakuinError
from sakuin.library.folder import Folder, Listed, expired
from sakuin.library.sweeping import sweep
from sakuin.snapshot.manifest import Outline
from sakuin.storage.folders import free_bytes


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
    going, freed = _evictable(folder, size + need - quota, spare)
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


def _evictable(folder: Folder, wanted: int, spare: str) -> tuple[list[str], int]:
    """The contexts to evict so that `wanted` bytes become free, expired ones first and then what was not used
    for the longest time, and the bytes that they free."""
    found = folder.listed()
    keep = set().union(*(one.files for one in found))
    freed = sum(size for file, size in folder.parts.all().items() if file not in keep)
    whole: list[tuple[Listed, Outline]] = [
        (one, one.said) for one in found if isinstance(one.said, Outline) and not one.unfinished
    ]
    whole.sort(key=lambda one: (not expired(one[1]), folder.used(one[0].name)))
    going: list[str] = []
    staying = list(found)
    for one, said in whole:
        if freed >= wanted:
            break
        if one.name == spare or said.pinned or folder.is_being_read(one.name):
            continue
        staying.remove(one)
        shared = set().union(*(other.files for other in staying))
        freed += sum({p.file: p.size for p in said.parts if p.file not in shared}.values())
        going.append(one.name)
    return going, freed
