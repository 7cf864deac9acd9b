"""The process in which a document is taken apart: it cannot harm the one that asks, nor outlive it.

Files come from strangers, and libraries in C and C++ read them. Here a file that makes them crash, that
unpacks to gigabytes or never ends costs a sentence and not the user's session, and threads need no lock.

`sakuin.documents.apart` runs this file as a script, isolated (`python -I -S`): neither the current folder nor
the environment adds code to it. On standard input come one line of JSON and the file's bytes; one JSON object
goes to standard output. Until its limits stand it imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import types
from typing import Any

_PATIENCE = 8
"""Seconds on the clock for each second of CPU time: other work may keep this from the CPU."""

_PR_SET_PDEATHSIG = 1
_UNUSED = ("cchardet", "chardet", "charset_normalizer", "html5lib", "soupsieve")
"""What Beautiful Soup imports where it is there: most of the time that a small file takes, and not needed."""


def main() -> None:
    request = json.loads(sys.stdin.buffer.readline())
    limit(request["memory"], request["seconds"])
    data = sys.stdin.buffer.read(request["size"])
    if len(data) < request["size"] or os.getppid() != request["parent"]:  # whoever asked is gone
        return
    sys.path += [path for path in request["path"] if path not in sys.path]
    sys.modules.update(dict.fromkeys(_UNUSED))  # type: ignore[arg-type]
    # The package as an empty shell: its face prepares transformers, which has no business here.
    package = types.ModuleType("sakuin")
    package.__path__ = [request["package"]]
    sys.modules["sakuin"] = package
    answer = json.dumps(_answer(data, request), ensure_ascii=False)
    sys.stdout.buffer.write(answer.encode("utf-8", "surrogatepass"))
    sys.stdout.buffer.flush()


def limit(memory: int, seconds: int) -> None:
    """End with the parent, by `SIGKILL`; with Ctrl-C; after so many seconds; and take only so much memory."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    with contextlib.suppress(ImportError, AttributeError, OSError):  # Linux only; elsewhere the limits end it
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    try:
        import resource
    except ImportError:  # there is none of it on Windows
        return
    signal.alarm(_PATIENCE * seconds)
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_DATA, memory),
    ):
        hard = resource.getrlimit(kind)[1]
        if hard == resource.RLIM_INFINITY or hard > most:
            resource.setrlimit(kind, (most, hard))


def _answer(data: bytes, request: dict[str, Any]) -> dict[str, Any]:
    """The document as `Document.as_dict` has it, or why there is none: `error`, a sentence; `memory`."""
    from sakuin.documents import parsing
    from sakuin.errors import SakuinError

    try:
        return parsing.parse(data, request["kind"], request["name"], request["encoding"]).as_dict()
    except SakuinError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"memory": True}
    except Exception as error:  # of the libraries, on what they were not made for
        return {"failed": f"{type(error).__name__}: {str(error)[:120]}"}


if __name__ == "__main__":
    main()
