"""A command in a real terminal: a pseudo terminal of the standard library, keys typed, what is shown read."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CODES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[=>]|\x1b\][^\x07]*\x07")
CTRL_C, CTRL_D, ENTER, ALT_ENTER, UP, LEFT = "\x03", "\x04", "\r", "\x1b\r", "\x1b[A", "\x1b[D"


class Terminal:
    """shown : all that came so far, without the codes that move the cursor."""

    def __init__(self, handle: int, child: int) -> None:
        self._handle, self._child = handle, child
        self.raw = ""
        self.code: int | None = None

    @property
    def shown(self) -> str:
        return _CODES.sub("", self.raw)

    def type(self, keys: str) -> None:
        os.write(self._handle, keys.encode())

    def wait(self, text: str, after: int = 0, seconds: float = 120) -> int:
        """Until `text` is shown after that many characters; where it ends."""
        until = time.monotonic() + seconds
        while (at := self.shown.find(text, after)) < 0:
            if not self._read(until - time.monotonic()):
                raise AssertionError(f"{text!r} did not come after {after}: {self.shown[after:]!r}")
        return at + len(text)

    def more(self, characters: int, after: int, seconds: float = 120) -> int:
        """Until so many characters are shown after the first `after`; where they end."""
        until = time.monotonic() + seconds
        while len(self.shown) < after + characters:
            if not self._read(until - time.monotonic()):
                raise AssertionError(f"no more came after {after}: {self.shown[after:]!r}")
        return len(self.shown)

    def end(self, seconds: float = 120) -> int:
        """Until the command has ended: its exit code."""
        until = time.monotonic() + seconds
        while self._read(until - time.monotonic()):
            pass
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        return self.code

    def _read(self, seconds: float) -> bool:
        if seconds <= 0 or not select.select([self._handle], [], [], seconds)[0]:
            return False
        try:
            got = os.read(self._handle, 1 << 16)
        except OSError:  # the other end is closed
            return False
        self.raw += got.decode("utf-8", "replace")
        return bool(got)


@contextmanager
def terminal(*words: str, script: str | None = None, **environment: str) -> Iterator[Terminal]:
    """`sakuin` with these words in a terminal of 100 columns; ended when the block is left. script : Python
    to run in place of `-m sakuin`."""
    start = ["-m", "sakuin"] if script is None else ["-c", script]
    child, handle = pty.fork()
    if child == 0:
        settings = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": "1", **environment}
        os.execve(sys.executable, [sys.executable, *start, *words], settings)
    fcntl.ioctl(handle, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    one = Terminal(handle, child)
    try:
        yield one
    finally:
        if one.code is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(handle)


def mode_of(path: Path) -> int:
    """The permissions of a file."""
    return path.stat().st_mode & 0o777
