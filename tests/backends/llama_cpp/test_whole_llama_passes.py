"""Passes of llama.cpp are whole or did not happen: of one cache, of several at once, of one call in many
pieces."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupts import interrupted, some_lines
from llama_alone import divergence
from tiny_gguf import Tiny, write

import sakuin
from sakuin.backends.llama_cpp import locate
from sakuin.config import RetrievalConfig
from sakuin.context.generate import prefill
from sakuin.errors import SakuinError

pytestmark = pytest.mark.skipif(not locate.available(), reason="there is no llama.cpp here")

FLAT = RetrievalConfig(index="flat", sink=4, recent=16, segment=64)
SKETCH = RetrievalConfig(sink=4, recent=16, segment=64)
ROOMS = ("backends/llama_cpp", "cache", "index", "attention")
READ, NEW = 200, 90
NAMES = ("llama", "gemma3", "lfm2")


@pytest.fixture(scope="module", params=NAMES)
def tiny(request: Any, tmp_path_factory: Any) -> Tiny:
    return write(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> Any:
    return sakuin.load(tiny.gguf, dtype="fp32", backend="llama.cpp")[0]


def read(model: Any, tiny: Tiny, config: RetrievalConfig | None = FLAT, n: int = READ) -> Any:
    cache = model.new_cache(config)
    prefill(model, cache, tiny.tokens(n)[0].tolist())
    return cache


def alike(expected: torch.Tensor, got: torch.Tensor) -> bool:
    return bool(divergence(expected, got).max() < 1e-4)


def check_any_line(
    model: Any, caches: list[Any], ids: list[list[int]], n: int, steps: list[int] | None = None
) -> None:
    """Interrupt a pass of these caches at n of its lines: all have taken their tokens, or none has."""

    def run(forks: list[Any]) -> list[torch.Tensor]:
        found: list[torch.Tensor] = model.forward_together(forks, ids)
        return found

    steps = steps or [9, 10, 11]
    held = [cache.n_tokens for cache in caches]
    forks = [model.fork(cache) for cache in caches]
    expected = run(forks)
    later = [torch.stack([model.forward(fork, [step]) for step in steps]) for fork in forks]
    for line in some_lines(lambda: run([model.fork(cache) for cache in caches]), ROOMS, n):
        forks = [model.fork(cache) for cache in caches]
        interrupted(lambda forks=forks: run(forks), line, ROOMS)
        if model.loaded.recurrent and any(fork.lost for fork in forks):
            lost = next(fork for fork in forks if fork.lost)
            with pytest.raises(SakuinError, match="was lost when a step was stopped"):
                model.forward(lost, [9])
            continue
        taken = {fork.n_tokens - n for fork, n in zip(forks, held, strict=True)}
        whole = [fork.n_tokens - n == len(each) for fork, n, each in zip(forks, held, ids, strict=True)]
        assert all(whole) or taken == {0}, line
        if not all(whole):
            assert alike(torch.stack(expected), torch.stack(run(forks))), line
        for fork, wanted in zip(forks, later, strict=True):
            got = torch.stack([model.forward(fork, [step]) for step in steps])
            assert alike(wanted, got), line


@pytest.mark.parametrize("t", [1, NEW])
def test_an_interrupt_at_any_line_leaves_all_or_nothing(tiny: Tiny, model: Any, t: int) -> None:
    ids = tiny.tokens(t, seed=5)[0].tolist()
    for config in (FLAT, None):
        check_any_line(model, [read(model, tiny, config)], [ids], 6)


def test_several_caches_take_their_tokens_together_or_not_at_all(tiny: Tiny, model: Any) -> None:
    caches = [read(model, tiny, SKETCH, READ + 40 * i) for i in range(3)]
    ids = [tiny.tokens(length, seed=5)[0].tolist() for length in (1, 3, 2)]
    check_any_line(model, caches, ids, 8)


@pytest.mark.slow
@pytest.mark.parametrize("config", [FLAT, SKETCH, None], ids=["flat", "sketch", "full"])
def test_an_interrupt_at_many_lines_leaves_all_or_nothing(
    tiny: Tiny, model: Any, config: RetrievalConfig | None
) -> None:
    for t in (1, 12, NEW):
        check_any_line(model, [read(model, tiny, config)], [tiny.tokens(t, seed=5)[0].tolist()], 80)
    caches = [read(model, tiny, config, READ + 40 * i) for i in range(3)]
    for lengths in ((1, 1, 1), (1, 3, 2), (2, 40, 90)):
        ids = [tiny.tokens(length, seed=5)[0].tolist() for length in lengths]
        check_any_line(model, caches, ids, 80)


class Stop(Exception):
    pass


def failing_run(model: Any, monkeypatch: pytest.MonkeyPatch, passes: int) -> None:
    """From now on the pass after so many raises."""
    run, left = model.loaded.run, [passes]

    def stop(*given: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Stop
        run(*given)

    monkeypatch.setattr(model.loaded, "run", stop)


def test_a_call_in_several_pieces_is_whole(tiny: Tiny, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tiny.tokens(600, seed=5)[0].tolist()
    cache, steps = read(model, tiny), [9, 10]
    other = model.fork(cache)
    expected = [model.forward(other, long, every=True)[-1], *(model.forward(other, [step]) for step in steps)]
    failing_run(model, monkeypatch, 2)  # 600 logits are given in three pieces
    with pytest.raises(Stop):
        model.forward(cache, long, every=True)
    assert cache.n_tokens == READ
    monkeypatch.undo()
    got = [model.forward(cache, long, every=True)[-1], *(model.forward(cache, [step]) for step in steps)]
    assert alike(torch.stack(expected), torch.stack(got))


def test_a_length_that_is_refused_changes_no_cache(
    tiny: Tiny, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    caches = [read(model, tiny), read(model, tiny, n=READ + 40)]
    expected = [model.forward(model.fork(cache), [9]) for cache in caches]
    monkeypatch.setattr(model.loaded, "options", replace(model.loaded.options, most_tokens=READ + 42))
    with pytest.raises(SakuinError, match="LongRoPE"):
        model.forward_together(caches, [[9], [9, 10, 11]])
    monkeypatch.undo()
    assert [cache.n_tokens for cache in caches] == [READ, READ + 40]
    got = [model.forward(cache, [9]) for cache in caches]
    assert alike(torch.stack(expected), torch.stack(got))


@pytest.mark.parametrize("odd", [384, -1, 10**12])
def test_a_token_that_the_model_does_not_have_is_named(tiny: Tiny, model: Any, odd: int) -> None:
    cache = read(model, tiny)
    expected = model.forward(model.fork(cache), [9])
    for ids in ([odd], [9, odd], [*range(10, 100), odd]):
        with pytest.raises(SakuinError, match=f"the model has 384 tokens, and {odd:,} is none of them"):
            model.forward(cache, ids)
        with pytest.raises(SakuinError, match="is none of them"):
            model.forward_together([cache, model.fork(cache)], [[9], ids])
        assert cache.n_tokens == READ
    with pytest.raises(TypeError, match="tokens must be whole numbers, got 'a'"):
        model.forward(cache, ["a"])
    with pytest.raises(SakuinError, match="at least one token"):
        model.forward(cache, [])
    assert alike(expected, model.forward(cache, [9]))


def test_a_state_that_was_lost_is_not_handed_to_forks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = write("lfm2", tmp_path)
    model, _ = sakuin.load(tiny.gguf, dtype="fp32", backend="llama.cpp")
    cache = read(model, tiny)
    before = model.fork(cache)
    monkeypatch.setattr(model.loaded, "logits", lambda row: (_ for _ in ()).throw(Stop()))
    with pytest.raises(Stop):
        model.forward(cache, [9])
    monkeypatch.undo()
    for use in (lambda: model.fork(cache), lambda: model.forward(cache, [9])):
        with pytest.raises(SakuinError, match="was lost when a step was stopped"):
            use()
    assert model.forward(before, [9]).isfinite().all()


def test_several_caches_of_one_pass_count_a_step_each(tmp_path: Path) -> None:
    tiny = write("llama", tmp_path)
    model, _ = sakuin.load(tiny.gguf, dtype="fp32", backend="llama.cpp")
    caches = [read(model, tiny, SKETCH, READ + 40 * i) for i in range(3)]
    for _ in range(4):
        model.forward_together(caches, [[9], [10], [11]])
    assert [cache.whole.stats()["steps"] for cache in caches] == [4, 4, 4]


def test_copies_and_pickles_of_a_model_of_llama_cpp(tmp_path: Path) -> None:
    tiny = write("llama", tmp_path)
    model, vocabulary = sakuin.load(tiny.gguf, dtype="fp32", backend="llama.cpp")
    cache = read(model, tiny)
    expected = model.forward(model.fork(cache), [9])
    same: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy]
    for copied in same:
        other = copied(model)
        assert torch.equal(other.forward(other.fork(cache), [9]), expected)
        assert copied(vocabulary).decode([40, 41]) == vocabulary.decode([40, 41])
        with pytest.raises(TypeError, match=r"model\.fork\(cache\)"):
            copied(cache)
    for one, words in ((model, "load it there"), (vocabulary, "sakuin.load"), (cache, "context.save")):
        with pytest.raises(TypeError, match=f"cannot be pickled .*{words}"):
            pickle.dumps(one)


def test_autocast_of_the_caller_does_not_reach_a_pass(tmp_path: Path) -> None:
    tiny = write("llama", tmp_path)
    model, _ = sakuin.load(tiny.gguf, dtype="fp32", backend="llama.cpp")
    ids = tiny.tokens(READ)[0].tolist()
    cache, other = model.new_cache(FLAT), model.new_cache(FLAT)
    expected = [model.forward(cache, ids), model.forward(cache, [9])]
    with torch.autocast("cpu", torch.bfloat16):
        got = [model.forward(other, ids), model.forward(other, [9])]
    assert torch.equal(torch.stack(got), torch.stack(expected))
