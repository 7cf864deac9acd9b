"""A process that saves and appends, to be killed at any moment (run by test_crash.py).

`python crash_worker.py LIBRARY` makes a context once, then forks a child for each line on standard input
(`save NAME` or `append NAME`) and prints its process id at once, and after another line how it ended. With
`once` it saves and appends itself, and ends.
"""

from __future__ import annotations

import os
import sys

import torch
from stored import MORE, model_of, read

from sakuin import Library


def main() -> None:
    torch.set_num_threads(1)
    library = Library(sys.argv[1])
    context = read()
    context.snapshot()  # what a neutral question draws is measured once, not in each child
    if sys.argv[2:] == ["once"]:
        library.save("once", context)
        library.append("once", MORE, *model_of())
        return
    print("ready", flush=True)
    while line := sys.stdin.readline():
        command, name = line.split()
        child = os.fork()
        if not child:
            if command == "save":
                library.save(name, context)
            else:
                library.append(name, MORE, *model_of())
            os._exit(0)
        print(child, flush=True)
        sys.stdin.readline()  # until then the child is there, done or not
        _, status = os.waitpid(child, 0)
        print(status, flush=True)


if __name__ == "__main__":
    main()
