"""A child that is forked while a lock is held does not hold it, however long it lives."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sakuin.errors import SakuinError
from sakuin.storage.locks import is_locked, locked


@contextmanager
def _child() -> Iterator[None]:
    """Within, a child lives that was forked here and does nothing."""
    pid = os.fork()
    if not pid:
        signal.pause()
        os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_lock_is_free_when_its_holder_is_done_whatever_children_it_has(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"):
        child = _child()
        child.__enter__()
    try:
        assert not is_locked(tmp_path / "lock")
    finally:
        child.__exit__(None, None, None)


def test_a_child_neither_holds_nor_opens_its_parents_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path):
        pid = os.fork()
        if not pid:
            try:
                # What it leaves here is its parent's.
                refused = is_locked(path)
            finally:
                os._exit(0 if refused else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert is_locked(path)


def test_a_child_that_leaves_the_block_closes_no_file_of_its_own(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        with locked(tmp_path / "lock"):
            pid = os.fork()
            if not pid:
                mine = os.open(os.devnull, os.O_RDONLY)  # takes the number that the lock had
        if not pid:
            try:
                os.fstat(mine)
                with locked(tmp_path / "lock", "busy"):
                    os.write(writer, b"well")
            except (OSError, SakuinError):
                pass
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        os.close(writer)
        assert os.read(reader, 4) == b"well"
    finally:
        os.close(reader)
