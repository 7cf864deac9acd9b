"""Threads of a llama.cpp with and without OpenMP."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from tiny_gguf import write

from sakuin.backends.llama_cpp import locate, pool
from sakuin.backends.llama_cpp.library import library
from sakuin.backends.llama_cpp.load import load

pytestmark = pytest.mark.skipif(locate.find() is None, reason="no llama.cpp is installed")

PARALLEL = """
int sum(int n) {
    int all = 0;
#pragma omp parallel for reduction(+ : all)
    for (int i = 0; i < n; ++i) all += i;
    return all;
}
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.parametrize("openmp", [True, False])
def test_whether_a_library_uses_openmp_shows_in_its_symbols(tmp_path: Path, openmp: bool) -> None:
    (tmp_path / "sum.c").write_text(PARALLEL)
    made = tmp_path / "libsum.so"
    flags = ["-fopenmp"] if openmp else []
    built = subprocess.run(["gcc", "-shared", "-fPIC", *flags, tmp_path / "sum.c", "-o", made])
    if built.returncode and openmp:
        pytest.skip("gcc has no OpenMP here")
    assert pool.uses_openmp((made,)) == openmp


def test_threads_of_its_own_compute_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = write("qwen2", tmp_path)
    ids = made.tokens(80)[0].tolist()
    before, _ = load(made.gguf, dtype="fp32", threads=2)
    monkeypatch.setattr(pool, "uses_openmp", lambda _: False)
    model, _ = load(made.gguf, dtype="fp32", threads=2)
    assert model.loaded._held["pool"] is not None
    caches = [each.new_cache(None) for each in (before, model)]
    for part in (ids[:70], *([token] for token in ids[70:])):
        expected, got = before.forward(caches[0], part), model.forward(caches[1], part)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_with_openmp_there_are_none() -> None:
    if pool.uses_openmp(library().found.files):
        assert pool.own_threads(library(), 2) is None
