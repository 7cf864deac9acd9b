"""A file that grows, as `tail -F` sees it: by its name, through rotation, truncation and removal.

A thread reads what is written while the model is busy, so that nothing is lost between two looks. What was
written into one file is a *generation*: another begins where the name leads to a new file, or the file was
truncated or written anew. The old file is read to its end first: whoever writes goes on with it for a while.
Called by `sakuin.cli.contexts.append`.
"""

from __future__ import annotations

import codecs
import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from sakuin.documents import Document
from sakuin.documents.reading import parsed
from sakuin.documents.text import by_mark
from sakuin.errors import SakuinError
from sakuin.storage.paths import named, resolved

PAUSE, LONGEST = 0.5, 5.0
"""A followed file is read when it has not changed for so many seconds, or for so many it has not paused."""
_LOOK = 0.1
_STEP = 1 << 20
_SEEN = 4096
"""Bytes before the end of what was read that are compared to see whether the file was written anew."""
_SAME = 1024
"""A new file that begins with so much of the old one, and with all of it, is the same text (editors save by
writing a new file); with less it may be the usual first lines of a log."""

_BAD = "\N{REPLACEMENT CHARACTER}"
_MOST_BAD = 0.02
"""Share of characters that may be no text in what a log begins with."""


NEW, CUT, ANEW = "is a new file", "was cut short and begins again", "was written anew"
"""How a generation came to be, as a sentence of the file goes on."""


@dataclass
class Generation:
    """What was written into one file. path : the file's, resolved. how : it came to be, of the three ways.
    closed : nothing more comes."""

    path: str
    how: str = NEW
    data: bytearray = field(default_factory=bytearray)
    closed: bool = False


