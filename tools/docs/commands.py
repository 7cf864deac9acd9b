"""The command that a result came from, as it is called today.

Results keep the word that was true when they were measured, and with it the commit. Older ones name a script,
`python benchmarks/scaling.py`, which is now a module in a folder.
"""

from __future__ import annotations

import re

from places import ROOT

RENAMED = {"contexts": "keeping"}


def today(command: str) -> str:
    """`command` as it is called now; one that is no benchmark's stays."""
    return re.sub(r"^python benchmarks/(\w+)\.py", lambda script: f"python -m {_module(script[1])}", command)


def _module(script: str) -> str:
    name = RENAMED.get(script, script)
    (path,) = (ROOT / "benchmarks").glob(f"*/{name}.py")
    return f"benchmarks.{path.parent.name}.{name}"
