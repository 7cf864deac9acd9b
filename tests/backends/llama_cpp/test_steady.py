"""What a token gives, whatever stands beside it in a pass: what comparisons of indexes rest on."""

from __future__ import annotations

import pytest
import torch

from sakuin import load
from sakuin.backends.base import Backend
from sakuin.backends.open import backend_of


@pytest.fixture(scope="module")
def backend() -> Backend:
    from sakuin.backends import catalogue

    catalogue.get("smollm2")
    return backend_of(*load("smollm2", dtype="fp32", backend="llama.cpp"))


def difference(backend: Backend, ids: list[int]) -> float:
    """Of the logits of tokens one by one from those of all in one pass."""
    one, other = backend.new_cache(None), backend.new_cache(None)
    together = backend.forward(other, ids, every=True)
    alone = torch.stack([backend.forward(one, [token]) for token in ids])
    return float((together - alone).norm() / together.norm())


def test_a_token_gives_the_same_alone_and_among_others(backend: Backend) -> None:
    ids = backend.vocabulary.encode("Each token is read for itself, as if nobody stood beside it.").ids * 5
    assert len(ids) > 64
    before = difference(backend, ids)
    with backend.steady():
        assert difference(backend, ids) < 1e-4 < before
    assert difference(backend, ids) == before


def test_a_cache_is_carried_over(backend: Backend) -> None:
    ids = backend.vocabulary.encode("A cache that was begun before goes on within, and after.").ids
    cache = backend.new_cache(None)
    backend.forward(cache, ids)
    with backend.steady():
        backend.forward(cache, ids)
    logits = backend.forward(cache, ids[:1])
    whole = backend.forward(backend.new_cache(None), [*ids, *ids, ids[0]])
    assert float((logits - whole).norm() / whole.norm()) < 0.1
