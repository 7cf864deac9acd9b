"""The backend of llama.cpp beside llama.cpp alone and transformers, over tiny models of every architecture
that it takes."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_alone import Alone, divergence
from tiny_gguf import ARCHITECTURES, HYBRIDS, Tiny, write

import sakuin
from sakuin.attention.exact import attend_blocks
from sakuin.backends.hooks import AttentionCall
from sakuin.backends.llama_cpp import locate
from sakuin.backends.open import backend_of
from sakuin.cache.sequence import QUERY_STEP
from sakuin.config import RetrievalConfig
from sakuin.context.generate import prefill
from sakuin.errors import SakuinError

pytestmark = pytest.mark.skipif(not locate.available(), reason="there is no llama.cpp here")

FLAT = RetrievalConfig(index="flat", sink=16, recent=64)
SKETCH = RetrievalConfig(sink=16, recent=64)
READ, SAID = 300, 64
# Routers flip an expert at the least rounding; llama.cpp keeps windows in fp16.
CLOSE = {"exaone4-sliding": 3e-4, "gemma2": 2e-5, "gemma3": 2e-5, "olmo3": 2e-5, "gpt-oss": 2e-5}


@pytest.fixture(scope="module", params=(*ARCHITECTURES, *HYBRIDS))
def tiny(request: Any, tmp_path_factory: Any) -> Tiny:
    return write(request.param, tmp_path_factory.mktemp(request.param))


def load(tiny: Tiny, **more: Any) -> Any:
    # LongRoPE has two sets of frequencies: those of the length that llama.cpp alone is given.
    window = 100_000 if tiny.architecture == "phi3-long" else None
    model, _ = sakuin.load(tiny.gguf, dtype="fp32", backend="llama.cpp", window=window, **more)
    return model


def said(model: Any, cache: Any, ids: list[int]) -> torch.Tensor:
    return torch.stack([model.forward(cache, [token]) for token in ids])


def test_logits_are_those_of_llama_cpp_and_of_transformers(tiny: Tiny) -> None:
    ids = tiny.tokens(READ + SAID)
    with Alone(tiny.gguf) as alone:
        theirs = alone.feed(ids)[0, READ:]
    with torch.no_grad():
        expected = tiny.model(ids).logits[0, READ:]
    model = load(tiny)
    tokens = ids[0].tolist()
    for config in (None, FLAT):
        cache = model.new_cache(config)
        for at in range(0, READ, 100):
            model.forward(cache, tokens[at : at + 100])
        got = said(model, cache, tokens[READ:])
        limit = CLOSE.get(tiny.architecture, 2e-6)
        assert divergence(theirs, got).max() < limit, f"{config} against llama.cpp alone"
        assert divergence(expected, got).max() < limit, f"{config} against transformers"


def test_layers_are_what_the_header_says(tiny: Tiny) -> None:
    model = load(tiny)
    kinds = model.shape.layers
    assert [i for i, kind in enumerate(kinds) if kind == "full"] == list(tiny.full)
    seen = {each.layer: each for each in model.loaded.seen}
    assert set(tiny.full) <= set(seen)
    sliding = [layer for layer, each in seen.items() if each.cells != model.loaded.cells]
    assert sorted(sliding) == sorted(tiny.sliding)


def test_of_llama_cpps_own_store_only_windows_take_memory(tiny: Tiny) -> None:
    model = load(tiny)
    session = model.loaded.session
    kept_here = [seen for seen in model.loaded.seen if model.shape.layers[seen.layer] == "full"]
    stored = sum(2 * 2 * each.cells * each.kv_heads * each.head_dim for each in kept_here)
    assert 0.9 * stored <= session.given_back <= stored


def test_a_fork_goes_its_own_way(tiny: Tiny) -> None:
    model = load(tiny)
    tokens = tiny.tokens(READ + 40)[0].tolist()
    cache = model.new_cache(SKETCH)
    prefill(model, cache, tokens[:READ])
    fork = model.fork(cache)
    model.forward(fork, tokens[:20])
    straight = model.new_cache(SKETCH)
    prefill(model, straight, tokens[:READ])
    expected = said(model, straight, tokens[READ:])
    assert divergence(expected, said(model, cache, tokens[READ:])).max() < 1e-4
    assert model.fork(fork).n_tokens == READ + 20


def test_several_sequences_in_one_pass_are_as_one_by_one(tiny: Tiny) -> None:
    model = load(tiny)
    tokens = tiny.tokens(READ)[0].tolist()
    caches = []
    for i in range(3):
        cache = model.new_cache(SKETCH)
        prefill(model, cache, tokens[i : 150 + 20 * i])
        caches.append(cache)
    forks = [model.fork(cache) for cache in caches]
    for step in range(4):
        alone = [model.forward(cache, [tokens[200 + step + i]]) for i, cache in enumerate(caches)]
        together = model.forward_together(forks, [[tokens[200 + step + i]] for i in range(3)])
        assert divergence(torch.stack(alone), torch.stack(together)).max() < 1e-3


def test_the_state_of_windows_goes_on_from_a_snapshot(tiny: Tiny) -> None:
    model = load(tiny)
    tokens = tiny.tokens(READ + 8)[0].tolist()
    cache = model.new_cache(FLAT)
    prefill(model, cache, tokens[:READ])
    cache.whole.seal()
    state = model.window_state(cache)
    assert bool(state) == bool(tiny.sliding or tiny.recurrent)
    other = model.fork(cache)
    other.window, other.slot = None, None
    model.restore_windows(other, state, READ)
    got, expected = said(model, other, tokens[READ:]), said(model, cache, tokens[READ:])
    assert divergence(expected, got).max() < 1e-4


def test_a_filled_cache_goes_on_as_one_that_read_the_tokens(tiny: Tiny) -> None:
    model = load(tiny)
    tokens = tiny.tokens(READ + 8)[0].tolist()
    source, queries = model.new_cache(None), {}

    def keep(call: AttentionCall) -> None:
        queries[call.layer] = call.q[0, :, ::QUERY_STEP].clone()

    with model.attention_hook(keep):
        model.forward(source, tokens[:READ])
    filled = model.filled(FLAT, source, queries)
    got = said(model, model.fork(filled), tokens[READ:])
    assert divergence(said(model, source, tokens[READ:]), got).max() < 1e-4


class Stop(Exception):
    pass


def test_an_exception_in_a_layer_stops_the_pass_and_leaves_the_cache_whole(tiny: Tiny) -> None:
    model = load(tiny)
    tokens = tiny.tokens(READ + 8)[0].tolist()
    cache, other = model.new_cache(FLAT), model.new_cache(FLAT)
    prefill(model, cache, tokens[:200])
    prefill(model, other, tokens[:200])

    def stop(call: AttentionCall) -> None:
        if call.layer == tiny.full[-1]:
            raise Stop

    with pytest.raises(Stop), model.attention_hook(stop):
        model.forward(cache, tokens[200:READ])
    assert cache.n_tokens == 200
    prefill(model, cache, tokens[200:READ])
    prefill(model, other, tokens[200:READ])
    got, expected = said(model, cache, tokens[READ:]), said(model, other, tokens[READ:])
    assert divergence(expected, got).max() < 1e-4


def test_a_hook_sees_what_goes_into_attention_and_what_comes_out(tiny: Tiny) -> None:
    model = load(tiny)
    layers = []

    def look(call: AttentionCall) -> None:
        expected = attend_blocks(call.q[0], call.keys[0], call.values[0], [], call.softmax)
        torch.testing.assert_close(call.out[0], expected.transpose(0, 1))
        layers.append(call.layer)

    with model.attention_hook(look):
        model.forward(model.new_cache(None), tiny.tokens(40)[0].tolist())
    assert layers == list(tiny.full)


def test_a_model_is_its_own_backend(tmp_path: Path) -> None:
    tiny = write("qwen2", tmp_path)
    model, vocabulary = sakuin.load(tiny.gguf, dtype="fp32", backend="llama.cpp")
    assert backend_of(model, vocabulary) is model
    assert model.source == str(tiny.gguf)
    assert model.dtype == torch.float32
    cache = model.new_cache(FLAT)
    with pytest.raises(ValueError, match="twice"):
        model.forward_together([cache, cache], [[1], [2]])


def test_longrope_is_refused_beyond_the_length_where_it_changes(tmp_path: Path) -> None:
    tiny = write("phi3-long", tmp_path)
    model, _ = sakuin.load(tiny.gguf, dtype="fp32", backend="llama.cpp")
    limit = model.loaded.options.most_tokens
    assert limit == 256
    cache = model.new_cache(FLAT)
    prefill(model, cache, tiny.tokens(250)[0].tolist())
    with pytest.raises(SakuinError, match="LongRoPE"):
        model.forward(cache, [1] * 10)
    assert cache.n_tokens == 250


def test_what_transformers_models_have_is_told_to_be_theirs(tmp_path: Path) -> None:
    model, _ = sakuin.load(write("qwen2", tmp_path).gguf, dtype="fp32", backend="llama.cpp")
    for name in ("config", "generate"):
        with pytest.raises(AttributeError, match='backend="transformers"'):
            getattr(model, name)
    with pytest.raises(AttributeError, match="no attribute 'wings'"):
        _ = model.wings


def test_a_model_that_nobody_holds_is_freed(tmp_path: Path) -> None:
    model, vocabulary = sakuin.load(write("qwen2", tmp_path).gguf, dtype="fp32", backend="llama.cpp")
    cache = model.new_cache(SKETCH)
    prefill(model, cache, [1, 2, 3] * 20)
    held = weakref.ref(model.loaded)
    del model, vocabulary, cache
    gc.collect()
    assert held() is None


@pytest.mark.parametrize("n", [100, 128, 129, 140, 192, 193, 400])
def test_passes_of_any_length_are_one_prompt(n: int, tmp_path: Path) -> None:
    """Lengths beyond what llama.cpp is given at once, which ends the process where it is exceeded."""
    tiny = write("llama", tmp_path)
    ids = tiny.tokens(n + 1)
    with torch.no_grad():
        expected = tiny.model(ids).logits[0]
    model = load(tiny)
    model._use(replace(model.loaded.options, chunk=128))
    tokens = ids[0].tolist()
    for config in (None, FLAT):
        cache = model.new_cache(config)
        prefill(model, cache, tokens[:n])
        assert divergence(expected[n:], model.forward(cache, tokens[n:])[None]).max() < 2e-6
        straight = model.forward(model.new_cache(config), tokens, every=True)
        assert divergence(expected, straight).max() < 2e-6
        (together,) = model.forward_together([model.new_cache(config)], [tokens])
        assert divergence(expected[n:], together[None]).max() < 2e-6


def test_after_a_long_pass_what_it_has_used_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(write("llama", tmp_path))
    closed: list[int] = []
    monkeypatch.setattr("sakuin.backends.llama_cpp.backend.close_holes", lambda: closed.append(1))
    cache = model.new_cache(FLAT)
    model.forward(cache, [3] * 600)
    model.forward(cache, [4])
    assert closed == [1]
