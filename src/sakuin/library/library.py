"""`Library`: named contexts in a folder, parts that they share stored once.

Every change is made under the library's lock, in moments; the long work, reading documents, is done outside
of it, under a lock of the context's own. Whoever only reads needs no lock: files are never changed, and a
file that goes while it is mapped stays until nobody maps it. Called by users and by `sakuin contexts`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sakuin import models
from sakuin.config import RetrievalConfig
from sakuin.context import Context, Progress
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.library.adding import Adding
from sakuin.library.folder import Folder, checked_name, default_folder, expired
from sakuin.snapshot import store
from sakuin.snapshot.disk import free_bytes, locked, write_whole
from sakuin.snapshot.manifest import Manifest, StoredPart
from sakuin.snapshot.parts import Names, Part, part_bytes

_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Entry:
    """A context of a library. state : "whole", "unfinished", "expired" or "damaged". bytes : of its files,
    own_bytes : of those that no other context needs. created, used, kept_until : seconds since 1970."""

    name: str
    state: str
    model: str = ""
    tokens: int = 0
    bytes: int = 0
    own_bytes: int = 0
    created: float = 0.0
    used: float = 0.0
    kept_until: float | None = None
    pinned: bool = False


@dataclass(frozen=True)
class Swept:
    """What `gc` removed: contexts by name, and files with their bytes."""

    contexts: list[str]
    files: int
    bytes: int


class Library:
    """Named contexts in the folder `path`, or in `$SAKUIN_LIBRARY`."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.folder = Folder(Path(path) if path is not None else default_folder())

    # -- reading ---------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """All contexts, by name."""
        found = list(self.folder.manifests())
        needed: dict[str, int] = {}
        for _, _, manifest in found:
            for file in _files(manifest):
                needed[file] = needed.get(file, 0) + 1
        entries = []
        for name, unfinished, manifest in found:
            if isinstance(manifest, SakuinError):
                entries.append(Entry(name, "damaged"))
                continue
            state = "unfinished" if unfinished else "expired" if expired(manifest) else "whole"
            own = sum({p.file: p.size for p in manifest.parts if needed[p.file] == 1}.values())
            entries.append(
                Entry(
                    name,
                    state,
                    manifest.model,
                    len(manifest.ids),
                    manifest.size,
                    own,
                    manifest.created,
                    self.folder.used(name),
                    manifest.kept_until,
                    manifest.pinned,
                )
            )
        return sorted(entries, key=lambda entry: (entry.name, entry.state))

    def show(self, name: str) -> dict[str, Any]:
        """What there is to know of a context."""
        manifest = self.folder.read(name)
        entry = next(entry for entry in self.entries() if entry.name == name and entry.state == "whole")
        return (
            store.described(manifest) | asdict(entry) | {"parts": [asdict(part) for part in manifest.parts]}
        )

    def open(
        self, name: str, model: Any = None, tokenizer: Any = None, config: RetrievalConfig | None = None
    ) -> Context:
        """The context `name`, mapped.

        model, tokenizer : as `sakuin.load` returns them; without them, the model that the context was read
        with is loaded. config : as `Context.load` takes it.
        """
        manifest = self.folder.read(name)
        if model is None:
            model, tokenizer = load_model_of(manifest, name)
        for _ in range(3):
            try:
                where = self.folder.manifest(name)
                found = store.snapshot_of(manifest, self.folder.parts, where, model, tokenizer, config)
                break
            except (SakuinError, FileNotFoundError):
                # Somebody may have appended, and removed what is no longer needed.
                newer = self.folder.read(name)
                if newer == manifest:
                    raise
                manifest = newer
        self.folder.touch(name)
        return Context.of_snapshot(found, model, tokenizer)

    def verify(self, name: str | None = None) -> dict[str, list[str]]:
        """What is wrong with each context, or with `name` alone: sentences, none where all is well. All of
        every file is read."""
        if name is not None:
            self.folder.read(name)
        found: dict[str, list[str]] = {}
        checked: dict[StoredPart, str | None] = {}
        for one, _, manifest in self.folder.manifests():
            if name not in (None, one):
                continue
            found.setdefault(one, [])
            if isinstance(manifest, SakuinError):
                found[one].append(str(manifest))
                continue
            for part in manifest.parts:
                if part not in checked:
                    checked[part] = self.folder.parts.damage(part)
                if damage := checked[part]:
                    found[one].append(damage)
        return found

    # -- growing ---------------------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        texts: Sequence[Document],
        model: Any,
        tokenizer: Any,
        config: RetrievalConfig | None = None,
        progress: Progress | None = None,
        *,
        resume: bool = False,
        pin: bool = False,
        keep_for: float | None = None,
    ) -> Context:
        """Read documents and keep them as `name`. What is stored already of their beginning is not read
        again.

        resume : go on with an `add` that was interrupted. pin : never evict it. keep_for : seconds after
        which it is gone.

        Raises `SakuinError` where there is such a context, or no room for it.
        """
        name = self.check_new(name, resume)
        self.folder.make()
        with self._working_on(name):
            adding = Adding(self, name, model, tokenizer, config or RetrievalConfig())
            context = Context.from_documents(model, tokenizer, texts, config, progress, adding)
            self._publish(
                name, context, pinned=pin, kept_until=None if keep_for is None else time.time() + keep_for
            )
        return context

    def check_new(self, name: str, resume: bool = False) -> str:
        """`name` if a context may be made under it; else the reason, before the work begins."""
        name = checked_name(name)
        if self.folder.manifest(name).exists() and not self._is_expired(name):
            raise SakuinError(
                f"there is a context named {name!r} already; take another name, `append` to it, or `rm` it "
                "first."
            )
        if self.folder.manifest(name, unfinished=True).exists() and not resume:
            raise SakuinError(
                f"an add of {name!r} was not finished; go on with --resume (resume=True), or `rm` it first."
            )
        return name

    def save(self, name: str, context: Context) -> None:
        """Keep `context` under the new name `name`."""
        name = self.check_new(name)
        self.folder.make()
        with self._working_on(name):
            self._publish(name, context)

    def append(
        self,
        name: str,
        text: str | Document,
        model: Any = None,
        tokenizer: Any = None,
        progress: Progress | None = None,
    ) -> Context:
        """Read `text` after what the context holds, and keep the result under the same name."""
        with self.appending(name, model, tokenizer) as (context, keep):
            context.append(text, progress)
            keep()
        return context

    @contextmanager
    def appending(
        self, name: str, model: Any = None, tokenizer: Any = None
    ) -> Iterator[tuple[Context, Callable[[], None]]]:
        """A context to append to, as often as one likes, and what to call to keep it as it is then. Nobody
        else can append meanwhile."""
        self.folder.read(name)
        with self._working_on(name):
            context = self.open(name, model, tokenizer)
            yield context, lambda: self._publish(name, context)

    # -- tidying ---------------------------------------------------------------------------------------------

    def change(self, name: str, *, pinned: bool | None = None, keep_for: float | None = None) -> None:
        """Pin a context or not; keep it for so many seconds from now (infinity: for ever)."""
        self.folder.read(name)
        with locked(self.folder.lock):
            manifest = self.folder.read(name)
            if pinned is not None:
                manifest = replace(manifest, pinned=pinned)
            if keep_for is not None:
                until = None if keep_for == float("inf") else time.time() + keep_for
                manifest = replace(manifest, kept_until=until)
            write_whole(self.folder.manifest(name), manifest.encode())

    def remove(self, name: str) -> Swept:
        """Remove a context, whole or unfinished or damaged, and the files that no other needs."""
        name = checked_name(name)
        there = [
            unfinished for unfinished in (False, True) if self.folder.manifest(name, unfinished).exists()
        ]
        if not there:
            self.folder.read(name)  # says so
        with self._working_on(name), locked(self.folder.lock):
            for unfinished in there:
                self.folder.remove(name, unfinished)
            return replace(self._sweep(), contexts=[name])

    def gc(self) -> Swept:
        """Remove what nobody needs: expired contexts, adds that were given up, files without a context."""
        self.folder.make()
        removed = []
        with locked(self.folder.lock):
            for name, unfinished, manifest in list(self.folder.manifests()):
                over = isinstance(manifest, Manifest) and expired(manifest)
                if (unfinished or over) and not self.folder.is_being_read(name):
                    self.folder.remove(name, unfinished)
                    removed.append(name)
            return replace(self._sweep(complain=True), contexts=removed)

    @property
    def quota(self) -> int | None:
        """Bytes that the library may take, or None. Checked before anything is written; contexts that were
        not asked for the longest time make room, pinned ones never."""
        return self.folder.quota() if self.folder.exists else None

    @quota.setter
    def quota(self, size: int | None) -> None:
        self.folder.make()
        with locked(self.folder.lock):
            self.folder.write_quota(size)

    # -- inside ----------------------------------------------------------------------------------------------

    def make_room(self, need: int, spare: str = "") -> None:
        """Let `need` more bytes be within the quota: evict contexts, but not `spare`. For who holds the lock.

        Refuses before anything is removed where that would not be enough.
        """
        free = free_bytes(self.folder.path)
        if free < need:
            raise SakuinError(
                f"the disk that holds {self.folder.path} has {free / 1e6:,.0f} MB free and "
                f"{need / 1e6:,.0f} MB are needed; free some, or set SAKUIN_LIBRARY to a folder on another "
                "disk."
            )
        quota, size = self.folder.quota(), self.folder.size()
        if quota is None or size + need <= quota:
            return
        found = list(self.folder.manifests())
        keep = {file for _, _, m in found for file in _files(m)}
        orphans = sum(s for file, s in self.folder.parts.all().items() if file not in keep)
        whole = [(n, m) for n, unfinished, m in found if isinstance(m, Manifest) and not unfinished]
        whole.sort(key=lambda one: (not expired(one[1]), self.folder.used(one[0])))
        going, freed = [], orphans
        others = {id(m): set(_files(m)) for _, _, m in found}
        for name, manifest in whole:
            if size + need - freed <= quota:
                break
            if name == spare or manifest.pinned or self.folder.is_being_read(name):
                continue
            mine = others.pop(id(manifest))
            shared = set().union(*others.values()) if others else set()
            freed += sum({p.file: p.size for p in manifest.parts if p.file in mine - shared}.values())
            going.append(name)
        if size + need - freed > quota:
            raise SakuinError(
                f"the library in {self.folder.path} takes {size / 1e6:,.0f} MB of its quota of "
                f"{quota / 1e6:,.0f} MB, {need / 1e6:,.0f} MB more are needed, and evicting what is not "
                f"pinned or in use would free {freed / 1e6:,.0f} MB; raise the quota with `sakuin contexts "
                "quota`, or `rm` something. Nothing was removed."
            )
        for name in going:
            self.folder.remove(name, unfinished=False)
        self._sweep()

    def put(self, name: str, parts: Sequence[Part], names: Names, beside: int = 0) -> list[StoredPart]:
        """Write parts that are not there yet, and leave room for `beside` bytes more. For who holds the
        lock."""
        there = {file[:32] for file in self.folder.parts.all()}
        new = [part for part in parts if names.of(part.kind, part.start, part.end)[:32] not in there]
        if new:
            self.make_room(sum(part_bytes(part) for part in new) + beside, spare=name)
        return self.folder.parts.put(parts, names)

    def _publish(self, name: str, context: Context, **marks: Any) -> None:
        """Write what is not there of the context, then its manifest, then forget what is no longer needed."""
        snapshot = context.snapshot()
        parts, names = snapshot.parts(), snapshot.names()
        with locked(self.folder.lock):
            path = self.folder.manifest(name)
            if path.exists() and not marks:
                before = self.folder.read(name)
                marks = {"pinned": before.pinned, "kept_until": before.kept_until, "created": before.created}
            text = 20 * len(snapshot.reading.ids) + 4 * len(snapshot.reading.body)  # the manifest, about
            manifest = replace(store.manifest_of(snapshot, self.put(name, parts, names, text)), **marks)
            write_whole(path, manifest.encode())
            self.folder.touch(name)
            if self.folder.manifest(name, unfinished=True).exists():
                self.folder.remove(name, unfinished=True)
            self._sweep()

    def _sweep(self, complain: bool = False) -> Swept:
        """Remove files that no manifest names. For who holds the lock."""
        found = list(self.folder.manifests())
        broken = [name for name, _, manifest in found if isinstance(manifest, SakuinError)]
        if broken:
            # What a manifest that cannot be read needs is not known.
            if complain:
                raise SakuinError(
                    f"the manifest of {broken[0]!r} is damaged, so that nobody knows which files it needs; "
                    "restore it, "
                    f"or `sakuin contexts rm {broken[0]}` first."
                )
            return Swept([], 0, 0)
        needed = {file for _, _, manifest in found for file in _files(manifest)}
        files = self.folder.parts
        going = {file: size for file, size in files.all().items() if file not in needed}
        strays = [files.folder / stray for stray in files.strays()]
        for folder in (self.folder.path, self.folder.contexts, self.folder.unfinished):
            strays += folder.glob(".new-*")
        for path in [files.folder / file for file in going] + strays:
            path.unlink(missing_ok=True)
        return Swept([], len(going) + len(strays), sum(going.values()))

    @contextmanager
    def _working_on(self, name: str) -> Iterator[None]:
        busy = f"the context {name!r} is being read or appended to by another process; wait until it is done."
        with locked(self.folder.locks / name, busy):
            yield

    def _is_expired(self, name: str) -> bool:
        return any(entry.name == name and entry.state == "expired" for entry in self.entries())


def load_model_of(manifest: Manifest, name: str, device: str = "auto") -> tuple[Any, Any]:
    """The model that a context was read with, in its dtype; `device` as in `sakuin.load`."""
    if not manifest.model:
        raise SakuinError(
            f"the context {name!r} does not say by which name its model was loaded; name the model yourself."
        )
    return models.load(manifest.model, _DTYPES.get(manifest.fingerprint.dtype, "auto"), device)


def _files(manifest: Manifest | SakuinError) -> set[str]:
    return set() if isinstance(manifest, SakuinError) else {part.file for part in manifest.parts}
