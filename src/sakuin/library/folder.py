"""The folder of a library: names, places, settings, and what the manifests in it say.

    library.json           quota
    key, codes             by which the part files are told that were computed here
    contexts/NAME.json     manifests of whole contexts; NAME.used says by its time when it was last used,
                           NAME.asked when it was last opened to be asked, and NAME.over when its time was
                           first found to be over
    unfinished/NAME.json   manifests of contexts that are, or were, being read
    parts/                 the part files of all of them
    incoming/NAME/         the files of a context that is being imported
    tenants/, spool/       a server's: its tenants' own libraries, and uploads that are not read yet
    lock                   held for each change, by one process at a time
    locks/NAME             held by the process that reads or appends to a context

A manifest is read and checked once: what it said is handed on as a `Stored`, and read again only where the
file has changed since. Nothing here needs torch. Called by the rest of `sakuin.library`.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
import unicodedata
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sakuin import arguments
from sakuin.errors import SakuinError
from sakuin.library.codes import FileCodes
from sakuin.quantities import listed, meant
from sakuin.snapshot import manifest as manifests
from sakuin.snapshot.manifest import Manifest, Outline
from sakuin.snapshot.part_files import PartFiles
from sakuin.storage.folders import make_folder, sync_folder
from sakuin.storage.locks import is_locked, locked
from sakuin.storage.small_files import read_json
from sakuin.storage.whole_files import may_be_temporary, unwritable, write_whole

FORMAT = 1
GRACE = 24 * 3600.0
"""Seconds that a context stays after its time was first found to be over: a clock may be wrong for a
while."""
_NAME = re.compile(r"[^\W_][\w.+-]{0,99}")
_EFFECTIVE = os.access in os.supports_effective_ids
_MARKS = ("used", "asked", "over")


def normal(name: str) -> str:
    """`name` as it stands in a library, however whoever gave it spells its letters: in Unicode's form NFC."""
    return unicodedata.normalize("NFC", arguments.text("name", name))


def checked_name(name: str) -> str:
    """`name` as it stands in a library, if a context may be called so."""
    name = normal(name)
    if not _NAME.fullmatch(name) or len(name.encode()) > 200:
        raise SakuinError(
            f"a context cannot be named {name!r}; use letters, digits, '.', '-', '+' and '_', beginning "
            "with a letter or digit, at most 100."
        )
    return name


Mark = tuple[int, int, int]
"""By which a manifest file is told from the one that takes its place: inode, time of the last change in
nanoseconds, bytes."""


@dataclass(frozen=True)
class Stored:
    """A whole context of a library, as its manifest was read. mark : of that file."""

    name: str
    manifest: Manifest
    mark: Mark | None


@dataclass(frozen=True)
class Listed:
    """A context of a library, whole or unfinished. said : by its manifest, or what is wrong with that."""

    name: str
    unfinished: bool
    said: Outline | SakuinError

    @property
    def files(self) -> set[str]:
        """The part files that it needs; of a damaged manifest nobody knows."""
        return set() if isinstance(self.said, SakuinError) else self.said.files


