"""Small files of our own, read so that whatever lies in their place is one of two errors.

What is kept in the cache folder and beside a library may be damaged, or somebody else's: a pipe that nobody
writes into, a file without end, JSON nested so deeply that Python gives up. Whoever reads such a file expects
an `OSError` where it cannot be read and a `ValueError` where it holds something else, and nothing more.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

MOST = 1 << 24
"""Bytes of such a file."""


def read_small(path: Path, most: int = MOST) -> bytes:
    """The bytes of a regular file; an `OSError` where it is none, or has more than `most`."""
    # A pipe must not be waited for.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if about.st_size > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read(most)


def read_json(path: Path) -> Any:
    """The JSON value in a file; a `ValueError` where there is none."""
    try:
        return json.loads(read_small(path))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
