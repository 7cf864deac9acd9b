"""What a file takes of memory is told from its header, and refused where it cannot work well."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from tiny_gguf import write

from sakuin.backends.llama_cpp import footprint, locate
from sakuin.backends.llama_cpp.footprint import Footprint, check
from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.llama_cpp.load import load
from sakuin.backends.llama_cpp.loaded import Options
from sakuin.backends.llama_cpp.shape import shape_of
from sakuin.errors import SakuinError
from sakuin.machine.memory import Available

pytestmark = pytest.mark.skipif(locate.find() is None, reason="no llama.cpp is installed")

GB = 10**9


def needed(path: Path, **options: int) -> tuple[Header, Footprint]:
    header = Header.read(path)
    return header, footprint.footprint(header, shape_of(header), Options(torch.float32, 1, **options))


def test_weights_count_as_the_file_has_them(tmp_path: Path) -> None:
    header, need = needed(write("qwen2", tmp_path).gguf)
    assert need.weights == header.nbytes == sum(tensor.nbytes for tensor in header.tensors)
    assert need.always == need.weights - header.by_name["token_embd.weight"].nbytes
    assert "output.weight" in header.by_name


def test_a_table_of_words_that_is_the_output_too_is_read_by_every_token(tmp_path: Path) -> None:
    header, need = needed(write("gemma2", tmp_path).gguf)
    assert "output.weight" not in header.by_name
    assert need.always == need.weights


def test_of_experts_a_token_reads_a_few(tmp_path: Path) -> None:
    header, need = needed(write("qwen3moe", tmp_path).gguf)
    experts = sum(tensor.nbytes for tensor in header.tensors if "_exps" in tensor.name)
    assert experts > 0
    assert need.always <= need.weights - experts


def test_layers_on_a_gpu_take_no_memory_here(tmp_path: Path) -> None:
    for architecture in ("qwen2", "gemma2"):  # gemma2's table of words is the output too
        path = write(architecture, tmp_path).gguf
        header, _ = needed(path)
        whole, half, none = (needed(path, gpu_layers=n)[1] for n in (0, 1, -1))
        assert whole.weights >= half.weights > none.weights == header.by_name["token_embd.weight"].nbytes
        assert whole.always > half.always > none.always == 0


def test_a_pass_of_more_tokens_takes_more_to_compute_in(tmp_path: Path) -> None:
    path = write("qwen2", tmp_path).gguf
    assert needed(path, chunk=2048)[1].buffers > needed(path, chunk=512)[1].buffers


def test_what_every_token_reads_must_fit(caplog: pytest.LogCaptureFixture) -> None:
    have = Available(4 * GB, "are left of this container's limit of 5.00 GB")
    check("m.gguf", Footprint(3 * GB, 3 * GB, GB // 2), have)
    assert not caplog.records
    words = (
        r"m\.gguf needs about 5\.50 GB of memory \(5\.00 GB for weights, 0\.50 GB to compute in\), and "
        r"4\.00 GB are left of this container's limit of 5\.00 GB; take a smaller model"
    )
    with pytest.raises(SakuinError, match=words):
        check("m.gguf", Footprint(5 * GB, 5 * GB, GB // 2), have)
    with caplog.at_level(logging.WARNING, "sakuin"):
        check("m.gguf", Footprint(9 * GB, 1 * GB, GB // 2), have)
    assert "m.gguf has 9.00 GB of weights, and 4.00 GB are left" in caplog.text


def test_it_is_told_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("qwen2", tmp_path).gguf
    little = Available(GB // 20, "of this machine's memory are free")
    monkeypatch.setattr(footprint, "available", lambda: little)
    monkeypatch.setattr("sakuin.backends.llama_cpp.load.Loaded", None)
    with pytest.raises(SakuinError, match="50 MB of this machine's memory are free"):
        load(path)


def test_the_estimate_is_near_what_a_pass_takes(tmp_path: Path) -> None:
    """Not less than what a process holds after a pass, and not several times as much."""
    made = write("qwen2", tmp_path)
    _, need = needed(made.gguf, chunk=1024)

    def held() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))

    before = held()
    model, _ = load(made.gguf, dtype="fp32", threads=1)
    model.forward(model.new_cache(None), made.tokens(2048)[0].tolist())
    assert held() - before < need.buffers
    assert need.buffers < 1 << 28
