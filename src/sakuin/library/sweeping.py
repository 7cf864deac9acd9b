"""Sweeping a library: contexts that are past their time, and files that no context needs.

The caller holds the library's lock. Called by the rest of `sakuin.library`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sakuin.errors import SakuinError
from sakuin.library.folder import Folder, expired
from sakuin.snapshot.manifest import Outline
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
    staying, gone = [], []
    for one in folder.listed():
        over = (
            isinstance(one.said, Outline) and not one.unfinished and expired(one.said) and one.name != spare
        )
        if (over or (one.unfinished and given_up)) and not folder.is_being_read(one.name):
            folder.remove(one.name, one.unfinished)
            gone.append(one.name)
        else:
            staying.append(one)
    broken = [one.name for one in staying if isinstance(one.said, SakuinError)]
    if broken:
        # What a manifest that cannot be read needs is not known.
        if complain:
            raise SakuinError(
                f"the manifest of {broken[0]!r} is damaged, so that nobody knows which files it needs; "
                f"restore it, or `sakuin contexts rm {broken[0]}` first."
            )
        return Swept(gone, 0, 0)
    needed = {file for one in staying for file in one.files}
    files = folder.parts
    going = {file: size for file, size in files.all().items() if file not in needed}
    strays = [files.folder / stray for stray in files.strays()]
    for place in (folder.path, folder.contexts, folder.unfinished):
        strays += place.glob(f"{TEMPORARY}*")
    for path in [files.folder / file for file in going] + strays:
        path.unlink(missing_ok=True)
    return Swept(gone, len(going) + len(strays), sum(going.values()))
