"""An `add` on its way: what is sealed is written as it comes, and what is stored of the same beginning is
taken instead of being read again.

The manifest of an unfinished context names its parts, so that `gc` in another process leaves them, and so
that a second `add` finds them. Called by `sakuin.context.context` through `Context.from_documents`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sakuin.backends.base import Backend
from sakuin.capacity.disk import stored_bytes
from sakuin.config import RetrievalConfig
from sakuin.snapshot import parts
from sakuin.snapshot.manifest import Manifest, StoredPart
from sakuin.snapshot.parts import Names, Part
from sakuin.storage.locks import locked
from sakuin.storage.whole_files import write_whole

if TYPE_CHECKING:
    from sakuin.library.library import Library


class Adding:
    """The keeper of one context that is being read."""

    def __init__(self, library: Library, name: str, backend: Backend, config: RetrievalConfig) -> None:
        self._library, self._name, self._backend, self._config = library, name, backend, config
        self._fingerprint = backend.fingerprint()
        self._ids: list[int] = []
        self._written: set[tuple[str, int, int]] = set()

    def begin(self, ids: Sequence[int]) -> tuple[Any, int, list[Part]] | None:
        """The longest beginning of `ids` that is stored; checks that there is room for the rest."""
        self._ids = list(ids)
        folder = self._library.folder
        with locked(folder.lock):
            self._library.sweep()
            source, stored = self._longest()
            done = stored[-1].end if stored else 0
            need = stored_bytes(self._backend.shape, self._backend.dtype, self._config, len(ids), done)
            self._library.make_room(need, spare=source)
            if not stored:
                return None
            opened = [folder.parts.open(part) for part in stored]
        folder.touch(source)
        windows = [part for part in opened if part.kind == "window"]
        last = [part for part in windows if part.end == done]
        held = [part for part in opened if part.kind != "window"]
        return parts.restored_cache(self._backend, self._config, held + last, done), done, windows

    def step(self, cache: Any, done: int, windows: Sequence[Part]) -> None:
        """Write what has been sealed since the last time."""
        held = self._backend.retrieval(cache)
        whole = [*parts.sealed_parts(held, whole=True), *windows] if held is not None else []
        if len(whole) - len(windows) < 2 or {self._key(part) for part in whole} <= self._written:
            return
        names = self._names()
        folder = self._library.folder
        with locked(folder.lock):
            stored = self._library.put(self._name, whole, names)
            write_whole(folder.manifest(self._name, unfinished=True), self._manifest(stored).encode())
        self._written |= {self._key(part) for part in whole}

    def _longest(self) -> tuple[str, list[StoredPart]]:
        """The context that begins most like this one, and its parts up to where they differ."""
        best: tuple[str, list[StoredPart]] = "", []
        folder = self._library.folder
        for name, _, manifest in folder.manifests():
            if not isinstance(manifest, Manifest) or manifest.fingerprint != self._fingerprint:
                continue
            found = self._common(manifest.parts)
            if found and (not best[1] or found[-1].end > best[1][-1].end) and not folder.parts.missing(found):
                best = name, found
        return best

    def _common(self, stored: Sequence[StoredPart]) -> list[StoredPart]:
        """Of a context's parts, those that this one has too, up to a position where it can go on."""
        names = self._names()
        limit = len(self._ids) - self._config.exact_above  # fewer tokens would not be read exactly
        windows = {part.end: part for part in stored if part.kind == "window" and part.end < limit}
        chain: list[StoredPart] = []
        usable = 0
        for part in sorted(
            (p for p in stored if p.kind in ("sink", "segment")), key=lambda p: (p.end, p.start)
        ):
            if part.end >= limit or part.start != (chain[-1].end if chain else 0):
                break
            if names.of(part.kind, part.start, part.end) != part.name:
                break
            chain.append(part)
            if part.kind == "segment" and (part.end in windows or not self._backend.shape.has_windows):
                usable = len(chain)
        chain = chain[:usable]
        end = chain[-1].end if chain else 0
        before = [windows[at] for at in sorted(windows) if at <= end]
        if any(names.of("window", part.start, part.end) != part.name for part in before):
            return []
        # The last in the list ends where the rest begins.
        return [*before, *chain]

    def _names(self) -> Names:
        # Everything that an add reads is computed exactly.
        head_dim = self._backend.shape.head_dim
        return Names(self._ids, self._fingerprint, self._config, head_dim, len(self._ids))

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
        )

    @staticmethod
    def _key(part: Part) -> tuple[str, int, int]:
        return part.kind, part.start, part.end
