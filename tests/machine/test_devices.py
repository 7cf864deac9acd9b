"""Which device and which dtype a word means here, and a sentence where it means none."""

from __future__ import annotations

import pytest
import torch

from sakuin.errors import SakuinError
from sakuin.machine import cpu, devices


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ({"avx2", "avx512f"}, torch.float32),
        ({"avx512f", "avx512_bf16"}, torch.bfloat16),
        ({"amx_bf16"}, torch.bfloat16),
        (set(), torch.float32),
    ],
)
def test_auto_is_bf16_only_where_the_cpu_multiplies_it(
    flags: set[str], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset(flags))
    assert devices.resolve_dtype("auto", "cpu") == dtype
    assert devices.resolve_dtype("auto", "cuda") == torch.bfloat16
    assert devices.resolve_dtype("fp16", "cpu") == torch.float16


def test_an_unknown_dtype_is_named() -> None:
    with pytest.raises(SakuinError, match="'int3'"):
        devices.resolve_dtype("int3")


def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.resolve_device() == torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert devices.resolve_device("cpu") == devices.resolve_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.resolve_device() == devices.resolve_device("cuda") == torch.device("cuda")
    assert devices.resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(SakuinError, match=r"no device 'cuda:2': torch sees 2 GPUs here, cuda:0 to cuda:1\."):
        devices.resolve_device("cuda:2")
