"""A child process of tests: `python headers_under_fire.py FOLDER FIRST COUNT ARCHITECTURE…`.

It changes the header of a tiny model, once for each seed, and loads and runs it in a fork of this process.
Prints what a fork died of, and what it raised that is no sentence; the last line counts the ends.
"""

from __future__ import annotations

import copy
import os
import signal
import struct
import sys
import traceback
from collections import Counter
from pathlib import Path

import torch
from forged_gguf import Fire, parsed
from tiny_gguf import write

from sakuin.backends.llama_cpp.library import library
from sakuin.backends.open import describe, load
from sakuin.errors import SakuinError

_TEXT = "The index of a book é 漢字\n\n  x<|im_end|>"
_LIMIT = 120
"""Seconds of one, after which it hangs."""


def use(path: Path, say: int) -> str:
    """Everything that is done with a file, in order. say : where what is about to be done is written."""

    def about_to(what: str) -> None:
        os.write(say, what.encode() + b"\n")

    try:
        about_to("describe")
        vocabulary = describe(str(path)).vocabulary
        about_to("encode")
        vocabulary.encode(_TEXT)
        vocabulary.decode(range(0, len(vocabulary), 7))
        if vocabulary.has_template:
            vocabulary.render([{"role": "user", "content": "hi"}], answer=True)
        about_to("load")
        model, _ = load(str(path), threads=1)
        about_to("run")
        cache = model.new_cache(None)
        model.forward(cache, [1, 2, 3, 4, 5, 6, 7, 8])
        model.forward(cache, [9])
    except SakuinError:
        return "refused"
    except BaseException:
        return "raw: " + traceback.format_exc()[-800:].replace("\n", " | ")
    return "works"


def main(folder: Path, first: int, count: int, architectures: list[str]) -> None:
    torch.set_num_threads(1)
    library()
    sound = [parsed(write(name, folder).gguf) for name in architectures]
    path, ends = folder / "odd.gguf", Counter[str]()
    for seed in range(first, first + count):
        odd = copy.deepcopy(sound[seed % len(sound)])
        changed = Fire(seed).change(odd)
        try:
            path.write_bytes(odd.bytes())
        except (struct.error, TypeError):
            continue
        end = in_a_fork(path)
        ends[end.split(":")[0]] += 1
        if end not in ("works", "refused"):
            print(f"{seed} [{changed}] {end}", flush=True)
    print(dict(ends))


def in_a_fork(path: Path) -> str:
    """How using the file ended."""
    here, there = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(_LIMIT)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.write(there, use(path, there).encode("utf-8", "replace"))
        os._exit(0)
    os.close(there)
    with open(here, "rb") as file:
        said = file.read().decode().splitlines()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"died of {signal.Signals(os.WTERMSIG(status)).name}: at {said[-1]}"
    return said[-1]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
