"""Snapshots: a context in files, and back.

A folder of part files (`PartFiles`), each written once, and a manifest that names the ones that a context
needs. `save` and `load` keep one context in a folder of its own; `sakuin.library` keeps many beside each
other. docs/format.md is the format.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sakuin import kinds
from sakuin.backends.base import Backend
from sakuin.backends.fingerprint import Fingerprint
from sakuin.cache.drawn import Drawn
from sakuin.cache.whole import WholeCache
from sakuin.config import RetrievalConfig
from sakuin.errors import SakuinError
from sakuin.prompts.reading import Reading
from sakuin.snapshot import manifest as manifests
from sakuin.snapshot.manifest import Manifest, StoredPart, documents_of
from sakuin.snapshot.part import Names, Part, owner_of, settings_of
from sakuin.snapshot.part_files import Key, Origin, PartFiles, key_of
from sakuin.snapshot.parts import all_parts, head_dim_of, restored_cache
from sakuin.snapshot.stored_document import StoredDocument
from sakuin.storage.folders import make_folder, sync_folder
from sakuin.storage.locks import locked
from sakuin.storage.whole_files import is_temporary, may_be_temporary, write_whole

MANIFEST, PARTS, LOCK = "manifest.json", "parts", "lock"
_TRIES = 3


@dataclass(frozen=True)
class Snapshot:
    """A context as it is stored or was read. windows : the state of layers without an index at positions
    before the end. origin : the files that it was opened from, if it was. drawn : what any question draws
    from its text, where that was measured."""

    backend: Backend
    cache: Any
    reading: Reading
    config: RetrievalConfig
    windows: list[Part] = field(default_factory=list)
    prefill_s: float = 0.0
    index_s: float = 0.0
    origin: Origin | None = None
    drawn: Drawn | None = None

    @property
    def whole(self) -> WholeCache:
        """The layers of its cache that have an index."""
        found = self.backend.retrieval(self.cache)
        assert found is not None
        return found

    def names(self, fingerprint: Fingerprint | None = None) -> Names:
        """The names of its parts. fingerprint : by which the model was known when they were named."""
        return Names(
            self.reading.ids,
            fingerprint or self.backend.fingerprint(),
            self.config,
            head_dim_of(self.backend, self.whole),
            self.reading.exact,
            owner_of(self.backend),
        )

    def parts(self) -> list[Part]:
        """All its parts, in order of position."""
        parts = {
            (p.kind, p.start, p.end): p
            for p in [*self.windows, *all_parts(self.backend, self.cache, len(self.reading.ids))]
        }
        return sorted(parts.values(), key=lambda part: (part.end, part.start, part.kind))


def manifest_of(snapshot: Snapshot, stored: Sequence[StoredPart]) -> Manifest:
    """What `snapshot` says of itself, with these files."""
    reading = snapshot.reading
    documents = []
    for document, place in zip(reading.documents, reading.places, strict=True):
        more = {key: value for key, value in document.as_dict().items() if key not in ("name", "text")}
        documents.append(StoredDocument(document.name, place, place + len(document.text), more))
    return Manifest(
        model=snapshot.backend.source,
        fingerprint=snapshot.backend.fingerprint(),
        config=snapshot.config,
        ids=reading.ids,
        starts=reading.starts,
        ends=reading.ends,
        body=reading.body,
        documents=documents,
        at=reading.at,
        lead=reading.lead,
        exact=reading.exact,
        prefill_s=snapshot.prefill_s,
        index_s=snapshot.index_s,
        parts=list(stored),
        created=time.time(),
        backend=snapshot.backend.name,
        drawn=snapshot.drawn if snapshot.drawn is not None and snapshot.drawn.is_sound else None,
        system=reading.system,
        window=snapshot.backend.shape.scaled_window,
    )


def snapshot_of(
    found: Manifest,
    files: PartFiles,
    where: Path,
    backend: Backend,
    config: RetrievalConfig | None = None,
) -> Snapshot:
    """The snapshot that the manifest at `where` describes, for `backend`. Refuses in a sentence before
    anything is made."""
    if not found.complete:
        raise SakuinError(
            f"{where} belongs to a context that was not read to its end; add it again, with --resume."
        )
    if (config or found.config).offload == "memory":
        files.read_ahead(found.parts)  # the fingerprint takes a while
    _check_fits(found, backend, where)
    _check_settings(found.config, where)
    settings = _settings(found, config, where)
    if damage := files.missing(found.parts):
        raise SakuinError(
            f"{damage}: the snapshot cannot be used; restore the file, or read the documents again."
        )
    most = backend.shape.vocabulary
    if most and (odd := next((token for token in (*found.ids, *found.lead) if token >= most), None)):
        raise SakuinError(f"{where} is damaged: {odd:,} is no token of this model, which has {most:,}.")
    reading = _reading(found, where)
    names = [(part.kind, part.start, part.end) for part in found.parts]
    if len(set(names)) < len(names):
        raise SakuinError(f"{where} is damaged: it names a part twice.")
    parts = [files.open(part) for part in found.parts]
    n = len(found.ids)
    windows = [part for part in parts if part.kind == "window" and part.end < n]
    cache = restored_cache(backend, settings, [part for part in parts if part not in windows], n)
    origin = Origin(files, tuple(found.parts))
    snapshot = Snapshot(
        backend, cache, reading, settings, windows, found.prefill_s, found.index_s, origin, found.drawn
    )
    # By the settings that it was stored with, whatever it is used with now.
    expected = replace(snapshot, config=found.config).names(found.fingerprint)
    for part in found.parts:
        if expected.of(*key_of(part)) != part.name:
            raise SakuinError(f"{where} is damaged: {part.file} is not a part of this text.")
    return snapshot


def _check_settings(config: RetrievalConfig, where: Path) -> None:
    """Refuse stored settings that their kind of index cannot have, which a manifest is read without."""
    kinds.of(config.index)
    try:
        replace(config)
    except (TypeError, ValueError) as error:
        raise SakuinError(f"{where} holds settings that cannot be: {str(error).rstrip('.')}.") from None


def _check_fits(found: Manifest, backend: Backend, where: Path) -> None:
    """Refuse a snapshot of another model, tokenizer or template, and one whose windows are another
    backend's."""
    why, other = backend.misfit(found.fingerprint), found.backend != backend.name
    instead = "load the model that it was made with"
    if other:
        instead = f"load the model with backend={found.backend!r}"
        if not found.fingerprint.is_of_file:
            instead += ", where saving it again marks it with the file for all backends"
    elif found.window is not None and found.window != backend.shape.window:
        instead = f"load the model with window={found.window}"
    if not why and other and (backend.shape.has_windows or any(p.kind == "window" for p in found.parts)):
        why = (
            f"{found.backend} read it, whose state of sliding windows or recurrent layers {backend.name} "
            "cannot take over"
        )
    if why:
        raise SakuinError(
            f"the snapshot {where} cannot be used with this model: {why}; {instead}, or read the documents "
            "again."
        )


