"""Locks between processes, given back by the system however a process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sakuin.errors import SakuinError


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
