"""Threads of a llama.cpp that was built without OpenMP.

With OpenMP its threads and torch's are one team, and nothing is to be done. Without, it has threads of its
own, which spin between two pieces of a graph while sakuin computes on the same cores: a token took ten times
as long. So they are told to sleep at once. Called by `sakuin.backends.llama_cpp.loaded`.
"""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from pathlib import Path

from sakuin.backends.llama_cpp.layouts import PoolParams
from sakuin.backends.llama_cpp.library import Library

_OPENMP = (b"\0GOMP_parallel\0", b"\0__kmpc_fork_call\0")
"""Functions of gcc's and clang's OpenMP runtimes that start a team, as a table of symbols names them."""


def own_threads(library: Library, n: int) -> int | None:
    """`n` threads for a context of the library, which do not spin; None where OpenMP has them. The caller
    attaches them, and gives them back by `ggml_threadpool_free` after its context."""
    prepare = library.optional("ggml_threadpool_params_init")
    make = library.optional("ggml_threadpool_new")
    if prepare is None or make is None or uses_openmp(library.found.files):
        return None
    params = PoolParams()
    prepare(ctypes.byref(params), n)
    if (params.n_threads, params.poll) != (n, 50):  # a struct of another form
        return None
    params.poll = 0
    made: int | None = make(ctypes.byref(params))
    return made


@cache
def uses_openmp(files: tuple[Path, ...]) -> bool:
    """Whether one of these libraries starts teams of OpenMP's threads."""
    return any(_names(file, _OPENMP) for file in files)


def _names(file: Path, words: tuple[bytes, ...]) -> bool:
    with file.open("rb") as held, mmap.mmap(held.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(data.find(word) >= 0 for word in words)
