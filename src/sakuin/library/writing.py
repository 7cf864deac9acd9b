"""From a context to files: parts that are not there yet, the manifest after them, and then away with what is
no longer needed. Called by `sakuin.library.library` and `sakuin.library.adding`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sakuin.capacity.disk import stored_bytes
from sakuin.context.context import Context
from sakuin.library.folder import Folder, Stored
from sakuin.library.quota import make_room
from sakuin.library.sweeping import sweep
from sakuin.snapshot import store
from sakuin.snapshot.manifest import StoredPart
from sakuin.snapshot.part import Names, Part
from sakuin.snapshot.parts import part_bytes
from sakuin.storage.locks import locked


def publish(
    folder: Folder,
    name: str,
    context: Context,
    before: Stored | None = None,
    *,
    growing: bool = False,
    **marks: Any,
) -> Stored:
    """Keep `context` under `name` as it is now.

    before : what the context was opened by; how long it is kept stays as it is now. growing : only if there
    is room for it when it has grown a little too. marks : fields of its manifest.
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
        files = put(folder, name, parts, names, beside)
        stored = folder.write(name, replace(store.manifest_of(snapshot, files), **marks))
        folder.touch(name)
        if folder.manifest(name, unfinished=True).exists():
            folder.remove(name, unfinished=True)
        sweep(folder)
    return stored


def put(folder: Folder, name: str, parts: Sequence[Part], names: Names, beside: int = 0) -> list[StoredPart]:
    """Write parts that are not there yet, and leave room for `beside` bytes more. The caller holds the
    library's lock."""
    there = {file[:32] for file in folder.parts.all()}
    new = [part for part in parts if names.of(part.kind, part.start, part.end)[:32] not in there]
    if new or not folder.manifest(name).exists():
        make_room(folder, sum(part_bytes(part) for part in new) + beside, spare=name)
    return folder.parts.put(parts, names)
