"""Locks between processes, given back by the system however a process ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sakuin.errors import SakuinError
from sakuin.storage.whole_files import unwritable

_TRIES, _PAUSE = 4, 0.02
"""Who asks whether a lock is held holds it for a moment, which must not look as if it were."""


@contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold the lock at `path`, which no other process or thread holds meanwhile.

    busy : what to say, as a `SakuinError`, where somebody else holds it; None waits. The system gives the
    lock back however the process ends.

    Raises `SakuinError` where the folder cannot be written: who holds a lock wants to change something.
    """
    handle = _opened(path)
    try:
        for again in reversed(range(_TRIES)):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
                break
            except BlockingIOError:
                if not again:
                    raise SakuinError(busy or "") from None
            time.sleep(_PAUSE)
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


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        try:
            handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(path, flags | os.O_CREAT, 0o600)
        os.fchmod(handle, 0o600)  # whatever the umask
        return handle
    except OSError as error:
        raise unwritable(path.parent, error) from error
