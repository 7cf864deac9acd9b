"""Servers of contexts to be killed at any moment (run by test_contexts_killed.py).

`python contexts_worker.py LIBRARY` makes a model once, then forks a server by uvicorn for each line on
standard input and prints its process id and port; after another line it waits for its end and prints "gone".
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import torch
import uvicorn
from contexts_app import Held
from stored import TEXT, read


def main() -> None:
    torch.set_num_threads(1)
    read(text=TEXT[:300]).ask("Who?", 1)  # everything is imported and warm
    print("ready", flush=True)
    while sys.stdin.readline():
        listener = socket.create_server(("127.0.0.1", 0))
        child = os.fork()
        if not child:
            with Held(Path(sys.argv[1])) as held:
                uvicorn.Server(uvicorn.Config(held.app, log_level="warning")).run([listener])
            os._exit(0)
        print(child, listener.getsockname()[1], flush=True)
        listener.close()
        sys.stdin.readline()
        os.waitpid(child, 0)
        print("gone", flush=True)


if __name__ == "__main__":
    main()
