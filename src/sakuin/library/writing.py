"""From a context to files: parts that are not there yet, the manifest after them, and then away with what is
no longer needed. Called by `sakuin.library.library` and `sakuin.library.adding`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sakuin.capacity.disk import stored_bytes
from sakuin.context.context import Context
from sakuin.library.folder import Folder, Stored
from sakuin.library.quota import check_room, make_room
from sakuin.library.sweeping import sweep
from sakuin.snapshot import store
from sakuin.snapshot.manifest import StoredPart
from sakuin.snapshot.part import Names, Part
from sakuin.snapshot.part_files import Key, Origin, key_of
from sakuin.snapshot.parts import part_bytes
from sakuin.storage.locks import locked


def publish(
    folder: Folder,
    name: str,
    context: Context,
    before: Stored | None = None,
    *,
    kept: Mapping[Key, StoredPart] | None = None,
    growing: bool = False,
    **marks: Any,
) -> Stored:
    """Keep `context` under `name` as it is now.

    before : what the context was opened by, or kept as the last time; how long it is kept stays as it is now.
    kept : parts that it has here beside those. growing : only if there is room for it when it has grown a
    little too. marks : fields of its manifest.
    """
    snapshot = context.snapshot()
    parts, names = snapshot.parts(), snapshot.names()
    n = len(snapshot.reading.ids)
    beside = 20 * n + 4 * len(snapshot.reading.body)  # the manifest, about
    if growing:  # what ends a sequence is written anew
        backend = snapshot.backend
        beside += stored_bytes(backend.shape, backend.dtype, snapshot.config, n, done=n)
    with locked(folder.lock):
        if before is not None and folder.manifest(name).exists():
            was = folder.newest(before, late=True).manifest
            marks |= {"pinned": was.pinned, "kept_until": was.kept_until, "created": was.created}
        if before is not None:
            kept = {key_of(part): part for part in before.manifest.parts} | dict(kept or {})
        files = put(folder, name, parts, names, kept, snapshot.origin, beside)
        stored = folder.write(name, replace(store.manifest_of(snapshot, files), **marks))
        folder.touch(name)
        if folder.manifest(name, unfinished=True).exists():
            folder.remove(name, unfinished=True)
        sweep(folder)
    return stored


def put(
    folder: Folder,
    name: str,
    parts: Sequence[Part],
    names: Names,
    kept: Mapping[Key, StoredPart] | None = None,
    origin: Origin | None = None,
    beside: int = 0,
) -> list[StoredPart]:
    """Write parts that are not there yet, and leave room for `beside` bytes more. The caller holds the
    library's lock.

    kept, origin : as `PartFiles.plan` and `staged` take them.
    """
    folder.begin()
    files = folder.parts
    wanted = files.plan(parts, names, kept)
    there = {one.stored.file for one in wanted if one.stored is not None}
    new = [one.part for one in wanted if one.stored is None]
    first = not folder.manifest(name).exists()
    if new or first:  # by what they take at most; what they take is known when they are written
        check_room(folder, sum(part_bytes(part) for part in new) + beside, spare=name, keep=there)
    with files.staged(wanted, origin) as staged:
        if new or first:
            make_room(folder, staged.size + beside, spare=name, keep=staged.files)
        return files.take(staged, computed=origin is None or _is_own(folder, origin))


def _is_own(folder: Folder, origin: Origin) -> bool:
    """Whether all that a context was opened from was computed here. What follows from anything else is no
    more trusted than that."""
    here, there = (os.path.realpath(files.folder) for files in (folder.parts, origin.files))
    return here == there and all(folder.codes.knows(part.file) for part in origin.parts)