class Folder:
    """Where things are in a library's folder, and reading them. Makes the folder when first needed."""

    def __init__(self, path: Path) -> None:
        self._read: dict[tuple[str, bool], tuple[Mark, Outline]] = {}
        self.path = path
        self.contexts, self.unfinished, self.locks = (path / x for x in ("contexts", "unfinished", "locks"))
        self.incoming = path / "incoming"
        self.lock = path / "lock"
        self.codes = FileCodes(path)
        self.parts = PartFiles(path / "parts", self.codes)

    @property
    def exists(self) -> bool:
        with self._reading():
            return (self.path / "library.json").is_file()

    def make(self) -> None:
        """Make what is missing of the folder; a folder that holds other things is refused."""
        folders = (self.contexts, self.unfinished, self.locks, self.parts.folder, self.incoming)
        if not self.exists:
            make_folder(self.path)
            if odd := self._odd():
                raise SakuinError(
                    f"{self.path} holds other things than a library ({odd}); name a new or an empty folder."
                )
            for folder in folders:
                make_folder(folder)
            sync_folder(self.path)
            if not self.exists:
                self.write_quota(None)
        for folder in folders:  # copies of a library may lack the empty ones
            make_folder(folder)
        with locked(self.lock):
            self.begin()

    def check_writable(self) -> None:
        """Refuse a library that may only be read, before the work for it begins."""
        if self.exists and not os.access(self.contexts, os.W_OK, effective_ids=_EFFECTIVE):
            read_only = os.statvfs(self.contexts).f_flag & os.ST_RDONLY
            why = errno.EROFS if read_only else errno.EACCES
            raise unwritable(self.path, OSError(why, os.strerror(why)))

    def begin(self) -> None:
        """Before the first change: parts of before there was a key are told from what comes now. The caller
        holds the library's lock."""
        if not self.codes.has_key:
            self.codes.begin(self.parts.all())

    def _odd(self) -> str | None:
        """What is in the folder that no library has: one that has lost its library.json may go on."""
        ours = {"contexts", "unfinished", "locks", "parts", "incoming", "lock", "key", "codes"}
        ours |= {"tenants", "spool"}  # a server's
        ours |= {"library.json"}  # somebody else was faster
        with self._reading():
            odd = [name for name in os.listdir(self.path) if name not in ours and not may_be_temporary(name)]
            for folder in (self.contexts, self.unfinished):
                if folder.exists():
                    odd += [
                        f"{folder.name}/{name}"
                        for name in os.listdir(folder)
                        if name.endswith(".json") and not manifests.is_manifest(folder / name)
                    ]
        return odd[0] if odd else None

    def quota(self) -> int | None:
        """Bytes that the library may take on the disk, or None."""
        path = self.path / "library.json"
        try:
            said = read_json(path)
            version, quota = said["format"], said["quota"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SakuinError(
                f"{path} cannot be read ({type(error).__name__}); restore it or remove it."
            ) from None
        if version != FORMAT:
            raise SakuinError(
                f"{path} has the format version {version!r:.40} and this sakuin knows {FORMAT}."
            )
        if quota is not None and (type(quota) is not int or quota < 0):
            raise SakuinError(f"{path} holds the quota {quota!r:.40}, which is no number of bytes.")
        return quota

    def write_quota(self, quota: int | None) -> None:
        write_whole(self.path / "library.json", json.dumps({"format": FORMAT, "quota": quota}).encode())

    def manifest(self, name: str, unfinished: bool = False) -> Path:
        """Where the manifest of a context is, there or not."""
        return (self.unfinished if unfinished else self.contexts) / f"{normal(name)}.json"

    def find(self, name: str, late: bool = False) -> Stored:
        """The manifest of a whole context, which must be there and, unless `late`, not past its time."""
        name = checked_name(name)
        path = self.manifest(name)
        if not path.is_file():
            if self.manifest(name, unfinished=True).is_file():
                raise SakuinError(
                    f"the context {name!r} was not read to its end; `sakuin contexts add {name} … --resume` "
                    "goes on."
                )
            known = self.names()
            there = f"there {'is' if len(known) == 1 else 'are'} {listed(known)}."
            raise SakuinError(
                f"there is no context named {name!r} in {self.path}{meant(name, known)}; "
                + (there if known else "`sakuin contexts add` makes one.")
            )
        mark = _mark_of(path)
        found = manifests.read(path)
        self._note(name, False, mark, found)
        if expired(found) and not late:
            raise SakuinError(
                f"the context {name!r} was kept until {_date(found.kept_until)} and goes a day after that "
                f"was first seen; `sakuin contexts keep {name} --for ever` takes it back."
            )
        return Stored(name, found, mark)

    def newest(self, stored: Stored, late: bool = False) -> Stored:
        """`stored`, or where somebody has changed the context since, what it is now; refused as by `find`."""
        gone = expired(stored.manifest) and not late
        return stored if self.is_newest(stored) and not gone else self.find(stored.name, late)

    def is_newest(self, stored: Stored) -> bool:
        """Whether nobody has changed the context since it was read."""
        return stored.mark is not None and _mark_of(self.manifest(stored.name)) == stored.mark

    def write(self, name: str, manifest: Manifest, unfinished: bool = False) -> Stored:
        """Put a manifest in its place. The caller holds the library's lock."""
        path = self.manifest(name, unfinished)
        write_whole(path, manifest.encode())
        mark = _mark_of(path)
        self._note(name, unfinished, mark, manifest)
        return Stored(name, manifest, mark)

    def names(self, unfinished: bool = False) -> list[str]:
        """Names of the contexts that are there, in order."""
        folder = self.unfinished if unfinished else self.contexts
        with self._reading():
            if not folder.is_dir():
                if self.path.exists() and not self.path.is_dir():
                    raise SakuinError(f"{self.path} is a file, and a folder is needed there; name another.")
                return []
            files = [name for name in os.listdir(folder) if name.endswith(".json") and name[0] != "."]
        return sorted(name.removesuffix(".json") for name in files)

    def listed(self) -> list[Listed]:
        """All contexts, the whole ones first, by name. Only manifests that changed since the last time are
        read."""
        found = []
        for unfinished in (False, True):
            for name in self.names(unfinished):
                try:
                    found.append(Listed(name, unfinished, self._outline(name, unfinished)))
                except SakuinError as error:
                    if self.manifest(name, unfinished).exists():
                        found.append(Listed(name, unfinished, error))
        for gone in set(self._read) - {(one.name, one.unfinished) for one in found}:
            self._read.pop(gone, None)
        return found

    def _outline(self, name: str, unfinished: bool) -> Outline:
        path = self.manifest(name, unfinished)
        mark, known = _mark_of(path), self._read.get((name, unfinished))
        if known is not None and known[0] == mark:
            return known[1]
        return self._note(name, unfinished, mark, manifests.read(path))

    def _note(self, name: str, unfinished: bool, mark: Mark | None, manifest: Manifest) -> Outline:
        outline = manifest.outline
        if mark is not None:
            self._read[name, unfinished] = mark, outline
        return outline

    def used(self, name: str) -> float:
        """When the context was last used (read, asked, appended to, or its beginning taken by another), in
        seconds since 1970."""
        return self._time_of(name, "used")

    def asked(self, name: str) -> float:
        """When the context was last opened to be asked, in seconds since 1970; 0 for never."""
        return self._time_of(name, "asked")

    def is_over(self, name: str, manifest: Manifest | Outline) -> bool:
        """Whether the time of a context has been over for so long that it goes. Notes when that is seen
        first, so that a clock which is set forward and back again removes nothing. The caller holds the
        library's lock."""
        if not expired(manifest):
            self._mark(name, "over").unlink(missing_ok=True)
            return False
        since, now = self._time_of(name, "over"), time.time()
        if not 0 < since <= now:
            self._touch(name, "over", now)
            return False
        return now - since > GRACE

    def touch(self, name: str, asked: bool = False) -> None:
        """Note that the context is used now; where the folder cannot be written, nothing is noted."""
        for mark in ("used", "asked") if asked else ("used",):
            self._touch(name, mark)

    def _touch(self, name: str, mark: str, when: float | None = None) -> None:
        try:
            handle = os.open(self._mark(name, mark), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            os.fchmod(handle, 0o600)
            os.utime(handle, None if when is None else (when, when))
        except OSError:  # another user's
            return
        finally:
            os.close(handle)

    def _mark(self, name: str, mark: str) -> Path:
        return self.contexts / f"{normal(name)}.{mark}"

    def _time_of(self, name: str, mark: str) -> float:
        try:
            return self._mark(name, mark).stat().st_mtime
        except OSError:
            return 0.0

    def working_on(self, name: str) -> AbstractContextManager[None]:
        """Hold the lock of a context, or say that somebody does."""
        name = normal(name)
        busy = f"the context {name!r} is being read or appended to by another process; wait until it is done."
        return locked(self.locks / name, busy)

    def is_being_read(self, name: str) -> bool:
        """Whether a process reads or appends to the context now."""
        path = self.locks / normal(name)
        return path.exists() and is_locked(path)

    def size(self) -> int:
        """Bytes that the library takes."""
        others = [p.stat().st_size for f in (self.contexts, self.unfinished) for p in f.glob("*.json")]
        return sum(self.parts.all().values()) + sum(others)

    def remove(self, name: str, unfinished: bool) -> None:
        """Remove a manifest; its parts stay."""
        path = self.manifest(name, unfinished)
        try:
            path.unlink(missing_ok=True)
            if not unfinished:
                for mark in _MARKS:
                    self._mark(name, mark).unlink(missing_ok=True)
            sync_folder(path.parent)
        except OSError as error:
            raise unwritable(path.parent, error) from error

    def rename(self, name: str, new: str) -> None:
        """Let a context have the name `new`, which is free. Its manifest moves in one step, the times of its
        use before it. The caller holds the library's lock."""
        path, place = self.manifest(name), self.manifest(new)
        try:
            for mark in _MARKS:
                self._mark(new, mark).unlink(missing_ok=True)
                if when := self._time_of(name, mark):
                    self._touch(new, mark, when)
            path.rename(place)
            for mark in _MARKS:
                self._mark(name, mark).unlink(missing_ok=True)
            sync_folder(path.parent)
        except OSError as error:
            raise unwritable(path.parent, error) from error

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Within, what cannot be read is said in a sentence."""
        try:
            yield
        except OSError as error:
            where = error.filename or self.path
            raise SakuinError(
                f"{where} cannot be read ({error.strerror or error}); name a library that you may read."
            ) from None


def expired(manifest: Manifest | Outline) -> bool:
    """Whether the context's time is over; a pinned one's never is."""
    return not manifest.pinned and manifest.kept_until is not None and manifest.kept_until < time.time()


def _mark_of(path: Path) -> Mark | None:
    """None where there is no such file. Whoever changes a manifest puts another file in its place."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _date(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds or 0))
