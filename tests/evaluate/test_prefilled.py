"""One reading serves caches of all configurations: each is what a prefill of its own would have made."""

from __future__ import annotations

import pytest
import torch
from tiny import CLOSE, FLAT, feed, tiny, tokens
from transformers import DynamicCache

from sakuin import RetrievalCache, RetrievalConfig
from sakuin.evaluate.configurations import configuration
from sakuin.evaluate.prefilled import Prefilled, touched_share

N, MORE = 700, 40
KINDS = ("sketch", "flat", "ivf", "graph", "topk", "pages", "streaming")


def small(kind: str, **changes: object) -> RetrievalConfig:
    return FLAT.with_changes(index=kind, **changes)


def ids(n: int = N + MORE) -> list[int]:
    return tokens(n)[0].tolist()


def said(prefilled: Prefilled, cache: object, more: list[int]) -> torch.Tensor:
    rows: list[torch.Tensor] = []
    prefilled.continued(cache, more, rows.append)
    return torch.cat(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_is_what_its_own_prefill_makes(kind: str) -> None:
    model, all_ids = tiny("llama"), ids()
    own = RetrievalCache(model.config, small(kind))
    feed(model, own, torch.tensor([all_ids[:N]]))
    own.seal()
    prefilled = Prefilled.read(model, all_ids[:N])
    filled = prefilled.retrieval_cache(small(kind))
    a, b = (said(prefilled, cache, all_ids[N:]) for cache in (own, filled))
    # A last place of a key can change which token an index takes; nothing more may differ.
    assert float((a - b).abs().mean()) < 1e-3
    assert own.stats()["touched_share"] == pytest.approx(filled.stats()["touched_share"], rel=0.02)
    assert filled.stats()["index"] == kind


def test_passes_are_as_long_with_full_attention_as_with_an_index() -> None:
    prefilled = Prefilled.read(tiny("llama"), ids(N))
    lengths: dict[str, list[int]] = {}
    for name, cache in (("full", prefilled.full_cache()), ("flat", prefilled.retrieval_cache(FLAT))):
        rows: list[torch.Tensor] = []
        prefilled.continued(cache, ids()[N:], rows.append)
        lengths[name] = [len(row) for row in rows]
    assert lengths["full"] == lengths["flat"] == [16, 16, 8]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3_text", "gpt_oss", "lfm2", "qwen3_5_text"])
def test_exact_caches_of_many_families_say_what_full_attention_says(family: str) -> None:
    model, all_ids = tiny(family), ids()
    prefilled = Prefilled.read(model, all_ids[:N])
    truth = said(prefilled, prefilled.full_cache(), all_ids[N:])
    found = said(prefilled, prefilled.retrieval_cache(FLAT), all_ids[N:])
    assert float((truth - found).abs().max()) < 10 * CLOSE


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "lfm2", "qwen3_5_text"])
def test_forks_of_full_attentions_own_cache_see_nothing_of_each_other(family: str) -> None:
    model, all_ids = tiny(family), ids()
    cache = DynamicCache(config=model.config)
    feed(model, cache, torch.tensor([all_ids[:N]]))
    prefilled = Prefilled.read(model, all_ids[:N])
    first, again = (said(prefilled, prefilled.backend.fork(cache), all_ids[N:]) for _ in range(2))
    assert torch.equal(first, again)


def test_reading_on_leaves_what_was_read_as_it_is() -> None:
    model, all_ids = tiny("gemma3_text"), ids()
    first = Prefilled.read(model, all_ids[:400])
    before = said(first, first.retrieval_cache(small("sketch")), all_ids[400:440])
    second = first.extend(all_ids[400:N])
    whole = Prefilled.read(model, all_ids[:N])
    assert second.ids == whole.ids
    a, b = (said(p, p.retrieval_cache(small("sketch")), all_ids[N:]) for p in (second, whole))
    assert float((a - b).abs().mean()) < 1e-3
    assert torch.equal(before, said(first, first.retrieval_cache(small("sketch")), all_ids[400:440]))


def test_passes_of_many_positions_are_single_steps_side_by_side() -> None:
    model, all_ids = tiny("llama"), ids()
    prefilled = Prefilled.read(model, all_ids[:N])
    at_once = said(prefilled, prefilled.retrieval_cache(small("sketch")), all_ids[N:])
    one_by_one = said(prefilled, prefilled.retrieval_cache(small("sketch", exact_above=1)), all_ids[N:])
    apart = (at_once - one_by_one).abs().amax(1)
    # Where two keys are near, what a machine rounds decides which of them is attended exactly.
    assert float((apart < 10 * CLOSE).float().mean()) > 0.9
    assert float(apart.max()) < 100 * CLOSE


def test_a_fork_can_have_other_settings_of_a_step() -> None:
    model, all_ids = tiny("llama"), ids()
    prefilled = Prefilled.read(model, all_ids[:N])
    cache = prefilled.retrieval_cache(small("ivf", budget=600))
    other = cache.fork(small("ivf", budget=1))
    assert (
        other.retrieval_layers[0].rows[0].index.segments == cache.retrieval_layers[0].rows[0].index.segments
    )
    for each in (cache, other):
        said(prefilled, each, all_ids[N:])
    assert cache.stats()["exact"] > 0.9 > 0.5 > other.stats()["exact"]
    with pytest.raises(ValueError, match="a fork cannot change list_size from 32 to 64"):
        cache.fork(small("ivf", list_size=64))


def test_a_cache_at_a_share_touches_it() -> None:
    model, all_ids = tiny("llama"), ids()
    prefilled = Prefilled.read(model, all_ids[:N])
    wanted = configuration("topk:sink=4,recent=16,segment=64@30%")
    cache = prefilled.cache(wanted, all_ids[N:])
    said(prefilled, cache, all_ids[N:])
    assert touched_share(cache.whole) == pytest.approx(0.3, rel=0.1)
    with pytest.raises(ValueError, match="takes tokens to be tried on"):
        prefilled.cache(wanted)


def test_what_peers_touch_counts_two_bytes_a_number() -> None:
    model, all_ids = tiny("llama"), ids()
    prefilled = Prefilled.read(model, all_ids[:N])
    # All of it in fp32, and a peer all of it as if in bf16, with some centroids.
    for kind, least in (("flat", 2.0), ("ivf", 1.0)):
        cache = prefilled.retrieval_cache(small(kind, budget=1.0))
        said(prefilled, cache, all_ids[N:])
        assert least <= touched_share(cache.whole) <= 1.1 * least


def test_fill_refuses_what_does_not_fit() -> None:
    model = tiny("llama")
    prefilled = Prefilled.read(model, ids(100))
    cache = prefilled.retrieval_cache(FLAT)
    with pytest.raises(ValueError, match="holds 100 tokens already"):
        cache.fill(prefilled.full_cache(), {})
    queries = {number: torch.zeros(4, 24, 16) for number in range(2)}
    with pytest.raises(ValueError, match="100 tokens need queries of 25 positions"):
        RetrievalCache(model.config, FLAT).fill(prefilled.full_cache(), queries)
