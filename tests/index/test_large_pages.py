"""Memory in large pages: what was asked for, side by side, and given back."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from sakuin.index.large_pages import in_large_pages


@pytest.mark.parametrize("n", [1, 3, 1000, 3_000_000])
def test_every_tensor_is_its_own_and_begins_with_a_line(n: int) -> None:
    wanted = {
        "a": ((2, n), torch.bfloat16),
        "b": ((n,), torch.uint8),
        "c": ((1, 3), torch.float32),
        "d": ((n, 1), torch.uint16),
    }
    got = in_large_pages(wanted)
    for number, (name, (shape, dtype)) in enumerate(wanted.items()):
        assert got[name].shape == shape
        assert got[name].dtype == dtype
        assert got[name].is_contiguous()
        assert got[name].data_ptr() % 64 == 0
        got[name].fill_(number + 1)
    for number, name in enumerate(wanted):
        assert bool((got[name].float() == number + 1).all())


def test_the_memory_goes_with_the_last_tensor() -> None:
    a, b = in_large_pages({"a": ((5_000_000,), torch.uint8), "b": ((8,), torch.float32)}).values()
    whole = weakref.ref(a.untyped_storage())
    del a
    gc.collect()
    assert whole() is not None
    b.fill_(2.0)
    assert float(b.sum()) == 16.0
    del b
    gc.collect()
    assert whole() is None


def test_in_inference_mode_it_can_be_written_later() -> None:
    with torch.inference_mode():
        x = in_large_pages({"x": ((4_000_000,), torch.uint8)})["x"]
    x.fill_(1)
    assert not x.is_inference()