class Watched:
    """The generations of a file, read by a thread from `start` to `stop`.

    tell : is given a sentence where the file is missing or cannot be read, or its name is a folder's or a
    pipe's, once each time. It is waited for then; but what is no file from the start is a mistake.
    """

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self.path, self._tell = path, tell
        self.generations: list[Generation] = []
        self.error: SakuinError | None = None
        self._handle: int | None = None
        self._told = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sakuin-follow", daemon=True)
        self._looked = False
        self.look()  # what is wrong with the path is raised here
        self._looked = True
        if self.error is not None:
            raise self.error

    def start(self) -> None:
        """Look from now on, until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """End looking."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._close()

    @property
    def size(self) -> tuple[int, int]:
        """How many generations there are, and bytes in the last: what changes when something is written."""
        return len(self.generations), len(self.generations[-1].data) if self.generations else 0

    def _run(self) -> None:
        while self.error is None and not self._stop.wait(_LOOK):
            self.look()

    def look(self) -> None:
        """Read what is new; see whether the name leads to another file."""
        try:
            if self._handle is not None:
                self._read()
            self._follow_name()
        except OSError as error:
            if why := _why_waiting(error):
                self._say(f"{self.path} {why}; waiting for it")
            else:
                self.error = SakuinError(f"{self.path} cannot be followed: {error.strerror or error}.")
        except (ValueError, MemoryError) as error:
            self.error = SakuinError(f"{self.path} cannot be followed: {error}.")

    def _follow_name(self) -> None:
        # A pipe is not opened: whoever writes to it would take this for its reader.
        handle, about = -1, os.stat(self.path)
        if stat.S_ISREG(about.st_mode):
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            if handle >= 0:
                os.close(handle)
            if not self._looked:
                self.error = SakuinError(
                    f"{self.path} cannot be followed: it is no regular file; name a file."
                )
                return
            self._say(f"{self.path} is {_called(about.st_mode)} now; waiting for a file")
            return
        if self._handle is None or not os.path.samestat(about, os.fstat(self._handle)):
            # The new file stays empty while whoever writes has not opened it: till then the old one grows.
            if self._handle is not None and not about.st_size:
                os.close(handle)
                return
            if self._handle is not None:
                self._read()  # once more: what was written until the new file was
            self._close()
            self._handle, self._told = handle, ""
            self._begin()
            self._read()
        else:
            os.close(handle)
            self._told = ""

    def _begin(self, how: str = NEW) -> None:
        if self.generations:
            self.generations[-1].closed = True
        self.generations.append(Generation(resolved(self.path), how))

    def _read(self) -> None:
        """Take what is new in the open file."""
        assert self._handle is not None
        if how := self._begun_again():
            self._begin(how)
        data = self.generations[-1].data
        while piece := os.pread(self._handle, _STEP, len(data)):
            data += piece

    def _begun_again(self) -> str:
        """Whether the open file holds something else than what was read of it: how that came to be, or ""."""
        assert self._handle is not None
        data = self.generations[-1].data
        if not data:
            return ""
        if os.fstat(self._handle).st_size < len(data):
            return CUT
        start = max(0, len(data) - _SEEN)
        return "" if os.pread(self._handle, len(data) - start, start) == data[start:] else ANEW

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _say(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._tell(text)


def _why_waiting(error: OSError) -> str:
    """Of a file that may come, why it cannot be read now; "" of any other error."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "is not there"
    return "may not be read by this user" if isinstance(error, PermissionError) else ""


def _called(mode: int) -> str:
    return "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "no regular file"


Grow = Callable[[Document, str], None]
"""Given the whole text of a generation so far; and where it is not the one before that goes on, how it came
to be (`NEW`, `CUT` or `ANEW`), else ""."""


class Follower:
    """Hands what a followed file holds to `grow`, piece by piece."""

    def __init__(
        self, watched: Watched, encoding: str | None, grow: Grow, tell: Callable[[str], None]
    ) -> None:
        self._watched, self._encoding, self._grow, self._tell = watched, encoding, grow, tell
        self._at = 0  # of the generation that is being read
        self._before: Generation | None = None
        self._handed = 0  # characters of this generation's text
        self._noted: set[str] = set()
        self._started = False

    def run(self) -> None:
        """Until Ctrl-C, hand on what is new when the file has been quiet for a moment, and where it never is,
        its whole lines every few seconds."""
        watched = self._watched
        seen = self._take(quiet=True)
        self._tell(f"following {watched.path}; Ctrl-C ends it")
        watched.start()
        with suppress(KeyboardInterrupt):
            while watched.error is None:
                time.sleep(PAUSE)
                size, since = watched.size, time.monotonic()
                if size == seen:
                    continue
                while True:
                    time.sleep(PAUSE)
                    before, size = size, watched.size
                    quiet = size == before
                    if quiet or time.monotonic() - since >= LONGEST:
                        break
                seen = self._take(quiet)
        if watched.error is not None:
            raise watched.error

    def _take(self, quiet: bool) -> tuple[int, int]:
        """Hand on what is new; how much of it there was."""
        size = self._watched.size
        while self._at < len(self._watched.generations):
            now = self._watched.generations[self._at]
            closed = now.closed
            data = bytes(now.data)
            self._hand_on(now, data, closed, quiet)
            if not closed:
                break
            if self._handed:
                self._before = replace(now, data=bytearray(data))
            self._at, self._handed = self._at + 1, 0
            now.data.clear()  # nobody reads it again
        return size if quiet else (-1, -1)

    def _hand_on(self, now: Generation, data: bytes, closed: bool, quiet: bool) -> None:
        document = self._document(now, data if closed else _whole_letters(data, self._encoding))
        if document is None:
            return
        if self._handed and not (closed or quiet):
            whole = document.text.rfind("\n") + 1
            marks = tuple(mark for mark in document.marks if mark.start <= whole)
            document = replace(document, text=document.text[:whole], marks=marks)
        if len(document.text) <= self._handed:
            return
        before = self._before
        goes_on = before is not None and len(before.data) >= _SAME and data.startswith(before.data)
        self._grow(document, "" if before is None or goes_on else now.how)
        self._before, self._handed, self._started = None, len(document.text), True

    def _document(self, now: Generation, data: bytes) -> Document | None:
        """The text of a generation so far; None where there is none yet."""
        if not data.strip():
            return None
        name = named(self._watched.path)
        try:
            document = parsed(data, name, self._encoding, now.path)
        except SakuinError:
            # What is no text from the start is a mistake; a log that is being followed goes on.
            text = data.decode(_encoding_of(data, self._encoding), "replace").removeprefix("\ufeff")
            bad = text.count(_BAD) + text.count("\0")
            if not self._started and bad > _MOST_BAD * len(text):
                raise
            text = text.replace("\0", "")
            if not text.strip():
                return None
            note = f"{name} holds bytes that are no text; they were left out, or replaced by {_BAD}."
            document = Document(name, text, notes=(note,), path=now.path)
        for note in document.notes:
            if note not in self._noted:
                self._noted.add(note)
                self._tell(note)
        return document


def _encoding_of(data: bytes, encoding: str | None) -> str:
    return by_mark(data) or ("utf-8" if encoding in (None, "auto") else str(encoding))


def _whole_letters(data: bytes, encoding: str | None) -> bytes:
    """`data` without the first bytes of a letter at its end, whose others are still to come."""
    try:
        decoder = codecs.getincrementaldecoder(_encoding_of(data, encoding))("replace")
        decoder.decode(data)
        waiting = decoder.getstate()[0]
    except (LookupError, UnicodeError):
        return data
    return data[: len(data) - len(waiting)]
