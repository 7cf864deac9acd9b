"""`offload="disk"` where memory is short: the whole of a context is three times what its process may hold."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent

SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, {here!r})
import torch
torch.set_num_threads(1)
from stored import model_of
from sakuin import RetrievalConfig
from sakuin.index import SketchIndex, new_index
from sakuin.index.base import StoredSegment
from sakuin.cache import offload
from sakuin.storage import tensorfile

folder, group = Path(sys.argv[1]), sys.argv[2]
config = RetrievalConfig(index="sketch", offload="disk")
index = new_index(2, 64, 4, config)
if group:  # from here on this process may hold so much, pages of files included
    Path(group, "cgroup.procs").write_text(str(__import__("os").getpid()))
segments = []
for path in sorted(folder.iterdir()):
    tensors = offload.split(tensorfile.open_mapped(path).tensors, SketchIndex)
    segments.append(StoredSegment("sketch", tensors["order"].shape[1], tensors))
index.restore(segments)
q = torch.randn(8, 8, 64, generator=torch.Generator().manual_seed(3))
outs = [index.attend(q[:, t : t + 1], scaling=0.3).out for t in range(8)]
keys = sum(float(k.float().sum()) for k, _ in index.blocks())  # exact attention reads all
print(json.dumps({{"out": torch.stack(outs).tolist(), "keys": keys}}))
"""


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group that may hold 64 MB."""
    own = next(
        (
            line.split(":")[2]
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if ":memory:" in line
        ),
        None,
    )
    place = Path("/sys/fs/cgroup/memory" if own is not None else "/sys/fs/cgroup", (own or "").lstrip("/"))
    group, limit = (
        place / f"sakuin-test-{os.getpid()}",
        "memory.limit_in_bytes" if own is not None else "memory.max",
    )
    try:
        group.mkdir()
        (group / limit).write_text(str(64 << 20))
    except OSError:
        if group.is_dir():
            group.rmdir()
        pytest.skip("this system lets nobody limit memory by control groups")
    yield group
    group.rmdir()


def test_an_index_of_three_times_the_memory_gives_the_same(memory_group: Path, tmp_path: Path) -> None:
    import torch

    from sakuin import build_index
    from sakuin.storage import tensorfile

    make = torch.Generator().manual_seed(1)
    keys, values = (torch.randn(2, 4096, 64, generator=make).bfloat16() for _ in range(2))
    folder = tmp_path / "segments"
    folder.mkdir()
    size = 0
    for i in range(80):
        index = build_index("sketch", keys + i / 64, values, segment=4096)
        with (folder / f"{i:03d}").open("wb") as file:
            size += tensorfile.write(file, index.stored()[0].tensors, {})[0]
    assert size > 3 * (64 << 20)
    script = SCRIPT.format(here=str(HERE))
    found = []
    for group in ("", str(memory_group)):
        run = subprocess.run(
            [sys.executable, "-c", script, str(folder), group],
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        found.append(json.loads(run.stdout))
    assert found[0] == found[1]
    peak = memory_group / "memory.max_usage_in_bytes"
    if peak.exists():
        assert int(peak.read_text()) <= 64 << 20


@pytest.mark.parametrize("kind", ["sketch", "flat"])
def test_rows_that_are_not_in_memory_come_many_at_a_time(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from sakuin import RetrievalConfig, build_index
    from sakuin.cache import offload
    from sakuin.index import new_index
    from sakuin.index import sketch as module
    from sakuin.index.base import StoredSegment
    from sakuin.index.kind import Kind, kind_of
    from sakuin.storage import tensorfile

    make = torch.Generator().manual_seed(1)
    keys, values = (torch.randn(2, 4096, 64, generator=make).bfloat16() for _ in range(2))
    path = tmp_path / "segment"
    with path.open("wb") as file:
        tensorfile.write(file, build_index(kind, keys, values, segment=4096).stored()[0].tensors, {})
    q = torch.randn(8, 1, 64, generator=make)

    def cold() -> tuple[torch.Tensor, int]:
        """A step right after a restart, and how often it waited for a page."""
        tensors = offload.split(tensorfile.open_mapped(path).tensors, kind_of(kind))
        index = new_index(2, 64, 4, RetrievalConfig(index=kind, offload="disk"))
        index.restore([StoredSegment(kind, 4096, tensors)])
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
        out = index.attend(q, scaling=0.3).out
        return out, resource.getrusage(resource.RUSAGE_SELF).ru_majflt - before

    out, faults = cold()
    # As it would be without: nothing is asked for, and the system reads nothing ahead.
    monkeypatch.setattr(module, "on_disk", lambda *_: False)
    split = offload.split

    def each_by_itself(tensors: dict[str, torch.Tensor], of: type[Kind]) -> dict[str, torch.Tensor]:
        parts = split(tensors, of)
        tensorfile.advise_random(x for name, x in parts.items() if name in of.rows)
        return parts

    monkeypatch.setattr(offload, "split", each_by_itself)
    plain, waited = cold()
    assert torch.equal(out, plain)
    if waited < 50:
        pytest.skip("this file system keeps its files in memory")
    assert faults < waited / 4
