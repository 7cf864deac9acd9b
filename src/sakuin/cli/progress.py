"""How far reading has come, as bars on standard error. A bar itself is `sakuin.cli.show.bar`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sakuin.cli.show import bar

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from sakuin.context.context import Progress

_PHASES = {"prefill": "reading", "index": "building the index"}


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """What a context tells of its reading, as bars."""
    from rich.progress import TextColumn

    with bar(TextColumn("{task.fields[speed]}")) as shown:
        yield _Steps(shown)


class _Steps:
    """The progress of a context, as a bar: one task for each phase."""

    def __init__(self, shown: Bar) -> None:
        self._shown = shown
        self._tasks: dict[str, Any] = {}

    def __call__(self, done: int, total: int, phase: str) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._shown.add_task(_PHASES[phase], total=total, speed="")
        task = self._tasks[phase]
        speed = ""
        if phase == "prefill" and done and (elapsed := self._shown.tasks[task].elapsed):
            speed = f"{done / elapsed:,.0f} tokens/s"
        self._shown.update(task, completed=done, total=total, speed=speed)
