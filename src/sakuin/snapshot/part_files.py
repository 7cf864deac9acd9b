"""The part files of a folder: each is written once, under its name and the hash of its content.

Listing and checking them needs no torch; what reads or writes tensors imports it when it is called.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sakuin.errors import SakuinError
from sakuin.machine import memory
from sakuin.snapshot.manifest import KINDS, StoredPart
from sakuin.snapshot.part import Names, Part
from sakuin.snapshot.part_marks import is_marked, mark
from sakuin.storage.folders import free_bytes, sync_folder
from sakuin.storage.whole_files import is_temporary, may_be_temporary, new_file, settle, unwritable

Key = tuple[str, int, int]
"""Kind, start and end: which part of a context it is."""


class Codes(Protocol):
    """Who knows which files were computed here."""

    def knows(self, file: str) -> bool:
        """Whether the file of this name was."""

    def add(self, files: Sequence[str]) -> None:
        """Note that these were."""


@dataclass(frozen=True)
class Origin:
    """The files that a context was opened from."""

    files: PartFiles
    parts: tuple[StoredPart, ...]

    def check(self, key: Key) -> None:
        """Raise `SakuinError` where a part is to be written anew whose numbers come from a damaged file. One
        that is gone stays as it was for who has it mapped."""
        for part in self.parts:
            if key_of(part) != key or not (self.files.folder / part.file).exists():
                continue
            if damage := self.files.damage(part):
                raise SakuinError(
                    f"{damage}: what was read from it cannot be kept; restore the file, or read the "
                    "documents again."
                )


@dataclass(frozen=True)
class Wanted:
    """A part that a context needs. stored : its file, where it is there and sound."""

    part: Part
    name: str
    stored: StoredPart | None


@dataclass(frozen=True)
class Staged:
    """The files that a context needs, of which those that are new lie under temporary names.

    new : temporary name to the file's own.
    """

    parts: list[StoredPart]
    new: dict[str, str]
    size: int

    @property
    def files(self) -> set[str]:
        """Names of all that must not be swept."""
        return {part.file for part in self.parts} | self.new.keys()


def key_of(part: Part | StoredPart) -> Key:
    """Which part of a context it is."""
    return part.kind, part.start, part.end


class PartFiles:
    """The part files of a folder. Each is written once, under its name and the hash of its content.

    codes : by which files are told that were computed here; without them nobody asks. Only such a file is
    taken for a part of another context.
    """

    def __init__(self, folder: Path, codes: Codes | None = None) -> None:
        self.folder, self.codes = folder, codes

    def all(self) -> dict[str, int]:
        """The names of the files that are there, and their sizes."""
        found: dict[str, int] = {}
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    if _FILE.fullmatch(entry.name) and entry.is_file():
                        with contextlib.suppress(FileNotFoundError):  # it was swept meanwhile
                            found[entry.name] = entry.stat().st_size
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SakuinError(f"{self.folder} cannot be read: {error.strerror or error}.") from None
        return found

    def strays(self) -> list[str]:
        """Names of files that somebody began to write."""
        return [name for name in os.listdir(self.folder) if is_temporary(name)]

    def others(self) -> list[str]:
        """Names of what is there and is called as no part is."""
        names = os.listdir(self.folder)
        return [name for name in names if not _FILE.fullmatch(name) and not may_be_temporary(name)]

    # -- writing: plan, stage, take --------------------------------------------------------------------------

    def plan(
        self, parts: Iterable[Part], names: Names, kept: Mapping[Key, StoredPart] | None = None
    ) -> list[Wanted]:
        """Which of `parts` are there, in order. The caller holds the folder's lock.

        kept : what the context has of its own: files of these names are not asked for their content. All
        others are read and compared with their checksums before they are taken.
        """
        sizes = self.all()
        candidates: dict[str, list[str]] = {}
        for file in sorted(sizes):
            candidates.setdefault(file[:32], []).append(file)
        found = []
        for part in parts:
            name, own = names.of(*key_of(part)), (kept or {}).get(key_of(part))
            if own is not None and own.name == name and sizes.get(own.file) == own.size:
                found.append(Wanted(part, name, own))
                continue
            sound = (
                stored
                for file in candidates.get(name[:32], ())
                if self.codes is None or self.codes.knows(file)
                for stored in [StoredPart(*key_of(part), name, sizes[file], file[33:97])]
                if self.damage(stored) is None
            )
            found.append(Wanted(part, name, next(sound, None)))
        return found

    @contextmanager
    def staged(self, wanted: Sequence[Wanted], origin: Origin | None = None) -> Iterator[Staged]:
        """Write what is not there yet, under temporary names; `take` gives them their own, and what was not
        taken is gone at the end. The caller holds the folder's lock.

        origin : where the parts come from that were not computed in this process.
        """
        stored, new, size = [], {}, 0
        with ExitStack() as stack:
            for one in wanted:
                if one.stored is not None:
                    stored.append(one.stored)
                    continue
                if origin is not None:
                    origin.check(key_of(one.part))
                path, written = self._write(one, stack)
                stored.append(written)
                new[path.name] = written.file
                size += written.size
            yield Staged(stored, new, size)

    def take(self, staged: Staged, computed: bool = True) -> list[StoredPart]:
        """Give the new files their names; what the files are, in order.

        computed : whether all that they follow from was computed here.
        """
        if self.codes is not None and computed and staged.new:
            self.codes.add(list(staged.new.values()))  # first: a code without a file harms nobody
        for temporary, file in staged.new.items():
            (self.folder / temporary).rename(self.folder / file)
            sync_folder(self.folder)
        return staged.parts

    def put(
        self,
        parts: Iterable[Part],
        names: Names,
        kept: Mapping[Key, StoredPart] | None = None,
        origin: Origin | None = None,
    ) -> list[StoredPart]:
        """Write what is not there yet; what the files are, in order. The caller holds the folder's lock."""
        with self.staged(self.plan(parts, names, kept), origin) as staged:
            return self.take(staged)

    def _write(self, wanted: Wanted, stack: ExitStack) -> tuple[Path, StoredPart]:
        from sakuin.storage import tensorfile  # torch

        part, name = wanted.part, wanted.name
        need, free = tensorfile.file_size(part.tensors.values()), free_bytes(self.folder)
        if free < need:
            raise SakuinError(
                f"the disk that holds {self.folder} has {free / 1e6:,.0f} MB free and the next file takes "
                f"{need / 1e6:,.0f} MB; free some and try again. What is stored already stays as it was."
            )
        facts = part.facts | {"name": name, "kind": part.kind, "start": str(part.start), "end": str(part.end)}
        file, path = stack.enter_context(new_file(self.folder))
        size, sha256 = tensorfile.write(file, part.tensors, facts)
        settle(file)
        mark(path, sha256)
        return path, StoredPart(*key_of(part), name, size, sha256)

    # -- reading ---------------------------------------------------------------------------------------------

    def open(self, stored: StoredPart) -> Part:
        """The part in a file, mapped. One that was written to since it was made is read first, whether it is
        still what it was."""
        from sakuin.storage import tensorfile  # torch

        self._check_unchanged(stored)
        mapped = tensorfile.open_mapped(self.folder / stored.file, stored.size)
        facts = dict(mapped.metadata)
        said = [facts.pop(key, "") for key in ("name", "kind", "start", "end")]
        if said != [stored.name, stored.kind, str(stored.start), str(stored.end)]:
            raise SakuinError(
                f"{self.folder / stored.file} holds another part than its name says: it is damaged."
            )
        return Part(stored.kind, stored.start, stored.end, mapped.tensors, facts)

    def _check_unchanged(self, stored: StoredPart) -> None:
        path = self.folder / stored.file
        try:
            before = path.stat()
        except OSError:
            return  # what is not there is refused where it is opened
        if before.st_size != stored.size or is_marked(before, stored.sha256):
            return  # another size is refused where it is opened
        if damage := self.damage(stored):
            raise SakuinError(f"{damage}; restore the file, or read the documents again.")
        mark(path, stored.sha256, before)

    def read_ahead(self, parts: Sequence[StoredPart]) -> None:
        """Have the system read these files while something else is done, if they fit into memory."""
        if sum(part.size for part in parts) > memory.available().bytes:
            return
        for part in parts:
            # Advice: a file that is not there is found missing where it is opened.
            with contextlib.suppress(OSError, AttributeError):
                handle = os.open(self.folder / part.file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                try:
                    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_WILLNEED)
                finally:
                    os.close(handle)

    def missing(self, parts: Iterable[StoredPart]) -> str | None:
        """What is wrong with the first file that is not there or has another size; None if all are well."""
        there = self.all()
        for part in parts:
            if part.file not in there:
                return f"{self.folder / part.file} is missing"
            if there[part.file] != part.size:
                found = there[part.file]
                return f"{self.folder / part.file} has {found:,} bytes where {part.size:,} were written"
        return None

    def damage(self, part: StoredPart) -> str | None:
        """What is wrong with a file, all of which is read; None if it is well."""
        path = self.folder / part.file
        try:
            with open(path, "rb", opener=_waiting_for_nobody) as file:
                found = os.fstat(file.fileno()).st_size
                if found != part.size:
                    return f"{path} has {found:,} bytes where {part.size:,} were written"
                if hashlib.file_digest(file, "sha256").hexdigest() != part.sha256:
                    return f"{path} is damaged: its content is not what was written"
        except FileNotFoundError:
            return f"{path} is missing"
        except OSError as error:
            return f"{path} cannot be read ({error.strerror or error})"
        return None

    def is_part(self, file: str) -> bool:
        """Whether a file is a part by what it says itself, not only by its name."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            with open(self.folder / file, "rb", opener=_waiting_for_nobody) as held:
                length = int.from_bytes(held.read(8), "little")
                said = json.loads(held.read(min(length, _MOST_HEADER)))["__metadata__"]
            return said["kind"] in KINDS and said["name"][:32] == file[:32]
        return False

    def remove(self, files: Iterable[str]) -> None:
        """Remove these, which may be gone already."""
        try:
            for file in files:
                (self.folder / file).unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(self.folder, error) from error


def _waiting_for_nobody(path: str, flags: int) -> int:
    """Opens a pipe without waiting for who writes into it."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)


_FILE = re.compile(r"([0-9a-f]{32})-([0-9a-f]{64})\.safetensors")
_MOST_HEADER = 1 << 24
