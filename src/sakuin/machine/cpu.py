"""What this machine's CPU is and can do."""

from __future__ import annotations

import platform
import sys
from functools import cache
from pathlib import Path


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
