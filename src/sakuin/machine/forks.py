"""Locks that a forked child can open.

`os.fork` takes the calling thread along and no other. A lock that another thread held at that moment stays
locked in the child for ever: nobody is there to open it. So locks that live as long as a module, a model or a
context are made here, and are open in every child. What they guard may have been half changed; it is what a
pass of another thread was at work on, and no later pass relies on it.

A library may have locks of its own that nobody can open, such as the tokenizers' for their settings. What
calls such a library holds a lock that forks wait for, so that no child is made while a thread is inside.

Called by everything that shares something between threads.
"""

from __future__ import annotations

import os
import threading
import weakref
from operator import methodcaller
from typing import Any

_locks: weakref.WeakSet[Any] = weakref.WeakSet()
_waited_for: list[Any] = []


def lock() -> threading.Lock:
    """A lock that is open in every forked child."""
    made = threading.Lock()
    _locks.add(made)
    return made


def recursive_lock() -> Any:
    """The same, which its holder may take again: a `threading.RLock`."""
    made = threading.RLock()
    _locks.add(made)
    return made


def lock_for_forks() -> Any:
    """A recursive lock that a fork waits for: no child is made while another thread holds it."""
    made = recursive_lock()
    _waited_for.append(made)
    return made


def _close_all() -> None:
    """Before a fork; the same thread may hold them already."""
    for one in _waited_for:
        one.acquire()


def _let_go() -> None:
    """In the parent, after a fork."""
    for one in _waited_for:
        one.release()


def _open_all() -> None:
    reopen = methodcaller("_at_fork_reinit")  # as Python's own modules do
    for one in list(_locks):
        reopen(one)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_all, after_in_parent=_let_go, after_in_child=_open_all)
