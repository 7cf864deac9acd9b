"""Memory: what there is, limits of containers included."""

from __future__ import annotations

from pathlib import Path

import pytest

from sakuin.machine.memory import available

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    """A /proc and a /sys/fs/cgroup of a machine with 8 GiB available, without limits."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    groups.mkdir()
    (proc / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n")
    (proc / "self/cgroup").write_text("0::/app/job\n")
    return proc, groups


def test_without_limits_the_machine_sets_the_bound(machine: tuple[Path, Path]) -> None:
    assert available(*machine, limits=False).bytes == 8 * GIB


def test_a_limit_of_any_cgroup_above_the_process_counts(machine: tuple[Path, Path]) -> None:
    proc, groups = machine
    (groups / "app/job").mkdir(parents=True)
    (groups / "app/job/memory.max").write_text("max\n")
    (groups / "app/job/memory.current").write_text(f"{GIB}\n")
    (groups / "app/memory.max").write_text(f"{4 * GIB}\n")
    (groups / "app/memory.current").write_text(f"{3 * GIB}\n")
    (groups / "app/memory.stat").write_text(f"anon 1\ninactive_file {2 * GIB}\n")
    have = available(proc, groups, limits=False)
    assert have.bytes == 3 * GIB  # the limit, less what is used and cannot be dropped
    assert "4.29 GB" in have.bound


def test_the_first_version_of_cgroups_counts_too(machine: tuple[Path, Path]) -> None:
    proc, groups = machine
    (proc / "self/cgroup").write_text("5:cpu:/x\n3:memory,hugetlb:/box\n")
    (groups / "memory/box").mkdir(parents=True)
    (groups / "memory/box/memory.limit_in_bytes").write_text(f"{2 * GIB}\n")
    (groups / "memory/box/memory.usage_in_bytes").write_text(f"{GIB}\n")
    assert available(proc, groups, limits=False).bytes == GIB


def test_a_full_cgroup_leaves_nothing(machine: tuple[Path, Path]) -> None:
    proc, groups = machine
    (groups / "memory.max").write_text(f"{GIB}\n")
    (groups / "memory.current").write_text(f"{2 * GIB}\n")
    assert available(proc, groups, limits=False).bytes == 0
