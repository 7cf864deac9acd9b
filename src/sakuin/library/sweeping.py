"""Sweeping a library: contexts that are past their time, and files that no context needs.

The caller holds the library's lock. Called by the rest of `sakuin.library`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sakuin.errors import SakuinError
from sakuin.library.folder import Folder
from sakuin.snapshot.manifest import Outline
from sakuin.storage.whole_files import is_temporary, unwritable


@dataclass(frozen=True)
class Swept:
    """What was removed: contexts by name, and files with their bytes."""

    contexts: list[str]
    files: int
    bytes: int


def sweep(
    folder: Folder,
    *,
    spare: str = "",
    keep: Collection[str] = (),
    given_up: bool = False,
    complain: bool = False,
) -> Swept:
    """Remove contexts whose time has been over for a day, but not `spare`, and files that no manifest names.

    keep : names of part files that are about to be named. given_up : unfinished contexts that nobody works on
    too. complain : about a damaged manifest, because of which no file can be removed.
    """
    staying, gone = [], []
    for one in folder.listed():
        over = (
            isinstance(one.said, Outline)
            and not one.unfinished
            and folder.is_over(one.name, one.said)
            and one.name != spare
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
    needed = {file for one in staying for file in one.files} | set(keep)
    files, there = folder.parts, folder.parts.all()
    going = {file: size for file, size in there.items() if file not in needed}
    places = (folder.path, folder.contexts, folder.unfinished, files.folder)
    strays = [
        place / name
        for place in places
        for name in os.listdir(place)
        if is_temporary(name) and name not in keep
    ]
    files.remove(going)
    try:
        for path in strays:
            path.unlink(missing_ok=True)
        for path in _given_up_imports(folder):
            shutil.rmtree(path, ignore_errors=True)
    except OSError as error:
        raise unwritable(folder.path, error) from error
    folder.codes.forget(there.keys() - going.keys())
    return Swept(gone, len(going) + len(strays), sum(going.values()))


def _given_up_imports(folder: Folder) -> list[Path]:
    """What processes that were killed left of contexts that they imported."""
    if not folder.incoming.is_dir():
        return []
    return [path for path in folder.incoming.iterdir() if not folder.is_being_read(path.name)]
