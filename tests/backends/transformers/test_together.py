"""The next token of several sequences in one pass: what each would get alone, all of them or none."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from stored import CONFIG
from tiny import tiny

from sakuin.backends.base import Backend
from sakuin.backends.open import backend_of
from sakuin.backends.transformers import together

LENGTHS = (5, 40, 300, 17)


def caches_of(backend: Backend, lengths: tuple[int, ...] = LENGTHS) -> list[Any]:
    found = []
    for n in lengths:
        found.append(backend.new_cache(CONFIG))
        backend.forward(found[-1], [(7 * i + n) % 90 for i in range(n)])
    return found


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "granite", "gpt_neox", "mixtral"])
def test_each_row_gets_what_it_would_get_alone(family: str) -> None:
    model = tiny(family)
    backend = backend_of(model)
    caches = caches_of(backend)
    forks = [backend.fork(cache) for cache in caches]
    for step in range(4):
        ids = [[(3 * i + step) % 90] for i in range(len(caches))]
        assert len(backend.groups(caches, ids)) == 1
        found = backend.forward_together(caches, ids)
        for logits, fork, own in zip(found, forks, ids, strict=True):
            assert torch.allclose(logits, backend.forward(fork, own), atol=1e-4)
    for cache, fork in zip(caches, forks, strict=True):
        assert cache.get_seq_length() == fork.get_seq_length()
        assert torch.allclose(backend.forward(cache, [1]), backend.forward(fork, [1]), atol=1e-4)


@pytest.mark.parametrize("family", ["gemma3_text", "gpt_oss"])
def test_models_with_layers_of_their_own_are_computed_one_by_one(family: str) -> None:
    backend = backend_of(tiny(family))
    caches = caches_of(backend, (5, 40))
    forks = [backend.fork(cache) for cache in caches]
    assert backend.groups(caches, [[1], [2]]) == [[0], [1]]
    for logits, fork, token in zip(
        backend.forward_together(caches, [[1], [2]]), forks, ([1], [2]), strict=True
    ):
        assert torch.allclose(logits, backend.forward(fork, token), atol=1e-5)


def test_a_model_that_counts_positions_itself_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    forward = type(model).forward

    @functools.wraps(forward)
    def counting(self: Any, *given: Any, **named: Any) -> Any:
        return forward(self, *given, **named | {"position_ids": None})

    monkeypatch.setattr(type(model), "forward", counting)
    backend = backend_of(model)
    caches = caches_of(backend)
    forks = [backend.fork(cache) for cache in caches]
    ids = [[9]] * len(caches)
    assert len(backend.groups(caches, ids)) == len(caches)
    assert together._fit[model] is False
    for logits, fork in zip(backend.forward_together(caches, ids), forks, strict=True):
        assert torch.allclose(logits, backend.forward(fork, [9]), atol=1e-5)


def test_longer_runs_and_empty_caches_go_alone() -> None:
    backend = backend_of(tiny("llama"))
    caches = [*caches_of(backend), backend.new_cache(CONFIG)]
    ids = [[1], [2, 3], [4], [5], [6]]
    assert backend.groups(caches, ids) == [[0, 2, 3], [1], [4]]
    forks = [backend.fork(cache) for cache in caches]
    for logits, fork, own in zip(backend.forward_together(caches, ids), forks, ids, strict=True):
        assert torch.allclose(logits, backend.forward(fork, own), atol=1e-4)


def test_where_a_pass_fails_no_cache_has_taken_any() -> None:
    model = tiny("llama")
    backend = backend_of(model)
    caches = caches_of(backend)
    assert len(backend.groups(caches, [[1]] * 4)) == 1
    expected = [backend.forward(backend.fork(cache), [2]) for cache in caches]
    last = model.model.layers[-1].mlp

    def failing(*_: Any) -> None:
        raise RuntimeError("no")

    hook = last.register_forward_hook(failing)
    with pytest.raises(RuntimeError, match="no"):
        backend.forward_together(caches, [[1]] * 4)
    hook.remove()
    assert tuple(cache.get_seq_length() for cache in caches) == LENGTHS
    for logits, row in zip(backend.forward_together(caches, [[2]] * 4), expected, strict=True):
        assert torch.allclose(logits, row, atol=1e-4)


def test_a_cache_that_is_there_twice_is_refused() -> None:
    backend = backend_of(tiny("llama"))
    (cache,) = caches_of(backend, (5,))
    with pytest.raises(ValueError, match="twice"):
        backend.forward_together([cache, cache], [[1], [2]])
