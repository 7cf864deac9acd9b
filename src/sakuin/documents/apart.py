"""A document is taken apart in a process of its own, `sakuin.documents.child`: started here, fed, and ended
whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from sakuin.documents import limits
from sakuin.documents.document import Document
from sakuin.documents.kinds import Kind
from sakuin.errors import SakuinError

_CHILD = Path(__file__).with_name("child.py")
_PACKAGE = Path(__file__).parents[1]
_REMEDY: dict[Kind, str] = {
    "pdf": "print it into a new PDF",
    "word": "save it as text or PDF",
    "html": "open it in a browser and save it as text",
    "markdown": "give it the suffix .txt to have it read without its headings",
    "text": "split it",
    "csv": "split it",
    "mail": "save its text from a mail program",
    "sheets": "save the sheets that matter as CSV",
}


def parse(data: bytes, kind: Kind, name: str, encoding: str | None) -> Document:
    """As `sakuin.documents.parsing.parse`, with limits of memory and of time. A `SakuinError` where they do
    not suffice, and where the file ends the process that reads it."""
    seconds = limits.seconds_for(len(data))
    request = {
        "name": name,
        "kind": kind,
        "encoding": encoding,
        "size": len(data),
        "memory": limits.MOST_MEMORY + 2 * len(data),
        "seconds": seconds,
        "parent": os.getpid(),
        "path": _path(),
        "package": str(_PACKAGE),
    }
    try:
        code, answer = _run(json.dumps(request).encode() + b"\n", data)
    except OSError as error:  # no more processes, no memory, no program
        raise SakuinError(
            f"{name} cannot be read: the process for it cannot be started ({error.strerror or error})."
        ) from None
    if "text" in answer:
        return Document.from_dict(answer)
    if "error" in answer:
        raise SakuinError(answer["error"])
    if "failed" in answer:
        raise SakuinError(f"{name} cannot be read ({answer['failed']}); {_REMEDY[kind]}.")
    if -code in _TIME_IS_UP:
        raise SakuinError(
            f"{name} takes more than {seconds} seconds to be read, as damaged files do and such as are made "
            f"to; {_REMEDY[kind]}."
        )
    raise SakuinError(
        f"{name} cannot be read: taking it apart failed or took more than {limits.MOST_MEMORY >> 20:,} MB of "
        f"memory, as damaged files do; {_REMEDY[kind]}."
    )


_TIME_IS_UP = tuple(getattr(signal, name) for name in ("SIGXCPU", "SIGALRM") if hasattr(signal, name))


def _run(request: bytes, data: bytes) -> tuple[int, dict[str, Any]]:
    """The exit code of the process, and what it answered; nothing where it came to no answer."""
    with subprocess.Popen(
        # -I: nothing of the current folder or the environment; -S: only the packages that this process has.
        [sys.executable, "-I", "-S", str(_CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=_PACKAGE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended already; its exit code says why
                process.stdin.write(request)
                process.stdin.write(data)
                process.stdin.close()
            answer = process.stdout.read()
            process.wait()
        except BaseException:
            process.kill()
            raise
    try:
        found = json.loads(answer.decode("utf-8", "surrogatepass"))
    except ValueError:
        found = None
    return process.returncode, found if isinstance(found, dict) else {}


def _path() -> list[str]:
    """Where this process finds packages, but for the current folder and what is relative to it."""
    try:
        here = os.path.realpath(os.curdir)
    except OSError:  # it was removed, and holds nothing
        here = ""
    return [path for path in sys.path if os.path.isabs(path) and os.path.realpath(path) != here]
