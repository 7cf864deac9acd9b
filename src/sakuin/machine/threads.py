"""Keeps a thread of ours out of torch's parallel regions.

Every thread that runs a parallel torch operation gets a team of OpenMP workers of its own. With more workers
than cores, libgomp stops waiting actively for the next region *in all teams*, and every small operation of
the model then wakes a sleeping thread: on two cores a decode step took 10 ms longer for ever after. So
background threads use one thread each. Called by `sakuin.cache.sealing`.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch


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


def _call(library: ctypes.CDLL, name: str) -> None:
    function = getattr(library, name, None)
    if function is not None:
        function(ctypes.c_int(1))
