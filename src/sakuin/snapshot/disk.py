"""Files that are whole or not there: written under a temporary name, synced, renamed, the folder synced; and
locks between processes.

Called by the rest of `sakuin.snapshot` and by `sakuin.library`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sakuin.errors import SakuinError

TEMPORARY = ".new-"
"""Names of files that are being written begin so; those of a process that was killed stay until `gc`."""


@contextmanager
def new_file(folder: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A new file of mode 0600 in `folder` under a temporary name. `publish` gives it another; what has none
    at the end is removed."""
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=folder)
    path = Path(name)
    try:
        with os.fdopen(handle, "wb", buffering=1 << 20) as file:
            yield file, path
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SakuinError(
                f"the disk that holds {folder} is full; nothing was changed. Free some space and try again."
            ) from error
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def publish(file: IO[bytes], path: Path, target: Path) -> None:
    """Give what was written at `path` the name `target`, in the same folder, once it is on the disk."""
    file.flush()
    os.fsync(file.fileno())
    path.rename(target)
    sync_folder(target.parent)


def write_whole(target: Path, data: bytes) -> None:
    """Put `data` at `target`: what was there stays until all of it is on the disk."""
    with new_file(target.parent) as (file, path):
        file.write(data)
        publish(file, path, target)


def sync_folder(folder: Path) -> None:
    """Return when the folder's names are on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make `folder` and what is above it, for this user only; a `SakuinError` where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (FileExistsError, NotADirectoryError):
        raise SakuinError(f"{folder} is a file, and a folder is needed there; name another.") from None
    except OSError as error:
        raise SakuinError(
            f"the folder {folder} cannot be made ({error.strerror or error}); name another."
        ) from None


@contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold the lock at `path`, which no other process or thread holds meanwhile.

    busy : what to say, as a `SakuinError`, where somebody else holds it; None waits. The system gives the
    lock back however the process ends.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise SakuinError(busy or "") from None
        yield
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock at `path`."""
    try:
        with locked(path, "busy"):
            return False
    except SakuinError:
        return True


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write to the disk that holds `folder`."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize
