"""CPUs: how many this process may keep busy, quotas of containers included."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sakuin.machine import cpu
from sakuin.machine.cpu import usable_cpus


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A /proc and a /sys/fs/cgroup of a machine with 8 CPUs, without quotas."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    groups.mkdir()
    (proc / "self/cgroup").write_text("0::/app/job\n")
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda _: set(range(8)))
    return proc, groups


def test_without_a_quota_all_that_it_may_run_on_count(machine: tuple[Path, Path]) -> None:
    assert usable_cpus(*machine) == 8
    (machine[1] / "cpu.max").write_text("max 100000\n")
    assert usable_cpus(*machine) == 8


@pytest.mark.parametrize(("quota", "cpus"), [(400_000, 4), (250_000, 3), (20_000, 1), (3_200_000, 8)])
def test_a_quota_of_any_group_above_counts(machine: tuple[Path, Path], quota: int, cpus: int) -> None:
    proc, groups = machine
    (groups / "app/job").mkdir(parents=True)
    (groups / "app/job/cpu.max").write_text("max 100000\n")
    (groups / "app/cpu.max").write_text(f"{quota} 100000\n")
    assert usable_cpus(proc, groups) == cpus


def test_the_first_version_of_cgroups_counts_too(machine: tuple[Path, Path]) -> None:
    proc, groups = machine
    # In a container the file names a path outside of it, and the limits lie at the root.
    (proc / "self/cgroup").write_text("5:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n")
    (groups / "cpu").mkdir()
    (groups / "cpu/cpu.cfs_quota_us").write_text("150000\n")
    (groups / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert usable_cpus(proc, groups) == 2
    (groups / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert usable_cpus(proc, groups) == 8


def test_the_affinity_of_the_process_counts() -> None:
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{one}}}); from sakuin.machine.cpu import usable_cpus"
    said = subprocess.run(
        [sys.executable, "-c", code + "; print(usable_cpus())"], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "1"
