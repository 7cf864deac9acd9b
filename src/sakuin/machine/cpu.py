"""What this machine's CPU is and can do, and how much of it this process may use."""

from __future__ import annotations

import math
import os
import platform
import sys
from functools import cache
from pathlib import Path

from sakuin.machine.cgroups import ROOT, Group, groups


@cache
def cpu_flags() -> frozenset[str]:
    """The features that the CPU states, in Linux' words; none where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


def cpu_name() -> str:
    """The CPU's name, as the system has it; else its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine() or sys.platform


def usable_cpus(proc: Path = Path("/proc"), cgroups: Path = ROOT) -> int:
    """CPUs that this process may keep busy: those it may run on, or what its container's quota pays for.

    Part of a CPU counts as one: threads that wait for each other are stopped together when the quota is used
    up, so that one more loses nothing.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = (_quota(group) for group in groups("cpu", proc / "self/cgroup", cgroups))
    return max(1, min([allowed, *(math.ceil(quota) for quota in quotas if quota is not None)]))


def threads_by_itself() -> int:
    """Threads that compute for a model where nobody says how many (`sakuin.machine.threads.settle`), known
    without torch: one for each core, of which some have two CPUs, that this process may keep busy."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if said.isascii() and said.isdecimal() and int(said) > 0:
        return min(int(said), _cores()) if platform.machine() == "x86_64" else int(said)  # as MKL does
    return min(_cores(), usable_cpus())


def _cores() -> int:
    """Cores of the CPUs that this process may run on."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    found = set()
    for at in cpus:
        try:
            siblings = Path(f"/sys/devices/system/cpu/cpu{at}/topology/thread_siblings_list").read_text()
        except OSError:
            siblings = str(at)
        found.add(siblings.strip())
    return max(1, len(found))


def multiplies_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices itself; else torch does it a hundred times slower than
    fp32."""
    return bool(cpu_flags() & {"avx512_bf16", "amx_bf16"})


def _quota(group: Group) -> float | None:
    """CPUs' worth of time that a group gets; None where it has no limit of its own."""
    try:
        if group.unified:
            words = (group.folder / "cpu.max").read_text().split()
        else:
            words = [(group.folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")]
        quota, period = int(words[0]), int(words[1])
    except (OSError, ValueError, IndexError):  # "max" is no number
        return None
    return quota / period if quota > 0 and period > 0 else None
