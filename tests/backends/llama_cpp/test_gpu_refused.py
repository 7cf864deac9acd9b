"""What is told where layers cannot go to a GPU, and how much would go there: no GPU is needed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_gguf import Tiny, write

import sakuin
from sakuin.backends.llama_cpp import gpu, locate
from sakuin.backends.llama_cpp.footprint import footprint
from sakuin.backends.llama_cpp.gpu import Gpu
from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.llama_cpp.library import library
from sakuin.backends.llama_cpp.loaded import Options
from sakuin.backends.llama_cpp.shape import shape_of
from sakuin.errors import SakuinError

pytestmark = pytest.mark.skipif(not locate.available(), reason="there is no llama.cpp here")


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return write("qwen2", tmp_path)


def settle(tiny: Tiny, asked: int) -> int:
    return gpu.settle("m.gguf", asked, Header.read(tiny.gguf), tiny.n_layers, library())


def with_gpu(monkeypatch: pytest.MonkeyPatch, free: int, total: int = 1 << 40) -> None:
    monkeypatch.setattr(gpu, "gpus", lambda _: (Gpu("Vulkan0", "a small one", free, total),))


@pytest.mark.parametrize("layers", ["all", 1, 10**30])
def test_a_library_without_a_gpu_is_named(
    tiny: Tiny, layers: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "gpus", lambda _: ())
    monkeypatch.setattr("sakuin.backends.llama_cpp.load.Loaded", None)
    words = r"^gpu_layers needs a llama\.cpp with a GPU, and \S+.* has none here: .* SAKUIN_LLAMA_LIBRARY"
    with pytest.raises(SakuinError, match=words):
        sakuin.load(tiny.gguf, dtype="fp32", backend="llama.cpp", gpu_layers=layers)


def test_without_layers_there_nothing_is_asked(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "gpus", None)
    assert settle(tiny, 0) == 0


@pytest.mark.parametrize(("asked", "taken"), [(1, 1), (3, 3), (4, -1), (10**30, -1), (-1, -1)])
def test_more_layers_than_there_are_is_all(
    tiny: Tiny, asked: int, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny.n_layers == 3
    with_gpu(monkeypatch, 1 << 40)
    assert settle(tiny, asked) == taken


def test_a_gpu_that_is_too_small_is_told_with_what_would_fit(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = Header.read(tiny.gguf)
    one, two = (gpu.gpu_nbytes(header, tiny.n_layers, n) for n in (1, 2))
    with_gpu(monkeypatch, one)
    words = r"m\.gguf has .* of weights in the layers that shall go to Vulkan0 \(a small one\), where .* are "
    with pytest.raises(SakuinError, match=words + r"free: 1 of 4 layers would fit \(gpu_layers=1\)\."):
        settle(tiny, -1)
    with_gpu(monkeypatch, one - 1)
    with pytest.raises(SakuinError, match=words + r"free: leave gpu_layers out\."):
        settle(tiny, 2)
    with_gpu(monkeypatch, two)
    assert settle(tiny, 2) == 2
    with_gpu(monkeypatch, 0, total=0)  # one that does not tell
    assert settle(tiny, -1) == -1


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2", "qwen3moe"])
def test_each_weight_lies_in_one_place(architecture: str, tmp_path: Path) -> None:
    """But for a table of words that is the output too."""
    header = Header.read(write(architecture, tmp_path).gguf)
    n_layers = len(shape_of(header).layers)
    twice = 0 if "output.weight" in header.by_name else header.by_name["token_embd.weight"].nbytes
    before = -1
    for layers in (0, 1, n_layers, -1):
        there = gpu.gpu_nbytes(header, n_layers, layers)
        here = footprint(header, shape_of(header), Options(torch.float32, 1, gpu_layers=layers)).weights
        assert here + there == header.nbytes + (twice if layers else 0)
        assert there > before
        before = there
    assert here == header.by_name["token_embd.weight"].nbytes
