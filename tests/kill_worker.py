"""Four processes that work on one library until they are killed (run by test_fuzz_kills.py).

`python kill_worker.py LIBRARY ARCHIVE LOGS` makes a model once, then forks four children for each line on
standard input, a seed, and prints their process ids. After another line it waits for them and prints "gone".
Each child adds, appends, asks, removes and imports, and writes into a file of LOGS what it is about to do and
what it has done.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import torch
from stored import CONFIG, MORE, TEXT, model_of, read

from sakuin import Library
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.library import archive

PROCESSES = 4
SHARED = "shared"
REFUSALS = ("by another process", "was not finished")
"""Of what somebody else is at, and of an import where an add was killed."""
FULL = 3500
"""Tokens of a context to which nothing is appended any more; the model reads 4,096."""


class Child:
    """One of the processes. `number` is in the names of the contexts that it alone makes and removes."""

    def __init__(self, number: int, seed: int) -> None:
        library, self.archive, logs = sys.argv[1:]
        self.library, self.draw = Library(library), random.Random(seed)
        self.names = [f"own{number}-{i}" for i in range(3)]
        self.log = os.open(Path(logs) / str(number), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def say(self, *words: object) -> None:
        os.write(self.log, (" ".join(map(str, words)) + "\n").encode())

    def step(self) -> None:
        """One operation, which may be refused for one of two reasons."""
        name = self.draw.choice(self.names)
        there = self.library.is_there(name)
        what = self.draw.choice(("append", "ask", "remove", "shared", "gc") if there else ("add", "take"))
        if what == "shared":
            what, name = self.draw.choice(("append", "ask")), SHARED
        self.say("begin", what, name)
        try:
            tokens = getattr(self, what)(name)
        except SakuinError as error:
            if not any(words in str(error) for words in REFUSALS):
                raise
            self.say("busy", what, name)
            return
        self.say("done", what, name, tokens)

    def add(self, name: str) -> int:
        text = f"{name} {TEXT[:500]}" if self.draw.random() < 0.5 else TEXT[: self.draw.randrange(300, 900)]
        text_of = [Document("a.txt", text)]
        return self.library.add(name, text_of, *model_of(), CONFIG, resume=True).tokens

    def append(self, name: str) -> int:
        if self.library.find(name).manifest.outline.tokens > FULL:
            return self.ask(name)
        return self.library.append(name, MORE[: self.draw.randrange(20, 200)], *model_of()).tokens

    def ask(self, name: str) -> int:
        context = self.library.open(name, *model_of())
        context.ask("Who jumps?", max_new_tokens=2)
        return context.tokens

    def remove(self, name: str) -> int:
        self.library.remove(name)
        return 0

    def gc(self, name: str) -> int:
        self.library.gc()
        return 0

    def take(self, name: str) -> int:
        archive.import_from(self.library, self.archive, name)
        return self.library.find(name).manifest.outline.tokens


def main() -> None:
    torch.set_num_threads(1)
    read(text=TEXT[:300]).ask("Who?", 1)  # everything is imported and warm
    print("ready", flush=True)
    while line := sys.stdin.readline():
        seed, children = int(line), []
        for number in range(PROCESSES):
            child = os.fork()
            if not child:
                worker = Child(number, PROCESSES * seed + number)
                try:
                    while True:
                        worker.step()
                except BaseException as error:
                    worker.say("error", repr(error))
                    os._exit(1)
            children.append(child)
        print(*children, flush=True)
        sys.stdin.readline()
        for child in children:
            os.waitpid(child, 0)
        print("gone", flush=True)


if __name__ == "__main__":
    main()
