"""A pass through a RetrievalCache is whole, or it did not happen: for all layers, wherever it stops."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch
from interrupts import interrupt_at, interrupted, some_lines
from tiny import FLAT, close, feed, full, prefilled, tiny, tokens

from sakuin import RetrievalCache, RetrievalConfig
from sakuin.backends.open import backend_of
from sakuin.cache.token_buffer import GROWTH
from sakuin.cache.undo import LOST

ROOMS = ("backends/transformers", "cache", "index", "attention")
FAMILIES = ("llama", "gemma3_text", "gemma3n_text", "qwen3_5_text", "lfm2")
RECURRENT = ("qwen3_5_text", "lfm2")
"""Of whose states no copies are kept."""
READ, NEW, THEN = 200, 90, 5


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {family: tiny(family) for family in FAMILIES}


@pytest.fixture(scope="module")
def llama(models: dict[str, Any]) -> Any:
    return models["llama"]


class Stop(Exception):
    pass


@contextmanager
def stopping(module: torch.nn.Module, before: bool, error: type[BaseException]) -> Iterator[None]:
    """Within, the module raises, before or after it has done its work."""

    def stop(*_: Any) -> None:
        raise error

    hook = module.register_forward_pre_hook(stop) if before else module.register_forward_hook(stop)
    try:
        yield
    finally:
        hook.remove()


def lengths(cache: RetrievalCache) -> set[int]:
    """Tokens by layer, of those that count them."""
    return {layer.get_seq_length() for layer in cache.layers if hasattr(layer, "get_seq_length")}


def after(model: Any, cache: RetrievalCache, ids: torch.Tensor) -> torch.Tensor:
    """Logits of the pass that is repeated, and of some steps after it."""
    return torch.cat([feed(model, cache, ids, ids.shape[1]), feed(model, cache, tokens(THEN, seed=8), 1)], 1)


REFUSED: dict[str, Callable[[Any, RetrievalCache], Any]] = {
    "a float mask": lambda model, cache: model(
        tokens(10), attention_mask=torch.zeros(1, 1, 10, 10), cache=cache
    ),
    "a float mask over all": lambda model, cache: model(
        tokens(10), attention_mask=torch.zeros(1, 1, 10, READ + 10), cache=cache
    ),
    "a mask that is not causal": lambda model, cache: model(
        tokens(10), attention_mask=torch.ones(1, 1, 10, 10, dtype=torch.bool), cache=cache
    ),
    "a keyword": lambda model, cache: model(tokens(10), cache=cache, position_bias=torch.ones(1)),
    "another batch": lambda model, cache: model(tokens(10, batch=2), cache=cache),
}


@pytest.mark.parametrize("why", REFUSED)
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_what_is_refused_changes_no_layer(models: dict[str, Any], family: str, why: str) -> None:
    model, ids = models[family], tokens(NEW, seed=5)
    cache = prefilled(model, READ)
    expected = after(model, cache.fork(), ids)
    with torch.no_grad(), pytest.raises((ValueError, NotImplementedError, RuntimeError)):
        REFUSED[why](model, cache)
    assert lengths(cache) == {READ}
    assert torch.equal(after(model, cache, ids), expected)


def test_dropout_is_refused_before_anything_changes(llama: Any) -> None:
    cache, ids = prefilled(llama, READ), tokens(NEW, seed=5)
    expected = after(llama, cache.fork(), ids)
    attention = llama.model.layers[1].self_attn
    attention.attention_dropout = 0.5
    try:
        attention.train()
        with torch.no_grad(), pytest.raises(ValueError, match="dropout"):
            llama(ids, cache=cache)
    finally:
        llama.eval()
        attention.attention_dropout = 0.0
    assert torch.equal(after(llama, cache, ids), expected)


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_that_stops_between_layers_did_not_happen(
    models: dict[str, Any], family: str, error: type[BaseException]
) -> None:
    model, ids = models[family], tokens(NEW, seed=5)
    cache = prefilled(model, READ)
    expected = after(model, cache.fork(), ids)
    places = [*model.base_model.layers, model.get_output_embeddings()]
    for before in (True, False):
        for place in places:
            one = cache.fork()
            with stopping(place, before, error), torch.no_grad(), suppress(error):
                model(ids, cache=one)
            assert one.get_seq_length() == READ
            if family in RECURRENT and (place, before) != (places[0], True):
                with pytest.raises(RuntimeError, match=re.escape(LOST)):
                    after(model, one, ids)
                one.reset()
                feed(model, one, tokens(READ))
                assert close(after(model, one, ids), expected)
            else:
                assert torch.equal(after(model, one, ids), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_backend_takes_back_whatever_fails_in_its_pass(models: dict[str, Any], family: str) -> None:
    model, ids = models[family], tokens(NEW, seed=5)[0].tolist()
    backend = backend_of(model, None)
    cache = prefilled(model, READ)
    expected = backend.forward(backend.fork(cache), ids, every=True)
    for module in (model.base_model.layers[0], model.base_model.layers[-1], model.get_output_embeddings()):
        one = backend.fork(cache)
        with stopping(module, False, KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            backend.forward(one, ids)
        if family in RECURRENT:
            with pytest.raises(RuntimeError, match=re.escape(LOST)):
                backend.forward(one, ids)
        else:
            assert torch.equal(backend.forward(one, ids, every=True), expected)


def test_a_first_pass_that_stops_between_layers_is_told_and_leaves_an_empty_cache() -> None:
    llama = tiny("llama")  # one that no cache has seen
    cache, ids = RetrievalCache(llama.config, FLAT), tokens(READ)
    with stopping(llama.model.layers[1], True, KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        llama(ids, cache=cache)
    assert cache.get_seq_length() == 0
    with pytest.raises(RuntimeError, match=r"first pass .* did not get to its last layer"):
        feed(llama, cache, ids)
    assert close(feed(llama, cache, ids), full(llama, ids))


@pytest.mark.parametrize("call", ["fork", "crop", "seal", "reorder_cache", "batch_repeat_interleave"])
def test_what_is_called_after_a_pass_that_stopped_sees_none_of_it(llama: Any, call: str) -> None:
    cache, ids = prefilled(llama, READ), tokens(NEW, seed=5)
    with stopping(llama.model.layers[1], True, Stop), torch.no_grad(), suppress(Stop):
        llama(ids, cache=cache)
    given = {"crop": (-1,), "reorder_cache": (torch.tensor([0]),), "batch_repeat_interleave": (2,)}
    found = getattr(cache, call)(*given.get(call, ()))
    cache = found if call == "fork" else cache
    assert {layer.length for layer in cache.retrieval_layers} == {READ - (call == "crop")}
    rows = 2 if call == "batch_repeat_interleave" else 1
    known = torch.cat([tokens(READ)[:, : cache.get_seq_length()], ids], 1).repeat(rows, 1)
    assert close(feed(llama, cache, known[:, -NEW:]), full(llama, known)[:, -NEW:])


def test_an_error_in_sealing_is_tried_again_and_nothing_is_lost(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sakuin.index.flat import FlatIndex

    append, failures = FlatIndex.append, [MemoryError("no memory for a segment")] * 3

    def failing(self: FlatIndex, *run: Any) -> None:
        if failures:
            raise failures.pop()
        append(self, *run)

    cache, ids = prefilled(llama, READ), tokens(NEW, seed=5)
    expected = after(llama, cache.fork(), ids)
    monkeypatch.setattr(FlatIndex, "append", failing)
    got: list[torch.Tensor] = []
    for part in (ids, *tokens(THEN, seed=8).split(1, 1)):
        for _ in range(5):
            before = cache.get_seq_length()
            try:
                got.append(feed(llama, cache, part))
                break
            except MemoryError:
                assert cache.get_seq_length() == before
    assert not failures
    assert torch.equal(torch.cat(got, 1), expected)


def _at_any_line(model: Any, base: RetrievalCache, t: int, n: int, seed: int) -> None:
    """Interrupt a pass of t tokens at n of its lines; whatever the cache says then is so."""
    ids, held = tokens(t, seed=5), base.get_seq_length()
    expected = after(model, base.fork(), ids)
    with torch.no_grad():
        lines = some_lines(lambda: model(ids, cache=base.fork()), ROOMS, n, seed)
        for line in lines:
            cache = base.fork()
            interrupted(lambda cache=cache: model(ids, cache=cache), line, ROOMS)
            length = cache.get_seq_length()
            assert length in (held, held + t), line
            rest = [ids] if length == held else []
            rest += tokens(THEN, seed=8).split(1, 1)
            try:
                feed(model, cache, rest[0])
            except RuntimeError as said:
                if str(said) == LOST:
                    continue
                told = str(said)  # once
            else:
                told, rest = "was taken back", rest[1:]
            assert "was taken back" in told, line
            got = torch.cat([feed(model, cache, part) for part in rest], 1)
            assert close(got, expected[:, -got.shape[1] :]), line
            assert lengths(cache) == {held + t + THEN}, line


def _about_to_grow(model: Any) -> RetrievalCache:
    """A cache whose next step gives the worker tokens that left the recent window."""
    cache = prefilled(model, READ)
    feed(model, cache, tokens(1 + GROWTH + 1, seed=3), 1)
    return cache


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("t", [1, NEW])
def test_an_interrupt_at_any_line_leaves_all_or_nothing(models: dict[str, Any], family: str, t: int) -> None:
    _at_any_line(models[family], prefilled(models[family], READ), t, 12, t)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("t", [1, 12, NEW])
def test_an_interrupt_at_many_lines_leaves_all_or_nothing(
    models: dict[str, Any], family: str, t: int
) -> None:
    model = models[family]
    _at_any_line(model, prefilled(model, READ), t, 120, t)
    _at_any_line(model, _about_to_grow(model), t, 60, t)
    if family == "llama":
        _at_any_line(model, prefilled(model, READ, RetrievalConfig(sink=4, recent=16, segment=64)), t, 60, t)


@pytest.mark.parametrize("what", ["crop", "seal", "reorder_cache"])
def test_an_interrupt_in_what_all_layers_do_leaves_all_or_nothing(llama: Any, what: str) -> None:
    base = prefilled(llama, READ, batch=2)
    given = {"crop": (-30,), "reorder_cache": (torch.tensor([1, 1]),)}.get(what, ())
    ids = tokens(20, batch=2, seed=4)
    unchanged = feed(llama, base.fork(), ids)
    done = base.fork()
    getattr(done, what)(*given)
    changed = feed(llama, done, ids)
    for line in some_lines(lambda: getattr(base.fork(), what)(*given), ROOMS, 15):
        cache = base.fork()
        interrupted(lambda cache=cache: getattr(cache, what)(*given), line, ROOMS)
        got = feed(llama, cache, ids)
        assert close(got, unchanged) or close(got, changed), line


def test_lines_are_counted_as_they_are_run(llama: Any) -> None:
    with interrupt_at(-1, *ROOMS) as count:
        prefilled(llama, 20)
    assert count[0] > 100
