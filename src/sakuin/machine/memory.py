"""How much memory there is: what this process may still take, and what sets the bound.

Limits of containers (cgroups, both versions) and of the process count, not only the machine's memory.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

from sakuin.machine.cgroups import ROOT, groups
from sakuin.quantities import size_of

_FILES = {
    True: ("memory.max", "memory.current", "inactive_file"),
    False: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Of a cgroup, of version 2 or not: its limit, what is used, and what of that can be dropped."""


@dataclass(frozen=True)
class Available:
    """Bytes that this process may still take, and what sets the bound, in words."""

    bytes: int
    bound: str


def available(proc: Path = Path("/proc"), cgroups: Path = ROOT, limits: bool = True) -> Available:
    """The least of: the machine's available memory, what each cgroup above this process leaves, what the
    process's limits leave."""
    bounds = [Available(_meminfo(proc / "meminfo"), "of this machine's memory are free")]
    for limit, used in _cgroup_limits(proc / "self/cgroup", cgroups):
        left = f"are left of this container's limit of {size_of(limit)}"
        bounds.append(Available(max(limit - used, 0), left))
    if limits:
        for which, field, name in (
            (resource.RLIMIT_DATA, "VmData", "data"),
            (resource.RLIMIT_AS, "VmSize", "address space"),
        ):
            soft = resource.getrlimit(which)[0]
            if soft != resource.RLIM_INFINITY:
                used = _status(proc / "self/status", field)
                bounds.append(
                    Available(
                        max(soft - used, 0), f"are left of this process's limit of {size_of(soft)} of {name}"
                    )
                )
    return min(bounds, key=lambda bound: bound.bytes)


_NO_LIMIT = 1 << 60


def _meminfo(path: Path) -> int:
    for line in path.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return _NO_LIMIT


def _status(path: Path, field: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    return 0


def _cgroup_limits(own: Path, root: Path) -> list[tuple[int, int]]:
    """`(limit, used)` of each cgroup from this process's up to the root; used leaves out file pages that can
    be dropped."""
    found = (_limit_of(group.folder, *_FILES[group.unified]) for group in groups("memory", own, root))
    return [pair for pair in found if pair is not None]


def _limit_of(folder: Path, limit_file: str, used_file: str, droppable: str) -> tuple[int, int] | None:
    try:
        limit = (folder / limit_file).read_text().strip()
        used = int((folder / used_file).read_text())
    except (OSError, ValueError):
        return None
    if limit == "max" or int(limit) >= _NO_LIMIT:
        return None
    try:
        for line in (folder / "memory.stat").read_text().splitlines():
            if line.startswith(droppable + " "):
                used -= int(line.split()[1])
    except (OSError, ValueError):
        pass
    return int(limit), max(used, 0)
