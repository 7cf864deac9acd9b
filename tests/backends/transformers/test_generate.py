"""transformers' own generate runs unchanged on a RetrievalCache."""

from __future__ import annotations

import pytest
import torch
from tiny import FLAT, feed, prefilled, tiny, tokens
from transformers import DynamicCache

from sakuin import RetrievalCache


@pytest.fixture(scope="module")
def llama():
    return tiny("llama")


class TestGenerate:
    @pytest.mark.parametrize(
        "options", [{}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}], ids=str
    )
    @pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss"])
    def test_greedy_and_beam_search_are_unchanged(self, family, options):
        model, eager = tiny(family), tiny(family, "eager")
        ids = tokens(300, batch=2)
        options = {"do_sample": False, "max_new_tokens": 30, **options}
        assert torch.equal(
            model.generate(ids, cache=RetrievalCache(model.config, FLAT), **options),
            eager.generate(ids, **options),
        )

    def test_sampling_is_unchanged_for_a_seed(self, llama):
        ids = tokens(300)
        sampled = []
        for cache in (RetrievalCache(llama.config, FLAT), DynamicCache(config=llama.config)):
            torch.manual_seed(3)
            sampled.append(
                llama.generate(ids, cache=cache, do_sample=True, max_new_tokens=30, temperature=0.7)
            )
        assert torch.equal(*sampled)

    def test_a_cache_goes_on_over_several_calls(self, llama):
        cache = RetrievalCache(llama.config, FLAT)
        ids = tokens(200)
        for _ in range(3):
            ids = llama.generate(ids, cache=cache, do_sample=False, max_new_tokens=20)
            ids = torch.cat([ids, tokens(50, seed=ids.shape[1])], 1)
        once = llama.generate(ids[:, :410][:, :-50], do_sample=False, max_new_tokens=1)
        assert cache.get_seq_length() == 200 + 3 * 20 + 2 * 50 - 1
        assert torch.equal(once[:, :360], ids[:, :360])

    def test_the_same_input_gives_the_same_output_bit_for_bit(self, llama):
        runs = []
        for _ in range(2):
            cache = prefilled(llama, 400)
            runs.append(feed(llama, cache, tokens(400, seed=2), 1))
        assert torch.equal(*runs)
