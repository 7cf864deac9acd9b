"""Ctrl-C at any line of sakuin's code."""

from __future__ import annotations

import dis
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import sakuin

_ROOMS = Path(sakuin.__file__).parent


@contextmanager
def interrupt_at(line: int, *rooms: str) -> Iterator[list[int]]:
    """Within, a KeyboardInterrupt comes before the `line`th line that this thread runs in these rooms of
    sakuin. Yields a list of one number: the lines that were run so far."""
    folders = tuple(str(_ROOMS / room) for room in rooms)
    count, wanted = [0], [False]

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        return step if frame.f_code.co_filename.startswith(folders) else None

    def step(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            count[0] += 1
            wanted[0] |= count[0] == line
            if wanted[0] and not _leaves_a_with(frame):
                wanted[0] = False
                raise KeyboardInterrupt
        return step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield count
    finally:
        sys.settrace(before)


def _leaves_a_with(frame: FrameType) -> bool:
    """Whether the line is that of a `with` which is being left. Python looks for signals after calls and when
    it jumps back, never there, so that `__exit__` is always called."""
    at, code = frame.f_lasti, frame.f_code.co_code
    names = [dis.opname[code[i]] for i in range(at, min(at + 6, len(code)), 2)]
    return names[:2] == ["PUSH_EXC_INFO", "WITH_EXCEPT_START"] or (
        names == ["LOAD_CONST"] * 3 and all(frame.f_code.co_consts[code[at + i]] is None for i in (1, 3, 5))
    )


def some_lines(run: Callable[[], Any], rooms: tuple[str, ...], n: int, seed: int = 0) -> list[int]:
    """Numbers of n of the lines that `run` runs in these rooms; all of them where there are fewer."""
    with interrupt_at(-1, *rooms) as count:
        run()
    lines = range(1, count[0] + 1)
    return list(lines) if n >= len(lines) else sorted(random.Random(seed).sample(lines, n))


def interrupted(run: Callable[[], Any], line: int, rooms: tuple[str, ...]) -> None:
    """Run until the interrupt comes."""
    with suppress(KeyboardInterrupt), interrupt_at(line, *rooms):
        run()
