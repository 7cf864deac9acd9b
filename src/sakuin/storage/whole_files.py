"""Files that are whole or not there: written under a temporary name, synced, renamed, the folder synced.

Called by `sakuin.snapshot` and `sakuin.library`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sakuin.errors import SakuinError
from sakuin.storage.folders import sync_folder

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
