"""What there is of llama.cpp on this machine, for `sakuin doctor`.

A library that does not suit the machine can end the process that loads it, so a child tries: this file, run
as a program. Called by `sakuin.backends.open`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass

from sakuin.backends.llama_cpp import locate
from sakuin.errors import SakuinError

_PATIENCE = 120
"""Seconds that the child has."""


@dataclass(frozen=True)
class Report:
    """What was found.

    library : name and version; None where nothing was. source : "package", or the variable that names it.
    files : its shared objects. ggml : its version, where it can be loaded. problem : why it cannot be used,
    as a sentence, or None.
    """

    library: str | None = None
    source: str | None = None
    files: tuple[str, ...] = ()
    ggml: str | None = None
    problem: str | None = None


def examine() -> Report:
    """Look for the library, and have a child load it."""
    try:
        found = locate.find()
    except SakuinError as error:
        return Report(source=locate.VARIABLE, problem=str(error))
    if found is None:
        return Report(problem=str(locate.no_library()))
    ggml, problem = _tried(found)
    source = "package" if found.version else locate.VARIABLE
    return Report(str(found), source, tuple(map(str, found.files)), ggml, problem)


def _tried(found: locate.Found) -> tuple[str | None, str | None]:
    """ggml's version, or why the library cannot be used."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__], capture_output=True, text=True, check=False, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        return None, f"{found} was not loaded within {_PATIENCE} s."
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return None, f"{found} ends the process that loads it ({name}); install another package or build."
    try:
        said = json.loads(done.stdout)
    except json.JSONDecodeError:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return None, f"{found} cannot be loaded: {last[:300].rstrip('.')}."
    return said["ggml"], said["problem"]


def main() -> None:
    """Load the library and register sakuin's device with it; say how that went."""
    from sakuin.backends.llama_cpp.device import register
    from sakuin.backends.llama_cpp.library import library

    ggml, problem = None, None
    try:
        loaded = library()
        ggml = loaded.version
        register(loaded)
    except SakuinError as error:
        problem = str(error)
    print(json.dumps({"ggml": ggml, "problem": problem}))


if __name__ == "__main__":
    main()
