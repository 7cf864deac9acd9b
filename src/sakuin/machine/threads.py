"""How many threads compute, and which keep out of torch's parallel regions.

Every thread that runs a parallel torch operation gets a team of OpenMP workers of its own. With more workers
than cores, libgomp stops waiting actively for the next region *in all teams*, and every small operation of
the model then wakes a sleeping thread: on two cores a decode step took 10 ms longer for ever after. So
background threads use one thread each, and where there is no core for them they are not used in prefill
(`spare_core`); and a thread that leaves the model to another lets its team go. Called by
`sakuin.cache.sealing`, by `sakuin.server`, and by `sakuin.backends.open` before a model is loaded.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sakuin.machine.cpu import usable_cpus
from sakuin.machine.torch_files import openmp_runtimes

_forked: list[bool] = []
"""Not empty in a child."""


def _in_child() -> None:
    """The threads that torch's operations run on are the parent's. Where it has used them, the next parallel
    operation of the child would wait for them for ever, and so would who lets them go; so there is one
    thread in a child."""
    _pause.cache_clear()
    _forked.append(True)
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def settle(n: int | None = None) -> int:
    """Let all that computes for a model, torch, what is native and llama.cpp, use `n` threads; how many they
    are.

    None is as many as torch uses, but no more than there are CPUs to keep busy: torch knows nothing of a
    container's quota, and threads beyond it are stopped in the middle of their work. Who sets
    `OMP_NUM_THREADS` has said how many.
    """
    if n is None:
        n = torch.get_num_threads()
        if "OMP_NUM_THREADS" not in os.environ:
            n = min(n, usable_cpus())
    if n != torch.get_num_threads():
        torch.set_num_threads(n)
    return n


def spare_core() -> bool:
    """Whether a thread beside those that compute for a model would have a core of its own."""
    return usable_cpus() > torch.get_num_threads()


def work_alone() -> None:
    """Make torch's operations in the calling thread run on this thread alone; other threads keep their
    setting.

    `torch.set_num_threads` would change it for all threads. Where the runtime is another (no OpenMP, no MKL)
    there is no such team, and nothing is done.
    """
    torch.get_num_threads()  # torch sets a thread's number when it is first asked for; ours must come after
    _call(ctypes.CDLL(None), "omp_set_num_threads")
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if library.exists():  # MKL inside torch has a setting of its own
        _call(ctypes.CDLL(str(library)), "MKL_Set_Num_Threads_Local")


def let_team_go() -> None:
    """End the workers that the calling thread's parallel operations have left; the next one begins others.

    For a thread that waits while another computes. Of runtimes but libgomp nothing is ended: they have one
    team for all.
    """
    if (function := _pause()) is not None:
        function(_HARD)


_HARD = 2
"""`omp_pause_hard` of OpenMP 5.0."""


@cache
def _pause() -> Any:
    """`omp_pause_resource_all`, which in libgomp is about the calling thread alone."""
    if _forked or any(not name.startswith("libgomp") for name in openmp_runtimes()):
        return None
    return getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)


def _call(library: ctypes.CDLL, name: str) -> None:
    function = getattr(library, name, None)
    if function is not None:
        function(ctypes.c_int(1))
