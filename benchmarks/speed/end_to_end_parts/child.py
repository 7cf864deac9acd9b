"""A child of the benchmark: reads commands from its standard input and answers each on its standard output.

Started by `children.Child` as `python -m benchmarks.speed.end_to_end_parts.child KIND SETTINGS`.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any

RUNNERS = {"ours": "ours:Ours", "peer": "peer:Peer", "hub": "hub:Hub", "rate": "rate:Rate"}


def runner(kind: str, settings: dict[str, Any]) -> Any:
    """The object whose methods are the commands."""
    module, _, name = RUNNERS[kind].partition(":")
    return getattr(import_module(f"benchmarks.speed.end_to_end_parts.{module}"), name)(**settings)


def main() -> None:
    # Libraries print to standard output as they like: answers have a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    runs = runner(sys.argv[1], json.loads(sys.argv[2]))
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"ok": getattr(runs, command.pop("do"))(**command)}
        except Exception as error:  # told to the parent, which goes on without
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