def _settings(found: Manifest, config: RetrievalConfig | None, where: Path) -> RetrievalConfig:
    if config is None:
        return found.config
    # head_dim matters to "auto" values only, and these are the same for the same model.
    mine, theirs = (settings_of(one, 64)[0] for one in (config, found.config))
    if differing := [name for name in theirs if mine.get(name) != theirs[name]]:
        were = ", ".join(f"{name}={theirs[name]!r}" for name in differing)
        raise SakuinError(
            f"the snapshot {where} was made with other settings of {', '.join(differing)}, which what is "
            f"stored depends on; leave them as they were ({were})."
        )
    return config


def _reading(found: Manifest, where: Path) -> Reading:
    return Reading(
        found.body,
        tuple(documents_of(found, where)),
        tuple(one.start for one in found.documents),
        found.ids,
        found.starts,
        found.ends,
        found.at,
        found.lead,
        found.exact,
        found.system,
    )


# -- one context in a folder of its own ----------------------------------------------------------------------


def save(path: str | os.PathLike[str], snapshot: Snapshot) -> Manifest:
    """Write `snapshot` into the folder `path`, over the one that may be there."""
    folder = Path(path)
    make_folder(folder)
    _check_own(folder)
    parts, names = snapshot.parts(), snapshot.names()
    with locked(folder / LOCK):
        _check_own(folder)  # since then somebody may have written
        make_folder(folder / PARTS)
        sync_folder(folder)
        files = PartFiles(folder / PARTS)
        kept = _kept(snapshot.origin, files)
        manifest = manifest_of(snapshot, files.put(parts, names, kept, snapshot.origin))
        write_whole(folder / MANIFEST, manifest.encode())
        # Only what says itself that it is a part: a user's file may be called anything.
        going = [file for file in files.all() if file not in manifest.files and files.is_part(file)]
        files.remove([*going, *files.strays()])
        PartFiles(folder).remove(name for name in os.listdir(folder) if is_temporary(name))
    return manifest


def _check_own(folder: Path) -> None:
    """Refuse a folder that holds what no snapshot does, by content: many programs call a file so."""

    def is_ours(name: str) -> bool:
        path = folder / name
        if name == MANIFEST:
            return manifests.is_manifest(path)
        if name == PARTS:
            return path.is_dir()
        return may_be_temporary(name) or (name == LOCK and path.is_file() and not path.stat().st_size)

    try:
        odd = [name for name in os.listdir(folder) if not is_ours(name)]
        if not odd and (folder / PARTS).is_dir():
            odd = [f"{PARTS}/{name}" for name in PartFiles(folder / PARTS).others()]
    except OSError as error:
        raise SakuinError(f"{folder} cannot be read: {error.strerror or error}.") from None
    if odd:
        raise SakuinError(
            f"{folder} is a folder that holds other things ({odd[0]}); name an empty one, or one that is new."
        )


def _kept(origin: Origin | None, files: PartFiles) -> dict[Key, StoredPart]:
    """What a context has in this folder already, where it was opened from it."""
    same = origin is not None and os.path.realpath(origin.files.folder) == os.path.realpath(files.folder)
    return {key_of(part): part for part in origin.parts} if origin is not None and same else {}


def load(path: str | os.PathLike[str], backend: Backend, config: RetrievalConfig | None = None) -> Snapshot:
    """The snapshot in the folder `path`."""
    folder = Path(path)
    for left in reversed(range(_TRIES)):
        manifest = manifests.read(folder / MANIFEST)
        if not (folder / PARTS).is_dir():
            raise SakuinError(
                f"{folder / PARTS} is missing: the snapshot cannot be used; restore the folder."
            )
        try:
            return snapshot_of(manifest, PartFiles(folder / PARTS), folder, backend, config)
        except (SakuinError, FileNotFoundError):
            # Whoever saves over a snapshot removes the files that the new one does not need.
            if not left or manifests.read(folder / MANIFEST) == manifest:
                raise
    raise AssertionError


def verify(path: str | os.PathLike[str]) -> list[str]:
    """What is wrong with the snapshot in the folder `path`, a sentence each; all of every file is read."""
    folder = Path(path)
    try:
        manifest = manifests.read(folder / MANIFEST)
    except SakuinError as error:
        return [str(error)]
    if not (folder / PARTS).is_dir():
        return [f"{folder / PARTS} is missing"]
    files = PartFiles(folder / PARTS)
    return [damage for part in manifest.parts if (damage := files.damage(part))]
