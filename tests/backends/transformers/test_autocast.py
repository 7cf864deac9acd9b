"""Passes under `torch.autocast`, and what an error that somebody keeps does to others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import FLAT, close, feed, full, prefilled, tiny, tokens
from transformers import DynamicCache

from sakuin import RetrievalCache, RetrievalConfig


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss", "gemma3_text"])
@pytest.mark.parametrize("config", [FLAT, RetrievalConfig(sink=4, recent=16, segment=64)])
def test_a_model_under_autocast_attends_as_with_transformers_cache(
    family: str, config: RetrievalConfig
) -> None:
    model, ids = tiny(family), tokens(300)
    with torch.autocast("cpu", torch.bfloat16):
        ours = feed(model, RetrievalCache(model.config, config), ids[:, :290])
        theirs = feed(model, DynamicCache(config=model.config), ids[:, :290])
        cache, other = RetrievalCache(model.config, config), DynamicCache(config=model.config)
        for part in (ids[:, :290], *ids[:, 290:].split(1, 1)):
            last, expected = feed(model, cache, part, 290), feed(model, other, part, 290)
    exact = full(model, ids)
    for got, wanted, right in ((ours, theirs, exact[:, :290]), (last, expected, exact[:, -1:])):
        # bf16 rounds: ours may be as far from fp32 as theirs, and a half more.
        rounding = float((wanted - right).abs().max())
        assert float((got - right).abs().max()) <= 1.5 * rounding + 0.02 * float(right.abs().max())


@pytest.mark.parametrize("first", [True, False])
def test_autocast_may_come_and_go_between_passes(first: bool) -> None:
    model, ids = tiny("llama"), tokens(200)
    cache = RetrievalCache(model.config, FLAT)
    with torch.autocast("cpu", torch.bfloat16, enabled=first):
        feed(model, cache, ids[:, :150])
    with torch.autocast("cpu", torch.bfloat16, enabled=not first):
        got = feed(model, cache, ids[:, 150:], 1)
    expected = full(model, ids)[:, 150:]
    assert (got - expected).abs().max() < 0.1 * expected.abs().max()


def test_an_error_that_is_kept_does_not_reach_other_models() -> None:
    model, other = tiny("llama"), tiny("qwen3")
    attention = model.model.layers[0].self_attn
    attention.attention_dropout = 0.5
    attention.train()
    kept: list[Any] = []
    cache = prefilled(other, 50)
    for given in ({}, {"attention_mask": torch.zeros(1, 1, 10, 10)}):
        try:
            model(tokens(10), cache=RetrievalCache(model.config, FLAT), **given)
        except (ValueError, NotImplementedError) as error:
            kept.append(error)  # and with it its frames, with the keys that were on their way
    assert len(kept) == 2
    ids = tokens(10, seed=3)
    assert close(feed(other, DynamicCache(config=other.config), ids), full(other, ids))
    assert torch.equal(feed(other, cache, ids), feed(other, prefilled(other, 50), ids))
    with torch.no_grad():
        assert other.generate(ids, max_new_tokens=3).shape == (1, 13)


def test_an_error_between_cache_and_attention_that_is_kept_does_not_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, other = tiny("llama"), tiny("qwen3")
    from sakuin.backends.transformers.layer import RetrievalLayer

    update, kept = RetrievalLayer.update, []

    def stopped(self: RetrievalLayer, *given: Any, **named: Any) -> Any:
        held = update(self, *given, **named)
        kept.append(held)
        raise KeyboardInterrupt

    monkeypatch.setattr(RetrievalLayer, "update", stopped)
    with pytest.raises(KeyboardInterrupt):
        model(tokens(10), cache=RetrievalCache(model.config, FLAT))
    ids = tokens(10, seed=3)
    assert close(feed(other, DynamicCache(config=other.config), ids), full(other, ids))
