"""What there is of llama.cpp on this machine, for `sakuin doctor`.

A library that does not suit the machine can end the process that loads it, so a child tries: this file, run
as a program. Called by `sakuin.backends.open`.
"""

from __future__ import annotations

import json
import signal
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from sakuin.backends.llama_cpp import locate
from sakuin.errors import SakuinError
from sakuin.machine import children
from sakuin.quantities import size_of

_PATIENCE = 120
"""Seconds that the child has."""


@dataclass(frozen=True)
class Report:
    """What was found.

    library : name and version; None where nothing was. source : "package", or the variable that names it.
    files : its shared objects. ggml : its version, where it can be loaded. gpus : those on which it can keep
    weights here, in words. problem : why it cannot be used, as a sentence, or None.
    """

    library: str | None = None
    source: str | None = None
    files: tuple[str, ...] = ()
    ggml: str | None = None
    gpus: tuple[str, ...] = ()
    problem: str | None = None


def examine() -> Report:
    """Look for the library, and have a child load it."""
    try:
        found = locate.find()
    except SakuinError as error:
        return Report(source=locate.VARIABLE, problem=str(error))
    if found is None:
        return Report(problem=str(locate.no_library()))
    source = "package" if found.version else locate.VARIABLE
    return replace(_tried(found), library=str(found), source=source, files=tuple(map(str, found.files)))


def _tried(found: locate.Found) -> Report:
    """What the library itself tells, or why it cannot be used."""
    try:
        done = subprocess.run(
            children.python("-m", __name__),
            env=children.environment(Path(__file__).parents[3]),
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return Report(problem=f"{found} was not loaded within {_PATIENCE} s.")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        ends = f"{found} ends the process that loads it ({name}); install another package or build."
        return Report(problem=ends)
    try:
        said = json.loads(done.stdout)
    except json.JSONDecodeError:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Report(problem=f"{found} cannot be loaded: {last[:300].rstrip('.')}.")
    return Report(ggml=said["ggml"], gpus=tuple(said["gpus"]), problem=said["problem"])


def main() -> None:
    """Load the library and register sakuin's device with it; say how that went."""
    from sakuin.backends.llama_cpp.device import register
    from sakuin.backends.llama_cpp.gpu import gpus
    from sakuin.backends.llama_cpp.library import library

    ggml, problem = None, None
    there: list[str] = []
    try:
        loaded = library()
        ggml = loaded.version
        register(loaded)
        there = [f"{gpu}, {size_of(gpu.free)} free" if gpu.total else str(gpu) for gpu in gpus(loaded)]
    except SakuinError as error:
        problem = str(error)
    print(json.dumps({"ggml": ggml, "gpus": there, "problem": problem}))


if __name__ == "__main__":
    main()
