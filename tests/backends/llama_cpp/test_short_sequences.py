"""Sequences that are shorter than their sink tokens: steps need no Python there either, and are exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from llama_alone import divergence
from tiny_gguf import write

import sakuin
from sakuin.backends.llama_cpp import locate
from sakuin.config import RetrievalConfig

pytestmark = pytest.mark.skipif(not locate.available(), reason="there is no llama.cpp here")

SINK, N = 16, 40


@pytest.fixture(scope="module", params=("llama", "gpt-oss", "gemma3"))
def model(request: Any, tmp_path_factory: Any) -> Any:
    folder: Path = tmp_path_factory.mktemp(request.param)
    return sakuin.load(write(request.param, folder).gguf, dtype="fp32", backend="llama.cpp")[0]


def test_every_step_from_the_second_token_on_needs_no_python(model: Any) -> None:
    cache = model.new_cache(RetrievalConfig(sink=SINK, recent=64))
    model.forward(cache, [5])
    for token in range(N):
        full = [cache.native_steps(1)[i] for i, kind in enumerate(model.shape.layers) if kind == "full"]
        assert None not in full
        model.forward(cache, [token])


@pytest.mark.parametrize("runs", [[1] * N, [3, 1, 5, 4, 1, 6, 1, 1, 9, 1, 1, 7], [15, 1, 1, 23], [17, 1, 22]])
def test_they_attend_exactly_whatever_their_lengths(model: Any, runs: list[int]) -> None:
    ids = [7 + i % 40 for i in range(N)]
    cache, exact = (
        model.new_cache(config) for config in (RetrievalConfig(sink=SINK, recent=64, exact_above=8), None)
    )
    fork, done = None, 0
    for n in runs:
        got, expected = (model.forward(each, ids[done : done + n]) for each in (cache, exact))
        assert divergence(expected[None], got[None]).max() < 2e-5
        done += n
        if fork is None and done >= 9:
            fork, at = model.fork(cache), done
    assert fork is not None
    again = torch.stack([model.forward(fork, [token]) for token in ids[at:]])
    assert divergence(expected[None], again[-1:]).max() < 2e-5
