"""One RetrievalCache and two threads: while a pass of one runs the other is refused, and the cache holds what
passes brought that went well."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import FLAT, close, feed, full, prefilled, tiny, tokens

from sakuin import RetrievalCache

FAMILIES = ("llama", "gemma3_text", "phi3", "lfm2")
READ, NEW = 120, 7


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {family: tiny(family) for family in FAMILIES}


def in_a_thread(work: Callable[[], Any]) -> list[Any]:
    """What it returns, or its error."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found


@pytest.mark.parametrize("first", [True, False], ids=["first pass", "later pass"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_amid_another_threads_is_refused_and_changes_nothing(
    models: dict[str, Any], family: str, first: bool
) -> None:
    model = tiny(family) if first else models[family]  # one that no cache has watched yet
    cache = RetrievalCache(model.config, FLAT) if first else prefilled(model, READ)
    ids = torch.cat([tokens(0 if first else READ), tokens(NEW, seed=4), tokens(3, seed=5)], 1)
    came: list[Any] = []

    def meanwhile(*_: Any) -> None:
        if not came:
            came.append(None)
            came.extend(in_a_thread(lambda: feed(model, cache, tokens(NEW, seed=9))))

    hook = model.model.layers[1].register_forward_pre_hook(meanwhile)
    try:
        got = feed(model, cache, tokens(NEW, seed=4))
    finally:
        hook.remove()
    assert isinstance(came[1], RuntimeError)
    assert "another thread's pass runs through this RetrievalCache" in str(came[1])
    got = torch.cat([got, feed(model, cache, tokens(3, seed=5), 1)], 1)
    assert close(got, full(model, ids)[:, -NEW - 3 :])


@pytest.mark.parametrize("family", FAMILIES)
def test_after_an_interrupt_another_thread_goes_on(models: dict[str, Any], family: str) -> None:
    model, cache = models[family], prefilled(models[family], READ)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    hook = model.model.layers[1].register_forward_pre_hook(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            feed(model, cache, tokens(NEW, seed=4))
    finally:
        hook.remove()
    if family == "lfm2":  # of whose states no copies are kept
        return
    (got,) = in_a_thread(lambda: feed(model, cache, tokens(NEW, seed=4)))
    assert close(got, full(model, torch.cat([tokens(READ), tokens(NEW, seed=4)], 1))[:, READ:])


@pytest.mark.parametrize("family", FAMILIES)
def test_threads_take_turns(models: dict[str, Any], family: str) -> None:
    model, cache = models[family], prefilled(models[family], READ)
    ids = tokens(4 * NEW, seed=4)
    got = torch.cat(
        [in_a_thread(lambda part=part: feed(model, cache, part))[0] for part in ids.split(NEW, 1)], 1
    )
    assert close(got, full(model, torch.cat([tokens(READ), ids], 1))[:, READ:])
