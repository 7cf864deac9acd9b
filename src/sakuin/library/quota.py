"""Making room in a library: which contexts give way so that its quota and the disk are kept.

The caller holds the library's lock. Called by `sakuin.library.writing`, `adding` and `archive`.
"""

from __future__ import annotations

from collections.abc import Collection

from sakuin.errors import SakuinError
from sakuin.library.folder import Folder, Listed
from sakuin.library.sweeping import sweep
from sakuin.snapshot.manifest import Outline
from sakuin.storage.folders import free_bytes


def make_room(folder: Folder, need: int, spare: str = "", keep: Collection[str] = ()) -> None:
    """Let `need` more bytes be within the quota: evict contexts, but not `spare`. Called when what is to be
    taken is checked and lies in temporary files, so that nothing goes for what is then not taken.

    keep : names of part files that stay, whoever needed them. Refuses before anything is removed where
    evicting would not be enough.
    """
    going = _going(folder, need, spare, keep)
    if going is None:
        return
    for name in going:
        folder.remove(name, unfinished=False)
    sweep(folder, spare=spare, keep=keep)


def check_room(folder: Folder, need: int, spare: str = "", keep: Collection[str] = ()) -> None:
    """Refuse where `make_room` would; remove nothing. It is called before long work."""
    free = free_bytes(folder.path)
    if free < need:
        raise SakuinError(
            f"the disk that holds {folder.path} has {free / 1e6:,.0f} MB free and "
            f"{need / 1e6:,.0f} MB are needed; free some, or set SAKUIN_LIBRARY to a folder on another "
            "disk."
        )
    _going(folder, need, spare, keep)


def _going(folder: Folder, need: int, spare: str, keep: Collection[str]) -> list[str] | None:
    """The contexts that must go so that `need` more bytes are within the quota, beside files that nobody
    needs; None where nothing has to."""
    quota, size = folder.quota(), folder.size()
    if quota is None or size + need <= quota:
        return None
    going, freed = _evictable(folder, size + need - quota, spare, keep)
    if size + need - freed > quota:
        raise SakuinError(
            f"the library in {folder.path} takes {size / 1e6:,.0f} MB, its quota is "
            f"{quota / 1e6:,.0f} MB, {need / 1e6:,.0f} MB more are needed, and evicting what is not "
            f"pinned or in use would free {freed / 1e6:,.0f} MB; raise the quota with `sakuin contexts "
            "quota`, or remove something (`sakuin contexts rm`). Nothing was removed."
        )
    return going


def _evictable(folder: Folder, wanted: int, spare: str, keep: Collection[str]) -> tuple[list[str], int]:
    """The contexts to evict so that `wanted` bytes become free, those past their time first and then what was
    not used for the longest time, and the bytes that they free."""
    found = folder.listed()
    if broken := [one.name for one in found if isinstance(one.said, SakuinError)]:
        raise SakuinError(
            f"the quota of the library in {folder.path} is reached, and the manifest of {broken[0]!r} is "
            "damaged, so that nobody knows which files could make room; restore it, or "
            f"`sakuin contexts rm {broken[0]}` first. Nothing was removed."
        )
    needed = set(keep).union(*(one.files for one in found))
    freed = sum(size for file, size in folder.parts.all().items() if file not in needed)
    whole: list[tuple[Listed, Outline]] = [
        (one, one.said) for one in found if isinstance(one.said, Outline) and not one.unfinished
    ]
    whole.sort(key=lambda one: (not folder.is_over(one[0].name, one[1]), folder.used(one[0].name)))
    going: list[str] = []
    staying = list(found)
    for one, said in whole:
        if freed >= wanted:
            break
        if one.name == spare or said.pinned or folder.is_being_read(one.name):
            continue
        staying.remove(one)
        shared = set(keep).union(*(other.files for other in staying))
        freed += sum({p.file: p.size for p in said.parts if p.file not in shared}.values())
        freed += folder.manifest(one.name).stat().st_size
        going.append(one.name)
    return going, freed
