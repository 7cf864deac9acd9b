"""An `add` on its way: what is sealed is written as it comes, and what is stored of the same beginning is
taken instead of being read again.

The manifest of an unfinished context names its parts, so that `gc` in another process leaves them, and so
that a second `add` finds them. Called by `sakuin.library.library`, and through `Keeper` by the context that
is being read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sakuin.backends.base import Backend
from sakuin.capacity.disk import stored_bytes
from sakuin.config import RetrievalConfig
from sakuin.index.kind import kind_of
from sakuin.library.folder import Folder
from sakuin.library.prefix import Sequel, longest
from sakuin.library.quota import check_room
from sakuin.library.sweeping import sweep
from sakuin.library.writing import put
from sakuin.snapshot import parts
from sakuin.snapshot.manifest import Manifest, StoredPart
from sakuin.snapshot.part import Names, Part, owner_of
from sakuin.snapshot.part_files import Key, key_of
from sakuin.storage.locks import locked

_TRIES = 3


class Adding:
    """The keeper of one context that is being read."""

    def __init__(self, folder: Folder, name: str, backend: Backend, config: RetrievalConfig) -> None:
        kind_of(config.index).check_storable()
        self._folder, self._name, self._backend, self._config = folder, name, backend, config
        self._fingerprint = backend.fingerprint()
        self._ids: list[int] = []
        self.kept: dict[Key, StoredPart] = {}
        """What of the context is stored already."""
        self._written: set[Key] = set()

    def begin(self, ids: Sequence[int]) -> tuple[Any, int, list[Part]] | None:
        """The longest beginning of `ids` that is stored; checks that there is room for the rest."""
        self._ids = list(ids)
        opened = self._taken()
        if not opened:
            return None
        done = opened[-1].end
        windows = [part for part in opened if part.kind == "window"]
        last = [part for part in windows if part.end == done]
        held = [part for part in opened if part.kind != "window"]
        return parts.restored_cache(self._backend, self._config, held + last, done), done, windows

    def step(self, cache: Any, done: int, windows: Sequence[Part]) -> None:
        """Write what has been sealed since the last time."""
        held = self._backend.retrieval(cache)
        whole = [*parts.sealed_parts(held, full=True), *windows] if held is not None else []
        if len(whole) - len(windows) < 2 or {key_of(part) for part in whole} <= self._written:
            return
        names = self._names()
        with locked(self._folder.lock):
            stored = put(self._folder, self._name, whole, names, self.kept)
            self._folder.write(self._name, self._manifest(stored), unfinished=True)
        self._written |= {key_of(part) for part in whole}
        self.kept |= {key_of(part): part for part in stored}

    def _taken(self) -> list[Part]:
        """The parts of the longest beginning that is stored, mapped, so that they stay whoever removes them.

        Only files that were computed here, and whose content is what was written.
        """
        folder, shape = self._folder, self._backend.shape
        left = len(self._ids) - self._config.exact_above  # fewer tokens would not be read exactly
        sequel = Sequel(self._fingerprint, self._names(), left, shape.has_windows)
        damaged: set[str] = set()
        for again in reversed(range(_TRIES)):
            # Outside the lock, since a library may hold many contexts. The last try takes nothing.
            source, stored = self._longest(sequel, damaged) if again else ("", [])
            if found := {part.file for part in stored if folder.parts.damage(part)}:
                damaged |= found
                continue
            done = stored[-1].end if stored else 0
            need = stored_bytes(shape, self._backend.dtype, self._config, len(self._ids), done)
            with locked(folder.lock):
                sweep(folder)
                if folder.parts.missing(stored):
                    continue
                # Nothing is evicted yet: the reading may fail.
                check_room(folder, need, spare=source)
                opened = [folder.parts.open(part) for part in stored]
            if stored:
                folder.touch(source)
            self.kept = {key_of(part): part for part in stored}
            return opened
        raise AssertionError

    def _longest(self, sequel: Sequel, damaged: set[str]) -> tuple[str, list[StoredPart]]:
        codes, there = self._folder.codes, self._folder.parts.all()
        usable = {file: size for file, size in there.items() if file not in damaged and codes.knows(file)}
        return longest(self._folder.listed(), usable, sequel)

    def _names(self) -> Names:
        # Everything that an add reads is computed exactly.
        head_dim = self._backend.shape.head_dim
        n, owner = len(self._ids), owner_of(self._backend)
        return Names(self._ids, self._fingerprint, self._config, head_dim, n, owner)

    def _manifest(self, stored: Sequence[StoredPart]) -> Manifest:
        nowhere = [0] * len(self._ids)
        return Manifest(
            model=self._backend.source,
            fingerprint=self._fingerprint,
            config=self._config,
            ids=self._ids,
            starts=nowhere,
            ends=nowhere,
            body="",
            documents=[],
            at=0,
            lead=[],
            exact=len(self._ids),
            prefill_s=0.0,
            index_s=0.0,
            parts=list(stored),
            created=time.time(),
            complete=False,
            backend=self._backend.name,
            window=self._backend.shape.scaled_window,
        )
