"""Buffers that forks share (see sakuin.cache.token_buffer)."""

from __future__ import annotations

import gc
import os

import pytest
import torch

from sakuin.cache.token_buffer import GROWTH, TokenBuffer, freeze
from sakuin.machine.frozen import Copies

N = 2000


def buffers(n: int = N) -> list[TokenBuffer]:
    return [TokenBuffer(torch.randn(3, n, 64), torch.randn(3, n, 64), n + GROWTH) for _ in range(4)]


def new(n: int = 1) -> torch.Tensor:
    return torch.randn(3, n, 64)


def forks(every: list[TokenBuffer]) -> list[TokenBuffer]:
    copies: Copies = {}
    return [one.fork(copies) for one in every]


@pytest.mark.parametrize("freezes", [True, False])
def test_forks_and_what_they_are_of_write_for_themselves(freezes: bool) -> None:
    every = buffers()
    for one in every:
        one.drop_first(7)
    held = [one.keys.clone() for one in every]
    if freezes:
        freeze(every)
    first, second = forks(every), forks(every)
    mine, theirs, base = new(5), new(3), new(9)
    for one in first:
        one.append(mine, mine)
    for one in every:
        one.append(base, base)
    for one in second:
        one.keep_first(N - 100)
        one.append(theirs, theirs)
    for i, keys in enumerate(held):
        assert torch.equal(first[i].keys, torch.cat([keys, mine], 1))
        assert torch.equal(every[i].keys, torch.cat([keys, base], 1))
        assert torch.equal(second[i].keys, torch.cat([keys[:, : N - 100], theirs], 1))
        assert torch.equal(first[i].values[:, -5:], mine)


def test_a_fork_of_a_fork_holds_what_that_has_written() -> None:
    every = buffers()
    freeze(every)
    first = forks(every)
    for one in first:
        one.append(new(), new())
    expected = first[2].keys.clone()
    freeze(first)
    second = forks(first)
    for one in [*second, *first]:
        one.append(new(), new())
    assert torch.equal(second[2].keys[:, :-1], expected)
    assert torch.equal(first[2].keys[:, :-1], expected)
    assert not torch.equal(first[2].keys, second[2].keys)


def test_what_was_held_before_a_write_is_held_again() -> None:
    every = buffers()
    freeze(every)
    (one, *_) = forks(every)
    held, expected = one.held(), one.keys.clone()
    one.append(new(4), new(4))
    one.hold(*held)
    assert torch.equal(one.keys, expected)
    one.append(mine := new(2), new(2))
    assert torch.equal(one.keys, torch.cat([expected, mine], 1))
    assert torch.equal(every[0].keys, expected)


def test_one_that_outgrows_its_memory_is_copied() -> None:
    every = buffers()
    freeze(every)
    (one, *_) = forks(every)
    expected = one.keys.clone()
    one.append(mine := new(GROWTH + 50), new(GROWTH + 50))
    assert torch.equal(one.keys, torch.cat([expected, mine], 1))
    assert torch.equal(every[0].keys, expected)


def test_a_fork_that_writes_a_row_copies_a_few_pages() -> None:
    every = buffers(20_000)  # 120 MB
    freeze(every)

    def own() -> int:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

    before, kept = own(), []
    for _ in range(10):
        kept.append(forks(every))
        for one in kept[-1]:
            one.append(new(), new())
    assert own() - before < 30_000
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))
    del kept, every
    assert len(os.listdir("/proc/self/fd")) == files - 1
