"""Memory that copies share until they write (see sakuin.machine.frozen)."""

from __future__ import annotations

import gc
import os
import resource
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sakuin.machine.frozen import Frozen, Rows

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory of Linux")

SHAPES = ((3, 700, 64), (1, 33, 16), (5, 1, 8))


def made(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(shape).to(dtype) for shape in SHAPES]


def frozen(tensors: list[Tensor]) -> Frozen:
    found = Frozen.of([Rows(x, 0, x.shape[1]) for x in tensors])
    assert found is not None
    return found


def kilobytes(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8])
def test_a_copy_is_equal_and_what_it_writes_is_its_own(dtype: torch.dtype) -> None:
    tensors = made(dtype)
    with torch.inference_mode():
        kept = frozen(tensors)
        one, other = kept.copy(), kept.copy()
        mine, theirs = one.tensor(0), other.tensor(0)
    mine[:, -1] = 7  # also outside of inference mode
    theirs[:, 0] = 5
    assert torch.equal(mine[:, :-1], tensors[0][:, :-1])
    assert torch.equal(theirs[:, 1:], tensors[0][:, 1:])
    assert all(torch.equal(kept.tensor(i), x) for i, x in enumerate(tensors))
    assert all(torch.equal(one.tensor(i), x) for i, x in enumerate(tensors) if i)


def test_rows_outside_are_not_kept_and_can_be_written() -> None:
    x = torch.randn(4, 100, 64)
    kept = Frozen.of([Rows(x, 10, 60)])
    assert kept is not None
    mine = kept.copy().tensor(0)
    assert torch.equal(mine[:, 10:60], x[:, 10:60])
    mine[:, 60:] = 1
    assert float(kept.tensor(0)[:, 60:].sum()) == 0


def test_a_copy_outlives_what_it_is_of_and_all_goes_in_the_end() -> None:
    gc.collect()
    files, before = len(os.listdir("/proc/self/fd")), kilobytes("VmSize:")
    big = torch.randn(4, 20_000, 64)
    kept = frozen([big])
    mine = kept.copy().tensor(0)
    del kept
    mine[:, 0] = 1
    assert torch.equal(mine[:, 1:], big[:, 1:])
    del mine, big
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == files
    assert kilobytes("VmSize:") - before < 10_000


def test_a_copy_that_grows_by_a_row_takes_little_memory() -> None:
    kept = frozen([torch.randn(4, 20_000, 64)])  # 20 MB
    before = kilobytes("RssAnon:")
    copies = [kept.copy().tensor(0) for _ in range(50)]
    for mine in copies:
        mine[:, -1] = 1
    assert kilobytes("RssAnon:") - before < 10_000


def test_where_there_is_no_such_memory_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert Frozen.of([Rows(made()[0], 0, 700)]) is None


def test_a_full_memory_is_no_fault() -> None:
    x, before = torch.randn(8, 4000, 64), resource.getrlimit(resource.RLIMIT_FSIZE)
    files = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        assert Frozen.of([Rows(x, 0, 4000)]) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(os.listdir("/proc/self/fd")) == files
