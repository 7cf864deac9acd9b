"""How sakuin starts Python again: no process of ours takes code from the current folder.

`python -m NAME` looks for NAME, and for all that it imports, in the current folder first, and an empty entry
of PYTHONPATH means that folder too: a `pip.py` or `json.py` that lies beside somebody's documents would be
run. Called by whoever starts a process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_VARIABLE = "PYTHONPATH"


def python(*words: str) -> list[str]:
    """The command that runs this Python with `words` and without the current folder on its path."""
    return [sys.executable, "-P", *words]


def environment(*first: str | os.PathLike[str], **changes: str) -> dict[str, str]:
    """This process's environment for a child: PYTHONPATH without what means the current folder.

    first : folders in which the child looks before all others. changes : other variables.
    """
    paths = [os.fspath(folder) for folder in first]
    paths += [path for path in os.environ.get(_VARIABLE, "").split(os.pathsep) if not _is_here(path)]
    # PYTHONSAFEPATH is -P for what the child starts itself.
    kept = {name: value for name, value in os.environ.items() if name != _VARIABLE}
    kept |= {_VARIABLE: os.pathsep.join(paths)} if paths else {}
    return kept | {"PYTHONSAFEPATH": "1"} | changes


def _is_here(path: str) -> bool:
    """Whether an entry of the path is the current folder, without being named as such a folder."""
    if not path:
        return True
    if os.path.isabs(path):
        return False
    try:
        return Path(path).resolve() == Path.cwd()
    except OSError:  # a current folder that is gone
        return True
