"""What was uploaded and is not read yet, in files: it is there whatever happens to the server.

    spool/lock                      held while folders are made, or taken from a server that is gone
    spool/OWNER/lock                held by the server that has this folder, as long as it lives
    spool/OWNER/JOB/0, 1, …         what was uploaded, as it came
    spool/OWNER/JOB/record.json     what is to be done with it; written last, when all else is on the disk

A folder without a record was never acknowledged and is removed at the next start; one with a record is
taken over. Called by `sakuin.server.contexts.readings` and `upload`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import TypeAdapter, ValidationError

from sakuin.errors import SakuinError
from sakuin.server.problems import Problem
from sakuin.storage.folders import free_bytes, make_folder, sync_folder
from sakuin.storage.locks import locked
from sakuin.storage.small_files import read_small
from sakuin.storage.whole_files import write_whole

log = logging.getLogger("sakuin.server.contexts")

_RECORD = "record.json"
_SPARE = 64 << 20
"""Bytes of the disk that uploads leave free: what is stored already must go on."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Spooled:
    """A document as it came. file : its name in the folder. name : as who uploaded it calls it. is_text :
    whether it came as text, in UTF-8, and is to be read as it is."""

    file: str
    name: str
    size: int
    is_text: bool = False


@dataclass(frozen=True)
class Wish:
    """What is to be done. Fields as of `Library.add` and `append`.

    tenant : by name. context_tokens, priority : of the tenant, as they were when it asked. created : in
    seconds since 1970. before : characters of the context when the append was begun. error : why it failed.
    """

    kind: Literal["add", "append"]
    tenant: str
    name: str
    files: tuple[Spooled, ...]
    created: float
    system: str | None = None
    pinned: bool = False
    keep_for: float | None = None
    replace: bool = False
    encoding: str | None = None
    context_tokens: int | None = None
    priority: int = 0
    before: int | None = None
    error: dict[str, Any] | None = None

    @property
    def size(self) -> int:
        """Bytes of what was uploaded."""
        return sum(one.size for one in self.files)


_WISH: TypeAdapter[Wish] = TypeAdapter(Wish)


def disk_full() -> Problem:
    """No room for what is uploaded."""
    return Problem(
        507,
        "The server's disk is full, and nothing was kept: ask who runs it to free some, then try again.",
        code="disk_full",
    )


class Place:
    """A folder for one upload."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def writing(self, file: str) -> Iterator[BinaryIO]:
        """A new file of the folder, on the disk at the end."""
        handle = os.open(self.folder / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with kept_whole(), os.fdopen(handle, "wb") as opened:
            yield opened
            opened.flush()
            os.fsync(handle)

    def check_room(self, size: int) -> None:
        """Raise `Problem` where so many bytes more would fill the disk."""
        if free_bytes(self.folder) < size + _SPARE:
            raise disk_full()

    def bytes_of(self, one: Spooled) -> bytes:
        return (self.folder / one.file).read_bytes()

    def record(self, wish: Wish) -> None:
        """When this returns, the upload is done whatever happens to the server."""
        with kept_whole():
            sync_folder(self.folder)
            write_whole(self.folder / _RECORD, _WISH.dump_json(wish))
            sync_folder(self.folder.parent)

    def fail(self, wish: Wish, error: dict[str, Any]) -> Wish:
        """Keep nothing but why it failed."""
        failed = replace(wish, error=error, files=())
        write_whole(self.folder / _RECORD, _WISH.dump_json(failed))
        for one in wish.files:
            (self.folder / one.file).unlink(missing_ok=True)
        return failed

    def recorded(self) -> Wish | None:
        """What is to be done; None where it was never acknowledged. Raises `SakuinError` where the record is
        damaged."""
        path = self.folder / _RECORD
        if not path.exists():
            return None
        try:
            return _WISH.validate_json(read_small(path, 1 << 28))
        except (OSError, ValidationError) as error:
            raise SakuinError(f"{path} is damaged ({type(error).__name__}); upload again.") from None

    def remove(self) -> None:
        """Forget it, first so that it is not done again."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / _RECORD).unlink(missing_ok=True)
            sync_folder(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)


class Spool:
    """The uploads below `path`, a folder that is made when first needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held = ExitStack()
        self._own: Path | None = None
        self._making = threading.Lock()

    def new(self) -> Place:
        """A folder for an upload that comes."""
        own = self._folder()
        place = Place(own / secrets.token_hex(8))
        with kept_whole():
            place.folder.mkdir(mode=0o700)
        return place

    def taken(self) -> list[tuple[Place, Wish]]:
        """What servers that are gone have left, to be done by this one, the oldest first."""
        if not self.path.is_dir():
            return []
        own, found = self._folder(), []
        with locked(self.path / "lock"):
            for folder in [path for path in self.path.iterdir() if path.is_dir() and path != own]:
                try:
                    with locked(folder / "lock", "a server has it"):
                        found += [self._adopted(path, own) for path in folder.iterdir() if path.is_dir()]
                        shutil.rmtree(folder, ignore_errors=True)
                except SakuinError:
                    continue
            sync_folder(own)
        wishes = [one for one in found if one is not None]
        return sorted(wishes, key=lambda one: one[1].created)

    def close(self) -> None:
        """Let another server have what is left."""
        self._held.close()
        self._own = None

    def _folder(self) -> Path:
        with self._making:
            if self._own is None:
                make_folder(self.path)
                with locked(self.path / "lock"), kept_whole():
                    own = self.path / secrets.token_hex(8)
                    own.mkdir(mode=0o700)
                    self._held.enter_context(locked(own / "lock", "a server has it"))
                    sync_folder(self.path)
                self._own = own
            return self._own

    @staticmethod
    def _adopted(path: Path, own: Path) -> tuple[Place, Wish] | None:
        try:
            wish = Place(path).recorded()
        except SakuinError:
            # Somebody's document may be in it, so that it stays for whoever can tell.
            log.error("a record of an upload is damaged, and the upload is not read: %s", path)
            path.rename(own / path.name)
            return None
        if wish is None:
            shutil.rmtree(path, ignore_errors=True)
            return None
        path.rename(own / path.name)
        return Place(own / path.name), wish


@contextmanager
def kept_whole() -> Iterator[None]:
    """Within, a full disk is said in a sentence."""
    try:
        yield
    except (OSError, SakuinError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError) and cause.errno in _FULL:
            raise disk_full() from None
        raise
