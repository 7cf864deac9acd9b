"""Whether a part file was written to since it was made, without reading it.

The hash in a file's name says what was written. Its time says whether that is still there: the nanoseconds of
the last change are set to digits of the hash, and whoever writes to the file sets them to something else. A
file whose time does not fit may be whole, as a copy is; it is read once, and marked.

Called by `sakuin.snapshot.part_files`.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_SECOND = 10**9


def mark(path: Path, sha256: str, before: os.stat_result | None = None) -> None:
    """Note that the file is what this hash says; not where it is another than it was `before`. Where times
    cannot be set nothing is noted, and the file will be read again."""
    with contextlib.suppress(OSError):
        now = path.stat()
        if before is None or _state(before) == _state(now):
            last = now.st_mtime_ns // _SECOND * _SECOND + _digits(sha256)
            os.utime(path, ns=(now.st_atime_ns, last))


def is_marked(stat: os.stat_result, sha256: str) -> bool:
    """Whether nobody has written to the file since it was marked."""
    return stat.st_mtime_ns % _SECOND == _digits(sha256)


def _digits(sha256: str) -> int:
    return int(sha256[:16], 16) % _SECOND


def _state(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
