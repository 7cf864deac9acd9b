"""Files that are whole or not there: written under a temporary name, synced, renamed, the folder synced.

Called by `sakuin.snapshot` and `sakuin.library`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sakuin.errors import SakuinError
from sakuin.storage.folders import sync_folder

_TEMPORARY = re.compile(r"\.sakuin-[0-9a-f]{32}\.new")
_FORMER = re.compile(r"\.new-[a-z0-9_]{8}")


def is_temporary(name: str) -> bool:
    """Whether a file of this name is being written; those of a process that was killed stay until somebody
    sweeps. The name has 128 random bits, so that no file of a user's has it."""
    return _TEMPORARY.fullmatch(name) is not None


def may_be_temporary(name: str) -> bool:
    """As `is_temporary`, or a name as earlier releases gave them. A user's file may be called so too, so
    it is left alone."""
    return is_temporary(name) or _FORMER.fullmatch(name) is not None


@contextmanager
def new_file(folder: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A new file of mode 0600 in `folder` under a temporary name. `publish` gives it another; what has none
    at the end is removed.

    Raises `SakuinError` where the folder cannot be written or its disk is full.
    """
    path = folder / f".sakuin-{secrets.token_hex(16)}.new"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        with os.fdopen(handle, "wb", buffering=1 << 20) as file:
            os.fchmod(handle, 0o600)  # whatever the umask
            yield file, path
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise unwritable(folder, error) from error
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def settle(file: IO[bytes]) -> None:
    """Return when what was written is on the disk, the file closed."""
    file.flush()
    os.fsync(file.fileno())
    file.close()


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


def unwritable(folder: Path, error: OSError) -> SakuinError:
    """Why nothing can be written into `folder`, in a sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SakuinError(
            f"the disk that holds {folder} is full; nothing was changed. Free some space and try again."
        )
    if error.errno == errno.EFBIG:
        return SakuinError(
            f"a file in {folder} would be larger than its file system or this shell's limit (`ulimit -f`) "
            "allows; nothing was changed. Raise the limit, or name a folder on another disk."
        )
    return SakuinError(
        f"{folder} cannot be written ({error.strerror or error}): what is there can be read, but not "
        "changed; make it writable, or name another folder."
    )
