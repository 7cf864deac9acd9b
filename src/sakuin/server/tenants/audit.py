"""What is written down of who asked which context when: a line of JSON for each, in a file that only grows.

What was asked is written only where that was asked for. A line is one write to the end of the file, so that
lines of several threads and processes never run into each other. Lines are with the system when `write`
returns, not yet on the disk. A file that is moved away, as logrotate does, is begun anew. Called by the
routes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sakuin import arguments
from sakuin.errors import SakuinError
from sakuin.server.tenants.tenant import Tenant
from sakuin.storage.paths import expanded

log = logging.getLogger("sakuin.server.audit")

MOST_QUESTION = 32_768
"""Characters of a question that are written down."""


class Audit:
    """Lines at the end of the file `path`, or none at all for None. contents : with what was asked.

    A disk that is full stops no answer: it is told to the log, and in the file once there is room again.
    Raises `SakuinError` where the file cannot be written when it is opened first.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, contents: bool = False) -> None:
        self.path = None if path is None else expanded(arguments.path("audit", path))
        self.contents = contents
        self._lock = threading.Lock()
        self._file: int | None = None
        self._lost = 0
        self._torn = False
        if self.path is not None:
            try:
                self._file = _opened(self.path)
            except OSError as error:
                raise SakuinError(
                    f"the audit log {self.path} cannot be written ({error.strerror}); name another file."
                ) from None

    def write(
        self,
        event: str,
        tenant: Tenant,
        context: str | None,
        request_id: str,
        *,
        question: str | None = None,
        **facts: Any,
    ) -> None:
        """Write down that `tenant` did `event`, with a context or without one.

        question : what was asked; left out unless contents are asked for. facts : what JSON can say, and no
        contents.
        """
        if self.path is None:
            return
        said: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event,
            "tenant": tenant.name,
            "context": context,
            "request": request_id,
        }
        said |= {name: fact for name, fact in facts.items() if name not in said}
        if self.contents and question is not None:
            said["question"] = question[:MOST_QUESTION]
            if len(question) > MOST_QUESTION:
                said["question_characters"] = len(question)
        with self._lock:
            try:
                self._write(self.path, _line(said))
            except OSError as error:
                self._lost += 1
                if self._lost == 1:
                    log.error(
                        "the audit log %s cannot be written (%s): lines are lost", self.path, error.strerror
                    )

    def close(self) -> None:
        """Close the file. What is written from now on is lost."""
        with self._lock:
            self.path = None
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _write(self, path: Path, line: bytes) -> None:
        """Write a line, after one that says how many were lost. The caller holds the lock."""
        if self._file is None or not _is_still(path, self._file):
            with contextlib.suppress(OSError):
                if self._file is not None:
                    os.close(self._file)
            self._file = None  # should it not open again
            self._file = _opened(path)
            self._torn = False
        before = b"\n" if self._torn else b""
        if self._lost:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            before += _line({"time": now, "event": "audit_lost", "lines": self._lost})
        data = before + line
        done = os.write(self._file, data)
        if done < len(data):  # a full disk takes what fits
            self._torn = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._lost:
            log.warning("the audit log %s can be written again; %d lines were lost", path, self._lost)
        self._lost, self._torn = 0, False


def _opened(path: Path) -> int:
    """The file at its end, made for its owner's eyes alone. A pipe that is full is not waited for."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    return os.open(path, flags, 0o600)


def _is_still(path: Path, file: int) -> bool:
    """Whether the open file is the one that has this name; a pipe or terminal has none to lose."""
    mine = os.fstat(file)
    if not stat.S_ISREG(mine.st_mode):
        return True
    try:
        return os.path.samestat(mine, os.stat(path))
    except OSError:
        return False


def _line(said: dict[str, Any]) -> bytes:
    """One line, in ASCII: no character in it ends a line or steers a terminal."""
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in said.items()
    }
    return json.dumps(plain, default=str).encode() + b"\n"
