"""What a mask says of tokens that are cached already is honoured or refused, never ignored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import FLAT, close, feed, prefilled, tiny, tokens
from transformers import DynamicCache
from transformers.masking_utils import create_causal_mask

from sakuin import RetrievalCache

READ, NEW = 120, 12


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny("llama")


@pytest.fixture(scope="module")
def gemma3() -> Any:
    return tiny("gemma3_text")


def mask_of(n: int, batch: int = 1, **hidden: slice) -> torch.Tensor:
    """All ones but for the `hidden` positions of rows named `row0`, `row1`, …"""
    mask = torch.ones(batch, n, dtype=torch.long)
    for row, where in hidden.items():
        mask[int(row.removeprefix("row")), where] = 0
    return mask


@torch.no_grad()
def both(model: Any, masks: list[torch.Tensor | None], parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """Logits of passes with these masks, through a RetrievalCache and through a DynamicCache."""
    found = []
    for cache in (RetrievalCache(model.config, FLAT), DynamicCache(config=model.config)):
        given = zip(parts, masks, strict=True)
        found.append(torch.cat([model(p, attention_mask=m, cache=cache).logits for p, m in given], 1))
    return found


@pytest.mark.parametrize("hidden", [slice(3, 4), slice(0, 60), slice(READ - 2, READ)])
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_mask_that_hides_cached_tokens_is_refused(
    request: pytest.FixtureRequest, family: str, hidden: slice
) -> None:
    model = request.getfixturevalue(family)
    cache = prefilled(model, READ)
    expected = feed(model, cache.fork(), tokens(NEW))
    hidden_tokens = range(READ)[hidden]
    words = f"hides {len(hidden_tokens)} tokens .* token {hidden_tokens[0]} of row 0"
    with torch.no_grad(), pytest.raises(ValueError, match=words):
        model(tokens(NEW), attention_mask=mask_of(READ + NEW, row0=hidden), cache=cache)
    assert torch.equal(feed(model, cache, tokens(NEW)), expected)


@torch.no_grad()
def test_padding_stays_what_it_was(llama: Any) -> None:
    padded = mask_of(READ, 2, row1=slice(0, 40))
    cache, ids = RetrievalCache(llama.config, FLAT), tokens(READ, 2)
    llama(ids, attention_mask=padded, cache=cache)
    more = tokens(NEW, 2, seed=1)
    with pytest.raises(ValueError, match=r"shows 40 positions that were padding .* position 0 of row 1"):
        llama(more, attention_mask=mask_of(READ + NEW, 2), cache=cache)
    both_hidden = mask_of(READ + NEW, 2, row1=slice(0, 40))
    both_hidden[1, 50] = 0
    with pytest.raises(ValueError, match=r"hides 1 tokens .* token 50 of row 1"):
        llama(more, attention_mask=both_hidden, cache=cache)
    assert cache.get_seq_length() == READ
    masks = [padded, mask_of(READ + NEW, 2, row1=slice(0, 40))]
    ours, theirs = both(llama, masks, [ids, more])
    assert close(ours[0], theirs[0])
    assert close(ours[1, 40:], theirs[1, 40:])


def test_masks_of_floats_longer_masks_and_padding_at_the_end_are_as_elsewhere(llama: Any) -> None:
    ids, more, last = tokens(READ, 2), tokens(NEW, 2, seed=1), tokens(1, 2, seed=2)
    for kind in (torch.float32, torch.bool, torch.int32):
        masks = [mask_of(READ, 2, row0=slice(100, READ)), mask_of(READ + NEW, 2, row0=slice(100, READ))]
        masks += [mask_of(READ + NEW + 5, 2, row0=slice(100, READ))]  # more columns than tokens
        ours, theirs = both(llama, [mask.to(kind) for mask in masks], [ids, more, last])
        real = torch.cat([masks[0], mask_of(NEW + 1, 2)], 1).bool()
        assert close(ours[real], theirs[real])


@torch.no_grad()
def test_after_rows_were_chosen_each_keeps_its_own_padding(llama: Any) -> None:
    cache = RetrievalCache(llama.config, FLAT)
    llama(tokens(READ, 2), attention_mask=mask_of(READ, 2, row1=slice(0, 40)), cache=cache)
    cache.reorder_cache(torch.tensor([1, 0]))
    with pytest.raises(ValueError, match=r"token 0 of row 1"):
        llama(tokens(NEW, 2), attention_mask=mask_of(READ + NEW, 2, row1=slice(0, 40)), cache=cache)
    llama(tokens(NEW, 2), attention_mask=mask_of(READ + NEW, 2, row0=slice(0, 40)), cache=cache)
    cache.crop(-NEW)
    cache.batch_select_indices(torch.tensor([1]))
    llama(tokens(NEW), attention_mask=mask_of(READ + NEW), cache=cache)
    llama(tokens(NEW), cache=cache.fork())


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_masks_of_four_dimensions_that_hide_or_show_what_they_should_not(
    llama: Any, dtype: torch.dtype
) -> None:
    cache = prefilled(llama, READ)
    expected = feed(llama, cache.fork(), tokens(NEW))
    seen = torch.ones(1, 1, NEW, READ + NEW, dtype=torch.bool).tril(READ)
    seen[..., 7] = False
    mask = seen if dtype == torch.bool else torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
    with pytest.raises(ValueError, match="two-dimensional attention_mask"):
        llama(tokens(NEW), attention_mask=mask, cache=cache)
    assert torch.equal(feed(llama, cache, tokens(NEW)), expected)


def _hides(where: int) -> Any:
    return lambda batch, head, q, kv: kv != where


@pytest.mark.parametrize(
    ("overlay", "fine"),
    [
        ({}, True),
        ({"or_mask_function": lambda batch, head, q, kv: kv >= q}, True),
        ({"and_mask_function": _hides(READ + 50)}, True),
        ({"and_mask_function": _hides(5)}, False),
        ({"and_mask_function": lambda batch, head, q, kv: kv > q - 30}, False),
        ({"or_mask_function": _hides(9), "and_mask_function": _hides(5)}, False),
    ],
)
def test_what_models_lay_over_their_masks_is_asked_about_cached_tokens(
    llama: Any, overlay: dict[str, Any], fine: bool
) -> None:
    cache = prefilled(llama, READ)
    given = {"config": llama.config, "inputs_embeds": torch.zeros(1, NEW, 64), "attention_mask": None}
    if fine:
        create_causal_mask(**given, **overlay, cache=cache)
    else:
        with pytest.raises(ValueError, match="hides some of the 120 cached tokens"):
            create_causal_mask(**given, **overlay, cache=cache)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_positions_of_the_callers_own_are_the_models_business(
    request: pytest.FixtureRequest, family: str
) -> None:
    model = request.getfixturevalue(family)
    found = []
    for cache in (RetrievalCache(model.config, FLAT), DynamicCache(config=model.config)):
        feed(model, cache, tokens(READ))
        places = torch.arange(NEW)[None] + READ + 300
        first = model(tokens(NEW, seed=1), position_ids=places, cache=cache).logits
        given = {"cache_position": torch.arange(READ + NEW, READ + 2 * NEW)}
        found.append(torch.cat([first, model(tokens(NEW, seed=2), cache=cache, **given).logits], 1))
    assert close(*found)
