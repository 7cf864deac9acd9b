"""What finished requests leave: the longest beginning is found, by its own tenant alone, within a bound."""

from __future__ import annotations

from typing import Any

import pytest
from stored import CONFIG, TEXT, WINDOWED, model_of, windows_every

from sakuin.backends.base import Backend
from sakuin.backends.open import backend_of
from sakuin.server.asking.kept import LEAST, Kept


@pytest.fixture
def backend() -> Backend:
    return backend_of(*model_of())


def read(backend: Backend, ids: list[int]) -> Any:
    cache = backend.new_cache(CONFIG)
    backend.forward(cache, ids)
    return cache


def tokens(backend: Backend, n: int, last: str = "") -> list[int]:
    return [*backend.vocabulary.encode(TEXT).ids[:n], *backend.vocabulary.encode(last).ids]


def test_all_of_it_is_gone_on_from(backend: Backend) -> None:
    kept, ids = Kept(backend, 1 << 30), tokens(backend, 300)
    kept.keep("a", ids, read(backend, ids), CONFIG)
    more = tokens(backend, 300, " and more")
    found = kept.longest("a", more, (), len(more) - 1)
    assert found is not None
    assert found[1] == 300
    alone = backend.forward(read(backend, more[:300]), more[300:])
    assert (backend.forward(found[0], more[300:]) - alone).abs().max() < 1e-5


def test_where_they_part_is_gone_back_to_and_kept_itself(backend: Backend) -> None:
    kept, ids = Kept(backend, 1 << 30), tokens(backend, 300, " in the morning")
    kept.keep("a", ids, read(backend, ids), CONFIG)
    other = tokens(backend, 300, ", at night it sleeps")
    found = kept.longest("a", other, (), len(other) - 1)
    assert found is not None
    assert found[1] == 300
    exact = backend.forward(read(backend, other[:300]), other[300:])
    assert (backend.forward(found[0], other[300:]) - exact).abs().max() < 0.05 * exact.std()
    assert kept.longest("a", other, (), len(other) - 1)[1] == 300  # type: ignore[index]  # by a fork now


def test_another_tenant_finds_nothing(backend: Backend) -> None:
    kept, ids = Kept(backend, 1 << 30), tokens(backend, 300)
    kept.keep("a", ids, read(backend, ids), CONFIG)
    assert kept.longest("b", ids, (), 299) is None
    assert kept.longest("", ids, (), 299) is None


def test_little_is_not_worth_it(backend: Backend) -> None:
    kept, ids = Kept(backend, 1 << 30), tokens(backend, LEAST - 1)
    kept.keep("a", ids, read(backend, ids), CONFIG)
    assert kept.longest("a", tokens(backend, 300), (), 299) is None
    assert kept.nbytes == 0


def test_the_oldest_goes_where_there_is_no_room(backend: Backend) -> None:
    ids = tokens(backend, 300)
    nbytes = sum(backend.nbytes(read(backend, ids)).values())
    kept = Kept(backend, int(2.5 * nbytes))
    for first in (1, 2, 3):
        own = [first, *ids[1:]]
        kept.keep("a", own, read(backend, own), CONFIG)
    assert kept.nbytes <= 2.5 * nbytes
    assert kept.longest("a", [1, *ids[1:]], (), 299) is None
    assert kept.longest("a", [3, *ids[1:]], (), 299) is not None
    assert Kept(backend, 0).nbytes == 0


def test_windows_are_gone_back_to_only_where_their_state_is_known() -> None:
    with windows_every(64):
        backend = backend_of(*model_of(WINDOWED))
        kept, ids = Kept(backend, 1 << 30), tokens(backend, 200)
        kept.keep("a", ids, read(backend, ids), CONFIG)
        assert kept.longest("a", [*ids[:150], *ids[:50]], (), 199) is None
        assert kept.longest("a", [*ids, 5, 6], (), 201)[1] == 200  # type: ignore[index]
