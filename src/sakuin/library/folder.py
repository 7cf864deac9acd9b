"""The folder of a library: names, places, settings, and which files are needed.

    library.json           quota
    contexts/NAME.json     manifests of whole contexts; NAME.used says by its time when it was last used, and
                           NAME.asked when it was last opened to be asked
    unfinished/NAME.json   manifests of contexts that are, or were, being read
    parts/                 the part files of all of them
    lock                   held for each change, by one process at a time
    locks/NAME             held by the process that reads or appends to a context

Called by `sakuin.library.library`.
"""

from __future__ import annotations

import json
import os
import re
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from sakuin.errors import SakuinError
from sakuin.snapshot import manifest as manifests
from sakuin.snapshot.manifest import Manifest
from sakuin.snapshot.part_files import PartFiles
from sakuin.storage.folders import make_folder, sync_folder
from sakuin.storage.locks import is_locked
from sakuin.storage.whole_files import write_whole

FORMAT = 1
_NAME = re.compile(r"[^\W_][\w.+-]{0,99}")


def checked_name(name: str) -> str:
    """`name` if a context may be called so."""
    name = unicodedata.normalize("NFC", name)
    if not _NAME.fullmatch(name) or len(name.encode()) > 200:
        raise SakuinError(
            f"a context cannot be named {name!r}; use letters, digits, '.', '-', '+' and '_', beginning "
            "with a letter "
            "or digit, at most 100."
        )
    return name


class Folder:
    """Where things are in a library's folder, and reading them. Makes the folder when first needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.contexts, self.unfinished, self.locks = (path / x for x in ("contexts", "unfinished", "locks"))
        self.lock = path / "lock"
        self.parts = PartFiles(path / "parts")

    @property
    def exists(self) -> bool:
        return (self.path / "library.json").is_file()

    def make(self) -> None:
        """Make what is missing of the folder; a folder that holds other things is refused."""
        if self.exists:
            return
        make_folder(self.path)
        ours = {"contexts", "unfinished", "locks", "parts", "lock", "library.json"}
        odd = [name for name in os.listdir(self.path) if name not in ours and not name.startswith(".new-")]
        if odd:
            raise SakuinError(
                f"{self.path} holds other things than a library ({odd[0]}); name a new or an empty folder."
            )
        for folder in (self.contexts, self.unfinished, self.locks, self.parts.folder):
            make_folder(folder)
        sync_folder(self.path)
        self.write_quota(None)

    def quota(self) -> int | None:
        """Bytes that the library may take on the disk, or None."""
        path = self.path / "library.json"
        try:
            said = json.loads(path.read_bytes())
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
        return (self.unfinished if unfinished else self.contexts) / f"{name}.json"

    def read(self, name: str, late: bool = False) -> Manifest:
        """The manifest of a whole context, which must be there and, unless `late`, not past its time."""
        path = self.manifest(checked_name(name))
        if not path.is_file():
            if self.manifest(name, unfinished=True).is_file():
                raise SakuinError(
                    f"the context {name!r} was not read to its end; `sakuin contexts add {name} … --resume` "
                    "goes on."
                )
            known = ", ".join(self.names()[:8])
            raise SakuinError(
                f"there is no context named {name!r} in {self.path}; "
                + (f"there are {known}." if known else "`sakuin contexts add` makes one.")
            )
        found = manifests.read(path)
        if expired(found) and not late:
            raise SakuinError(
                f"the context {name!r} was kept until {_date(found.kept_until)} and goes with the next "
                f"command that changes the library; `sakuin contexts keep {name} --for ever` takes it back."
            )
        return found

    def names(self, unfinished: bool = False) -> list[str]:
        """Names of the contexts that are there, in order."""
        folder = self.unfinished if unfinished else self.contexts
        if not folder.is_dir():
            return []
        return sorted(path.stem for path in folder.glob("*.json") if not path.name.startswith("."))

    def manifests(self) -> Iterator[tuple[str, bool, Manifest | SakuinError]]:
        """Name, whether it is unfinished, and manifest or what is wrong with it, of all that are there."""
        for unfinished in (False, True):
            for name in self.names(unfinished):
                try:
                    yield name, unfinished, manifests.read(self.manifest(name, unfinished))
                except SakuinError as error:
                    if self.manifest(name, unfinished).exists():
                        yield name, unfinished, error

    def used(self, name: str) -> float:
        """When the context was last used (read, asked, appended to, or its beginning taken by another), in
        seconds since 1970."""
        return _time_of(self.contexts / f"{name}.used")

    def asked(self, name: str) -> float:
        """When the context was last opened to be asked, in seconds since 1970; 0 for never."""
        return _time_of(self.contexts / f"{name}.asked")

    def touch(self, name: str, asked: bool = False) -> None:
        """Note that the context is used now; where the folder cannot be written, nothing is noted."""
        for mark in ("used", "asked") if asked else ("used",):
            path = self.contexts / f"{name}.{mark}"
            try:
                handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            except OSError:
                return
            try:
                os.utime(handle)
            finally:
                os.close(handle)

    def is_being_read(self, name: str) -> bool:
        """Whether a process reads or appends to the context now."""
        path = self.locks / name
        return path.exists() and is_locked(path)

    def size(self) -> int:
        """Bytes that the library takes."""
        others = [p.stat().st_size for f in (self.contexts, self.unfinished) for p in f.glob("*.json")]
        return sum(self.parts.all().values()) + sum(others)

    def remove(self, name: str, unfinished: bool) -> None:
        """Remove a manifest; its parts stay."""
        path = self.manifest(name, unfinished)
        path.unlink(missing_ok=True)
        if not unfinished:
            for mark in ("used", "asked"):
                (self.contexts / f"{name}.{mark}").unlink(missing_ok=True)
        sync_folder(path.parent)


def expired(manifest: Manifest) -> bool:
    """Whether the context's time is over; a pinned one's never is."""
    return not manifest.pinned and manifest.kept_until is not None and manifest.kept_until < time.time()


def _time_of(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _date(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds or 0))
