"""Memory that goes back to the system (see sakuin.machine.pages)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from sakuin.machine.pages import close_holes, from_system, new_tensor

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux what is resident")


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon:")).split()[1]) << 10


def test_holes_between_what_is_used_are_closed() -> None:
    # Too small for pages of their own.
    pieces = [torch.ones(16 << 10) for _ in range(2000)]
    del pieces[::2]
    before = resident()
    close_holes()
    assert before - resident() > 50e6
    assert all(bool((piece == 1).all()) for piece in pieces)


def test_a_tensor_of_any_size_is_as_asked_for_and_can_be_written() -> None:
    for n in (0, 1, 1 << 20):
        like = torch.zeros(1, dtype=torch.bfloat16)
        with torch.inference_mode():
            made = new_tensor((2, n), like)
        assert (made.shape, made.dtype) == ((2, n), torch.bfloat16)
        made.fill_(3)
        assert float(made.float().sum()) == 6 * n


def test_what_the_system_has_not_is_malloc_s_affair() -> None:
    assert from_system(1 << 60) is None
