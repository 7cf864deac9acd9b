"""Attention mass of steps that go through the layers without Python, beside the same steps in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gguf import write
from torch import Tensor

import sakuin
from sakuin.backends.llama_cpp import locate
from sakuin.config import RetrievalConfig
from sakuin.context.generate import prefill

pytestmark = pytest.mark.skipif(not locate.available(), reason="there is no llama.cpp here")

READ, SAID = 300, 36
ABOVE = 0.02
"""Weights are random: nothing is looked up, and the mean share of a token is 1 / 300."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: Any) -> Any:
    path: Path = tmp_path_factory.mktemp("mass")
    found, _ = sakuin.load(write("qwen2", path).gguf, dtype="fp32", backend="llama.cpp")
    return found


def tokens(n: int) -> list[int]:
    return torch.randint(5, 60, (n,), generator=torch.Generator().manual_seed(3)).tolist()


def read(model: Any, n: int = READ, **settings: Any) -> Any:
    cache = model.new_cache(RetrievalConfig(sink=16, recent=64, **settings))
    prefill(model, cache, tokens(n))
    cache.whole.seal()
    return cache


def decoded(model: Any, cache: Any, piece: int, above: float) -> tuple[Tensor, Tensor]:
    """Mass and logits of more tokens, so many in a pass."""
    cache.whole.track_mass(True, above=above)
    more = tokens(READ + SAID)[READ:]
    logits = [model.forward(cache, more[at : at + piece]) for at in range(0, SAID, piece)]
    return cache.whole.mass(), torch.stack(logits)


@pytest.mark.parametrize("piece", [1, 3])
@pytest.mark.parametrize("above", [0.0, ABOVE])
@pytest.mark.parametrize("n", [READ, 70])
def test_mass_is_that_of_steps_in_python(model: Any, piece: int, above: float, n: int) -> None:
    cache = read(model, n)
    fork = model.fork(cache)
    mass, logits = decoded(model, cache, piece, above)
    with model.attention_hook(lambda call: None):  # which has every layer go through Python
        expected, theirs = decoded(model, fork, piece, above)
    assert mass.shape == (model.shape.n_kv_heads, n + SAID)
    torch.testing.assert_close(mass, expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(logits, theirs, atol=1e-3, rtol=1e-3)
    assert bool((mass > 0).all()) == (above == 0)
    assert bool(mass.any())


def test_what_counts_is_a_part_of_all(model: Any) -> None:
    cache = read(model)
    fork = model.fork(cache)
    everything, _ = decoded(model, cache, 1, 0.0)
    counted, _ = decoded(model, fork, 1, ABOVE)
    assert bool((counted <= everything + 1e-5).all())
    assert 0 < counted.sum() < 0.9 * everything.sum()


def test_taken_mass_begins_again_and_adds_up_to_all(model: Any) -> None:
    cache = read(model)
    fork = model.fork(cache)
    expected, _ = decoded(model, cache, 1, ABOVE)
    fork.whole.track_mass(True, above=ABOVE)
    total = torch.zeros(READ + SAID)
    for token in tokens(READ + SAID)[READ:]:
        model.forward(fork, [token])
        at, taken = fork.whole.take_mass()
        total[at] += taken
    torch.testing.assert_close(total, expected.sum(0), atol=1e-5, rtol=1e-4)
    assert len(fork.whole.take_mass()[0]) == 0
