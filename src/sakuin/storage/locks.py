"""Locks between processes, given back by the system however a process ends."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sakuin.errors import SakuinError
from sakuin.storage.whole_files import unwritable

_TRIES, _PAUSE = 4, 0.02
"""Who asks whether a lock is held holds it for a moment, which must not look as if it were."""


_opening = threading.RLock()
"""Held where a lock's file is opened: a fork waits for it."""
_held: set[_Handle] = set()


class _Handle:
    """An open file of a lock. number : None in a child that was forked meanwhile, which holds no lock."""

    def __init__(self, path: Path) -> None:
        with _opening:
            self.number: int | None = _opened(path)
            _held.add(self)

    def close(self) -> None:
        with _opening:
            _held.discard(self)
            number, self.number = self.number, None
            if number is not None:
                os.close(number)


def _let_go_in_child() -> None:
    """A child has its parent's open files, and with them would hold its locks for as long as it lives."""
    for handle in list(_held):
        handle.close()
    _opening.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_let_go_in_child
    )


@contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold the lock at `path`, which no other process or thread holds meanwhile.

    busy : what to say, as a `SakuinError`, where somebody else holds it; None waits. The system gives the
    lock back however the process ends. A child that is forked meanwhile does not hold it.

    Raises `SakuinError` where the folder cannot be written: who holds a lock wants to change something.
    """
    handle = _Handle(path)
    try:
        for again in reversed(range(_TRIES)):
            try:
                assert handle.number is not None
                fcntl.flock(handle.number, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
                break
            except BlockingIOError:
                if not again:
                    raise SakuinError(busy or "") from None
            time.sleep(_PAUSE)
        yield
    finally:
        handle.close()


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
