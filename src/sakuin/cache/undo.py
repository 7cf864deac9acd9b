"""The undo log of a cache: a pass is whole, or it did not happen.

A pass goes through many layers and may end between any two of them: refused, out of memory, interrupted. So
who is about to change notes here first how things are. A pass that is whole is committed by one assignment;
of any other all that was noted goes back to what it was, at once or before the cache is used again. Going
back may be interrupted too, and is then done again.

What is noted is references and counts, never copies of tokens: what grows does so behind what is held, or in
memory of its own. The memory that a pass has left is freed when the pass is whole.

Used by `sakuin.cache.layer` and by the caches of backends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

LOST = (
    "an earlier pass through this cache was stopped on its way, and what it had changed could not be taken "
    "back: go on with a fork that was made before that pass, or call reset() and read all tokens again"
)

GoBack = Callable[[], None]
"""Puts back what it knows; may be called more than once."""


class Noted(Protocol):
    """What can go back to how it was."""

    def restorer(self) -> GoBack:
        """A function that puts back what is held now."""


@dataclass
class Pass:
    """A pass of one cache or of several at once: whole from the moment on at which all has been changed."""

    whole: bool = False


class UndoLog:
    """What the running pass has touched of one cache, and how that was before.

    keeps : whether to note it. Who throws a cache away when a pass fails has no use for it, and it would hold
        memory; such a cache is lost then, and says so.
    lost : whether a pass was stopped that could not be taken back.
    """

    def __init__(self) -> None:
        self.keeps = True
        self.lost = False
        self._before: dict[Any, GoBack | None] = {}
        self._running = Pass(whole=True)  # none has begun

    @property
    def open(self) -> bool:
        """Whether a pass has changed something and is not whole."""
        return bool(self._before) and not self._running.whole

    @property
    def whole(self) -> bool:
        """Whether the last pass that began is whole."""
        return self._running.whole

    def begin(self, running: Pass | None = None) -> None:
        """A pass begins; what is left of another is settled first. running : the pass, where several caches
        share it."""
        self.settle()
        self._running = Pass() if running is None else running

    def note(self, holder: Noted) -> None:
        """`holder` is about to be changed. Outside of passes nothing is noted."""
        if holder not in self._before and not self._running.whole:
            self._before[holder] = holder.restorer() if self.keeps else None

    def add(self, key: Any, back: GoBack | None) -> None:
        """As `note`, of what has no `restorer`; None is for what cannot go back."""
        if key not in self._before and not self._running.whole:
            self._before[key] = back if self.keeps else None

    @contextmanager
    def at_once(self, holders: Iterable[Noted]) -> Iterator[None]:
        """Within, all `holders` are changed, or none is. What is left of a pass is settled first."""
        self.begin()
        try:
            for holder in holders:
                self.note(holder)
            yield
        except BaseException:
            self.roll_back()
            raise
        self.commit()

    def commit(self) -> None:
        """The pass is whole."""
        self._running.whole = True
        self._before = {}

    def settle(self) -> None:
        """Take back a pass that was begun and is not whole. Raises `RuntimeError` where the cache is lost."""
        if self._before:
            if not self._running.whole:
                self._go_back()
            self._before = {}
        if self.lost:
            raise RuntimeError(LOST)

    def roll_back(self) -> None:
        """As `settle`, while another error is raised."""
        if self._before and not self._running.whole:
            self._go_back()
        self._before = {}

    def forget(self) -> None:
        """All tokens are gone, and with them what could be taken back."""
        self._running = Pass(whole=True)
        self._before, self.lost = {}, False

    def _go_back(self) -> None:
        for back in list(self._before.values()):
            if back is None:
                self.lost = True
            else:
                back()
