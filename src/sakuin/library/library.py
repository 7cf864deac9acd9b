"""`Library`: named contexts in a folder, parts that they share stored once.

Every change is made under the library's lock, in moments; the long work, reading documents, is done outside
of it, under a lock of the context's own. Whoever only reads needs no lock: files are never changed, and a
file that goes while it is mapped stays until nobody maps it. Called by users and by `sakuin contexts`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sakuin.backends.open import backend_of, load
from sakuin.capacity.disk import stored_bytes
from sakuin.config import RetrievalConfig
from sakuin.context.context import Context, Progress
from sakuin.documents import Document
from sakuin.dtypes import of_torch_name
from sakuin.errors import SakuinError
from sakuin.library import sweeping
from sakuin.library.adding import Adding
from sakuin.library.folder import Folder, checked_name, expired
from sakuin.library.sweeping import Swept, files_of
from sakuin.snapshot import manifest as manifests
from sakuin.snapshot import store
from sakuin.snapshot.manifest import Manifest, StoredPart
from sakuin.snapshot.parts import Names, Part, part_bytes
from sakuin.storage.folders import default_folder
from sakuin.storage.locks import locked
from sakuin.storage.whole_files import write_whole


@dataclass(frozen=True)
class Entry:
    """A context of a library. state : "whole", "unfinished", "expired" or "damaged". bytes : of its files,
    own_bytes : of those that no other context needs. created, used, asked, kept_until : seconds since 1970;
    asked is 0 for one that was never opened to be asked."""

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
    asked: float = 0.0


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
            for file in files_of(manifest):
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
                    0.0 if unfinished else self.folder.asked(name),
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
        """The context `name`, mapped, to be asked.

        model, tokenizer : as `sakuin.load` returns them; without them, the model that the context was read
        with is loaded. config : as `Context.load` takes it.
        """
        return self._open(name, model, tokenizer, config)

    def _open(
        self,
        name: str,
        model: Any = None,
        tokenizer: Any = None,
        config: RetrievalConfig | None = None,
        growing: bool = False,
    ) -> Context:
        manifest = self.folder.read(name)
        if model is None:
            model, tokenizer = load_model_of(manifest, name)
        backend = backend_of(model, tokenizer)
        for _ in range(3):
            try:
                where = self.folder.manifest(name)
                found = store.snapshot_of(manifest, self.folder.parts, where, backend, config)
                break
            except (SakuinError, FileNotFoundError):
                # Somebody may have appended, and removed what is no longer needed.
                newer = self.folder.read(name)
                if newer == manifest:
                    raise
                manifest = newer
        self.folder.touch(name, asked=not growing)
        return Context.of_snapshot(found)

    def verify(self, name: str | None = None) -> dict[str, list[str]]:
        """What is wrong with each context, or with `name` alone: sentences, none where all is well. All of
        every file is read, of unfinished and expired contexts too."""
        wanted = [one for one in self.folder.manifests() if name in (None, one[0])]
        if name is not None and not wanted:
            self.folder.read(name)  # says so
        found: dict[str, list[str]] = {}
        checked: dict[StoredPart, str | None] = {}
        for one, _, manifest in wanted:
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
            adding = Adding(self, name, backend_of(model, tokenizer), config or RetrievalConfig())
            context = Context.from_documents(model, tokenizer, texts, config, progress, adding)
            self._publish(
                name, context, pinned=pin, kept_until=None if keep_for is None else time.time() + keep_for
            )
        return context

    def check_new(self, name: str, resume: bool = False) -> str:
        """`name` if a context may be made under it; else the reason, before the work begins."""
        name = checked_name(name)
        if self.is_there(name):
            raise SakuinError(
                f"there is a context named {name!r} already; take another name, `append` to it, or `rm` it "
                "first."
            )
        if self.folder.manifest(name, unfinished=True).exists() and not resume:
            raise SakuinError(
                f"an add of {name!r} was not finished; go on with --resume (resume=True), or `rm` it first."
            )
        return name

    def kept_of(self, name: str) -> int:
        """Tokens that an unfinished `add` has stored; 0 where there is none."""
        path = self.folder.manifest(checked_name(name), unfinished=True)
        try:
            parts = manifests.read(path).parts
        except SakuinError:
            return 0
        return max((part.end for part in parts if part.kind == "segment"), default=0)

    def is_there(self, name: str) -> bool:
        """Whether there is such a context, and not past its time."""
        try:
            return self.folder.manifest(name).exists() and not expired(self.folder.read(name, late=True))
        except SakuinError:
            return True  # damaged

    def save(self, name: str, context: Context) -> None:
        """Keep `context` under the new name `name`."""
        with self.saving(name, context) as keep:
            keep()

    @contextmanager
    def saving(self, name: str, context: Context) -> Iterator[Callable[..., None]]:
        """What to call to keep `context` under the new name `name` as it is then, as often as one likes; with
        `growing=True`, only if there is room for it when it has grown a little too. Nobody else can take the
        name meanwhile."""
        name = self.check_new(name)
        self.folder.make()
        with self._working_on(name):

            def keep(growing: bool = False) -> None:
                self._publish(name, context, growing, pinned=False, kept_until=None)

            yield keep

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
            context = self._open(name, model, tokenizer, growing=True)
            yield context, lambda: self._publish(name, context)

    # -- tidying ---------------------------------------------------------------------------------------------

    def change(self, name: str, *, pinned: bool | None = None, keep_for: float | None = None) -> None:
        """Pin a context or not; keep it for so many seconds from now (infinity: for ever). One past its time
        comes back so, if its files are all there."""
        self.folder.read(name, late=True)
        with locked(self.folder.lock):
            manifest = self.folder.read(name, late=True)
            if expired(manifest) and (damage := self.folder.parts.missing(manifest.parts)):
                raise SakuinError(f"{damage}: the context {name!r} cannot be kept; add it again.")
            if pinned is not None:
                manifest = replace(manifest, pinned=pinned)
            if keep_for is not None:
                until = None if keep_for == float("inf") else time.time() + keep_for
                manifest = replace(manifest, kept_until=until)
            write_whole(self.folder.manifest(name), manifest.encode())
            self.sweep(spare=name)

    def remove(self, *names: str) -> Swept:
        """Remove contexts, whole or unfinished or damaged, and the files that no other needs; none where one
        is not there or in use."""
        every = list(dict.fromkeys(checked_name(name) for name in names))
        with ExitStack() as held:
            for name in every:
                if not any(self.folder.manifest(name, unfinished).exists() for unfinished in (False, True)):
                    self.folder.read(name)  # says so
                held.enter_context(self._working_on(name))
            held.enter_context(locked(self.folder.lock))
            for name in every:
                for unfinished in (False, True):
                    self.folder.remove(name, unfinished)
            swept = self.sweep()
            return replace(swept, contexts=every + swept.contexts)

    def gc(self) -> Swept:
        """Remove what nobody needs: expired contexts, adds that were given up, files without a context."""
        self.folder.make()
        with locked(self.folder.lock):
            return sweeping.sweep(self.folder, given_up=True, complain=True)

    @property
    def quota(self) -> int | None:
        """Bytes that the library may take, or None. Checked before anything is written; contexts that were
        not used for the longest time make room, pinned ones never."""
        return self.folder.quota() if self.folder.exists else None

    @quota.setter
    def quota(self, size: int | None) -> None:
        self.folder.make()
        with locked(self.folder.lock):
            self.folder.write_quota(size)
            self.sweep()

    # -- inside ----------------------------------------------------------------------------------------------

    def make_room(self, need: int, spare: str = "") -> None:
        """Let `need` more bytes be within the quota, or refuse, but keep `spare`. For who holds the lock."""
        sweeping.make_room(self.folder, need, spare)

    def sweep(self, spare: str = "") -> Swept:
        """Remove contexts past their time, but not `spare`, and files that no context needs. For who holds
        the lock."""
        return sweeping.sweep(self.folder, spare=spare)

    def put(self, name: str, parts: Sequence[Part], names: Names, beside: int = 0) -> list[StoredPart]:
        """Write parts that are not there yet, and leave room for `beside` bytes more. For who holds the
        lock."""
        there = {file[:32] for file in self.folder.parts.all()}
        new = [part for part in parts if names.of(part.kind, part.start, part.end)[:32] not in there]
        if new or not self.folder.manifest(name).exists():
            self.make_room(sum(part_bytes(part) for part in new) + beside, spare=name)
        return self.folder.parts.put(parts, names)

    def _publish(self, name: str, context: Context, growing: bool = False, **marks: Any) -> None:
        """Write what is not there of the context, then its manifest, then forget what is no longer needed."""
        snapshot = context.snapshot()
        parts, names = snapshot.parts(), snapshot.names()
        with locked(self.folder.lock):
            path = self.folder.manifest(name)
            if path.exists() and not marks:
                before = self.folder.read(name, late=True)
                marks = {"pinned": before.pinned, "kept_until": before.kept_until, "created": before.created}
            text = 20 * len(snapshot.reading.ids) + 4 * len(snapshot.reading.body)  # the manifest, about
            if growing:  # what ends a sequence is written anew
                n = len(snapshot.reading.ids)
                backend = snapshot.backend
                text += stored_bytes(backend.shape, backend.dtype, snapshot.config, n, done=n)
            manifest = replace(store.manifest_of(snapshot, self.put(name, parts, names, text)), **marks)
            write_whole(path, manifest.encode())
            self.folder.touch(name)
            if self.folder.manifest(name, unfinished=True).exists():
                self.folder.remove(name, unfinished=True)
            self.sweep()

    @contextmanager
    def _working_on(self, name: str) -> Iterator[None]:
        busy = f"the context {name!r} is being read or appended to by another process; wait until it is done."
        with locked(self.folder.locks / name, busy):
            yield


def load_model_of(manifest: Manifest, name: str, device: str = "auto") -> tuple[Any, Any]:
    """The model that a context was read with, in its dtype; `device` as in `sakuin.load`."""
    if not manifest.model:
        raise SakuinError(
            f"the context {name!r} does not say by which name its model was loaded; name the model yourself."
        )
    return load(manifest.model, of_torch_name(manifest.fingerprint.dtype) or "auto", device)
