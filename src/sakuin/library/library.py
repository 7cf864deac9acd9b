"""`Library`: named contexts in a folder, parts that they share stored once.

Every change is made under the library's lock, in moments; the long work, reading documents, is done outside
of it, under a lock of the context's own. Whoever only reads needs no lock: files are never changed, and a
file that goes while it is mapped stays until nobody maps it.

What looks at a library and tidies it needs no torch; what reads or writes keys and values imports it when it
is called. Called by users and by `sakuin contexts`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sakuin import arguments
from sakuin.config import RetrievalConfig
from sakuin.errors import SakuinError
from sakuin.library.folder import Folder, Listed, Stored, checked_name, expired, normal
from sakuin.library.listing import Entry, entries_of, stored_in
from sakuin.library.sweeping import Swept, sweep
from sakuin.library.taken import refuse_taken
from sakuin.library.until import until
from sakuin.snapshot import manifest as manifests
from sakuin.snapshot.manifest import StoredPart
from sakuin.snapshot.part_files import Key, key_of
from sakuin.storage.folders import default_folder
from sakuin.storage.locks import locked

if TYPE_CHECKING:
    from sakuin.context.context import Context, Progress
    from sakuin.documents import Document


_TRIES = 3


class Library:
    """Named contexts in the folder `path`, or in `$SAKUIN_LIBRARY`."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.folder = Folder(default_folder() if path is None else Path(arguments.path("path", path)))

    # -- reading ---------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """All contexts, by name."""
        return entries_of(self.folder)

    def find(self, name: str) -> Stored:
        """The context `name` as its manifest says, read and checked; `open` and `append` take it in the place
        of the name, and read the manifest again only where somebody has changed the context since.

        Raises `SakuinError` where there is no such context, or its time is over.
        """
        return self.folder.find(name)

    def show(self, name: str) -> dict[str, Any]:
        """What there is to know of a context."""
        stored = self.folder.find(name)
        entry = {one.name: one for one in self.entries() if one.state == "whole"}.get(stored.name)
        if entry is None:  # since then somebody has removed it, or its time has come
            return self.show(self.folder.find(stored.name).name)
        files = [asdict(part) for part in stored.manifest.parts]
        return manifests.described(stored.manifest) | asdict(entry) | {"parts": files}

    def documents(self, name: str) -> list[Document]:
        """The documents of a context with their text as it was read, and what was noted of them."""
        stored = self.folder.find(name)
        return manifests.documents_of(stored.manifest, f"the context {stored.name}")

    def open(
        self,
        name: str | Stored,
        model: Any = None,
        tokenizer: Any = None,
        config: RetrievalConfig | None = None,
    ) -> Context:
        """The context `name`, mapped, to be asked.

        model, tokenizer : as `sakuin.load` returns them; without them, the model that the context was read
        with is loaded. config : as `Context.load` takes it.
        """
        from sakuin.library.opening import opened  # torch

        stored, context = opened(self.folder, self._found(name), model, tokenizer, config)
        self.folder.touch(stored.name, asked=True)
        return context

    def verify(self, name: str | None = None) -> dict[str, list[str]]:
        """What is wrong with each context, or with `name` alone: sentences, none where all is well. All of
        every file is read, of unfinished and expired contexts too."""
        found: dict[str, list[str]] = {}
        checked: dict[StoredPart, str | None] = {}
        for one in self._named(name):
            found.setdefault(one.name, []).extend(self._damages(one, checked))
        return found

    def imported(self, name: str | None = None) -> dict[str, list[str]]:
        """Of each context, or of `name` alone, the part files that were not computed here but came with an
        `import`, or from a folder of `Context.save`; none of those that the user trusts. Contexts that are
        read later share none of them."""
        found: dict[str, list[str]] = {}
        for one in self._named(name):
            new = sorted(file for file in one.files if not self.folder.codes.knows(file))
            found[one.name] = sorted({*found.get(one.name, []), *new})
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
        system: str | None = None,
        replace: bool = False,
    ) -> Context:
        """Read documents and keep them as `name`. What is stored already of their beginning is not read
        again.

        resume : go on with an `add` that was interrupted. pin : never evict it. keep_for : seconds after
        which it is gone. system : a system prompt, as `Context.from_text` takes it. replace : take the place
        of a context of this name, which stays until all is read; how long that is kept stays too, where
        `pin` and `keep_for` do not say otherwise.

        Raises `SakuinError` where there is such a context and it is not to be replaced, or no room for it.
        """
        from sakuin.context import checks
        from sakuin.context.context import Context  # torch
        from sakuin.library.adding import Adding
        from sakuin.library.writing import publish

        name = self.check_new(name, arguments.flag("resume", resume), arguments.flag("replace", replace))
        texts = checks.listed_documents(texts, progress)
        until(keep_for)
        arguments.flag("pin", pin)
        checks.check_stored(config)
        backend = checks.ready_backend(model, tokenizer)
        self.folder.make()
        with self.folder.working_on(name):
            self.check_new(name, resume, replace)  # since then somebody may have made one
            adding = Adding(self.folder, name, backend, config or RetrievalConfig())
            context = Context.from_documents(model, tokenizer, texts, config, progress, adding, system=system)
            # From now on, when all has been read.
            marks: dict[str, Any] = {"pinned": pin, "kept_until": until(keep_for)}
            if replace and self.folder.manifest(name).exists():
                was = self.folder.find(name, late=True).manifest
                marks["pinned"] = pin or was.pinned
                if keep_for is None and not expired(was):
                    marks["kept_until"] = was.kept_until
            publish(self.folder, name, context, kept=adding.kept, **marks)
        return context

    def check_new(self, name: str, resume: bool = False, replace: bool = False) -> str:
        """`name`, as it stands in the library, if a context may be made under it, or with `replace` in the
        place of another; else the reason, before the work begins."""
        name = checked_name(name)
        self.folder.check_writable()
        there, begun = not replace and self.is_there(name), not resume and self._is_begun(name)
        refuse_taken(name, there=there, begun=begun)
        return name

    def check_free(self, name: str, remedy: str = "take another name") -> str:
        """`name`, as it stands in the library, if nothing has it; else the reason, before the work begins.

        remedy : how whoever asks can take another one.
        """
        name = checked_name(name)
        self.folder.check_writable()
        refuse_taken(name, there=self.is_there(name), begun=self._is_begun(name), remedy=remedy)
        return name

    def _is_begun(self, name: str) -> bool:
        return self.folder.manifest(name, unfinished=True).exists()

    def kept_of(self, name: str) -> int:
        """Tokens that an unfinished `add` has stored; 0 where there is none."""
        path = self.folder.manifest(checked_name(name), unfinished=True)
        try:
            parts = manifests.read(path).parts
        except SakuinError:
            return 0
        return stored_in(parts)

    def is_there(self, name: str) -> bool:
        """Whether there is such a context, and not past its time."""
        arguments.text("name", name)
        try:
            path = self.folder.manifest(name)
            return path.exists() and not expired(self.folder.find(name, late=True).manifest)
        except SakuinError:
            return True  # damaged

    def save(self, name: str, context: Context) -> None:
        """Keep `context` under the new name `name`."""
        with self.saving(name, context) as keep:
            keep()

    @contextmanager
    def saving(self, name: str, context: Context) -> Iterator[Callable[..., None]]:
        """What to call to keep `context` under the new name `name` as it is then, as often as one likes.

        With `growing=True` it is kept only if there is room for it when it has grown a little too; with
        another `context=`, that one. Nobody else can take the name meanwhile.
        """
        from sakuin.library.writing import publish  # torch

        name = self.check_free(name)
        if not hasattr(context, "snapshot"):
            raise TypeError(f"context must be a Context, got {arguments.shown(context)}.")
        self.folder.make()
        kept: dict[Key, StoredPart] = {}
        with self.folder.working_on(name):
            self.check_free(name)  # since then somebody may have made one

            def keep(growing: bool = False, context: Context = context) -> None:
                stored = publish(
                    self.folder, name, context, kept=kept, growing=growing, pinned=False, kept_until=None
                )
                kept.update((key_of(part), part) for part in stored.manifest.parts)

            yield keep

    def append(
        self,
        name: str | Stored,
        text: str | Document | Sequence[Document],
        model: Any = None,
        tokenizer: Any = None,
        progress: Progress | None = None,
        *,
        replace: bool = False,
    ) -> Context:
        """Read `text` after what the context holds, as `Context.append` does, and keep the result under the
        same name."""
        with self.appending(name, model, tokenizer) as (context, keep):
            context.append(text, progress, replace=replace)
            keep()
        return context

    def remove_documents(
        self,
        name: str | Stored,
        documents: Sequence[str],
        model: Any = None,
        tokenizer: Any = None,
        progress: Progress | None = None,
    ) -> Context:
        """Let go of documents of a context, as `Context.remove` does, and keep the result under the same
        name."""
        with self.appending(name, model, tokenizer) as (context, keep):
            context.remove(*documents, progress=progress)
            keep()
        return context

    @contextmanager
    def appending(
        self, name: str | Stored, model: Any = None, tokenizer: Any = None
    ) -> Iterator[tuple[Context, Callable[[], None]]]:
        """A context to append to, as often as one likes, and what to call to keep it as it is then. Nobody
        else can append meanwhile."""
        from sakuin.library.opening import opened
        from sakuin.library.writing import publish  # torch

        stored = self._found(name)
        with self.folder.working_on(stored.name):
            stored, context = opened(self.folder, stored, model, tokenizer)
            self.folder.touch(stored.name)

            def keep() -> None:
                nonlocal stored
                stored = publish(self.folder, stored.name, context, stored)

            yield context, keep

    # -- tidying ---------------------------------------------------------------------------------------------

    def change(self, name: str, *, pinned: bool | None = None, keep_for: float | None = None) -> None:
        """Pin a context or not; keep it for so many seconds from now (infinity: for ever).

        One past its time comes back so, if its files are all there.
        """
        if pinned is not None:
            arguments.flag("pinned", pinned)
        kept_until = None if keep_for is None else until(keep_for)
        stored = self.folder.find(name, late=True)
        with locked(self.folder.lock):
            manifest = self.folder.newest(stored, late=True).manifest
            if expired(manifest) and (damage := self.folder.parts.missing(manifest.parts)):
                raise SakuinError(f"{damage}: the context {name!r} cannot be kept; add it again.")
            if pinned is not None:
                manifest = replace(manifest, pinned=pinned)
            if keep_for is not None:
                manifest = replace(manifest, kept_until=kept_until)
            self.folder.write(stored.name, manifest)
            sweep(self.folder, spare=stored.name)

    def rename(self, name: str, new: str) -> str:
        """Give a context another name, by which it is at once; whoever has it open goes on with it. The new
        name, as it stands in the library.

        Raises `SakuinError` where there is no such context, its time is over, the new name is taken, or a
        process reads or appends to either.
        """
        stored, new = self.folder.find(name), checked_name(new)
        self.folder.check_writable()
        if new == stored.name:
            raise SakuinError(f"the context is named {new!r} already.")
        with self.folder.working_on(stored.name), self.folder.working_on(new), locked(self.folder.lock):
            self.folder.newest(stored)
            for unfinished in (False, True):
                if self.folder.manifest(new, unfinished).exists():
                    raise SakuinError(
                        f"the name {new!r} is taken; take another one, or `sakuin contexts rm {new}` first."
                    )
            self.folder.rename(stored.name, new)
            sweep(self.folder, spare=new)
        return new

    def remove(self, *names: str) -> Swept:
        """Remove contexts, whole or unfinished or damaged, and the files that no other needs; none where one
        is not there or in use."""
        every = list(dict.fromkeys(checked_name(name) for name in names))
        with ExitStack() as held:
            for name in every:
                if not any(self.folder.manifest(name, unfinished).exists() for unfinished in (False, True)):
                    self.folder.find(name)  # says so
                held.enter_context(self.folder.working_on(name))
            held.enter_context(locked(self.folder.lock))
            for name in every:
                for unfinished in (False, True):
                    self.folder.remove(name, unfinished)
            swept = sweep(self.folder)
            return replace(swept, contexts=every + swept.contexts)

    def gc(self) -> Swept:
        """Remove what nobody needs: expired contexts, adds that were given up, files without a context."""
        self.folder.make()
        with locked(self.folder.lock):
            return sweep(self.folder, given_up=True, complain=True)

    @property
    def quota(self) -> int | None:
        """Bytes that the library may take, or None.

        Checked before anything is written; contexts that were not used for the longest time make room, pinned
        ones never.
        """
        return self.folder.quota() if self.folder.exists else None

    @quota.setter
    def quota(self, size: int | None) -> None:
        size = None if size is None else arguments.whole("quota", size, 0)
        self.folder.make()
        with locked(self.folder.lock):
            self.folder.write_quota(size)
            sweep(self.folder)

    # -- inside ----------------------------------------------------------------------------------------------

    def _found(self, name: str | Stored) -> Stored:
        return name if isinstance(name, Stored) else self.folder.find(name)

    def _damages(self, one: Listed, checked: dict[StoredPart, str | None]) -> list[str]:
        """What is wrong with a context, and not gone since with what needed it. checked : what is known."""
        damages: list[str] = []
        for _ in range(_TRIES):
            if isinstance(one.said, SakuinError):
                return [str(one.said)]
            for part in one.said.parts:
                if part not in checked:
                    checked[part] = self.folder.parts.damage(part)
            damages = [damage for part in one.said.parts if (damage := checked[part])]
            every = {(now.name, now.unfinished): now for now in self.folder.listed()} if damages else {}
            now = every.get((one.name, one.unfinished))
            if now is None or now.said == one.said:
                return damages if now is not None else []
            one = now
        return damages

    def _named(self, name: str | None) -> list[Listed]:
        """The contexts of this name, whole and unfinished, or all."""
        wanted = None if name is None else normal(name)
        found = [one for one in self.folder.listed() if wanted in (None, one.name)]
        if name is not None and not found:
            self.folder.find(name)  # says so
        return found
