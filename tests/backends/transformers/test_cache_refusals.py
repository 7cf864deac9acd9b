"""What a RetrievalCache cannot do ends in one sentence, never in wrong tokens."""

from __future__ import annotations

import pytest
import torch
from tiny import FLAT, feed, layer_of, prefilled, tiny, tokens

from sakuin import RetrievalCache
from sakuin.errors import SakuinError


@pytest.fixture(scope="module")
def llama():
    return tiny("llama")


class TestRefusals:
    @pytest.mark.parametrize("other", ["sdpa", "eager"])
    def test_another_attention_implementation_raises_in_the_first_pass(self, llama, other):
        model = tiny("llama", other)
        with torch.no_grad(), pytest.raises(RuntimeError, match="attn_implementation"):
            model(tokens(10), cache=RetrievalCache(model.config, FLAT))

    def test_switching_the_implementation_later_raises(self):
        model = tiny("llama")
        cache = prefilled(model, 100)
        model.set_attn_implementation("sdpa")
        with torch.no_grad(), pytest.raises(RuntimeError, match="attn_implementation"):
            model(tokens(1), cache=cache)

    def test_rows_that_do_not_match_the_batch(self, llama):
        cache = prefilled(llama, 50)
        with torch.no_grad(), pytest.raises(ValueError, match=r"holds 1 sequence.*batch_repeat_interleave"):
            llama(tokens(5, batch=3), cache=cache)

    def test_a_mask_that_leaves_out_the_past(self, llama):
        cache = prefilled(llama, 50)
        with torch.no_grad(), pytest.raises(ValueError, match="covers 20 tokens, but the cache holds 50"):
            llama(tokens(20), attention_mask=torch.ones(1, 20, dtype=torch.long), cache=cache)

    def test_masks_that_are_not_causal(self, llama):
        for mask in (torch.ones(1, 1, 20, 20, dtype=torch.bool), torch.zeros(1, 1, 20, 20)):
            with torch.no_grad(), pytest.raises(ValueError, match="ordinary causal mask"):
                llama(tokens(20), attention_mask=mask, cache=RetrievalCache(llama.config, FLAT))

    def test_gradients(self, llama):
        loss = llama(tokens(20), cache=RetrievalCache(llama.config, FLAT)).logits.sum()
        with pytest.raises(RuntimeError, match="no gradient"):
            loss.backward()

    def test_unknown_keywords_that_may_change_scores(self, llama):
        from sakuin.backends.transformers.attention import sakuin_attention

        cache = RetrievalCache(llama.config, FLAT)
        k, v = cache.update(torch.randn(1, 2, 5, 16), torch.randn(1, 2, 5, 16), 0)
        with pytest.raises(NotImplementedError, match="position_bias"):
            sakuin_attention(
                torch.nn.Module(), torch.randn(1, 4, 5, 16), k, v, None, position_bias=torch.ones(1)
            )

    def test_values_changed_after_the_cache(self, llama):
        from sakuin.backends.transformers.attention import sakuin_attention

        cache = RetrievalCache(llama.config, FLAT)
        k, v = cache.update(torch.randn(1, 2, 5, 16), torch.randn(1, 2, 5, 16), 0)
        with pytest.raises(NotImplementedError, match="plain keys and values"):
            sakuin_attention(torch.nn.Module(), torch.randn(1, 4, 5, 16), k, v * 2, None)

    @pytest.mark.parametrize(
        ("rope", "first", "fails"),
        [
            ({"rope_type": "dynamic", "factor": 2.0}, 200, True),
            ({"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}, 200, True),
            ({"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}, 300, False),
            ({"rope_type": "yarn", "factor": 2.0}, 200, False),
        ],
        ids=["dynamic", "longrope", "longrope past its limit from the start", "yarn"],
    )
    def test_rotary_embeddings_that_change_with_the_length(self, rope, first, fails):
        parameters = {"rope_theta": 1e4, "original_max_position_embeddings": 256, **rope}
        model = tiny("llama", max_position_embeddings=256, rope_parameters=parameters)
        cache = RetrievalCache(model.config, FLAT)
        feed(model, cache, tokens(first), first)
        feed(model, cache, tokens(10), 10)
        if fails:
            with torch.no_grad(), pytest.raises(ValueError, match=r"grows beyond 256 tokens.*YaRN"):
                model(tokens(60), cache=cache)
        else:
            feed(model, cache, tokens(60))

    def test_wrong_arguments(self, llama):
        with pytest.raises(TypeError, match=r"model\.config"):
            RetrievalCache(FLAT)
        with pytest.raises(TypeError, match="RetrievalConfig"):
            RetrievalCache(llama.config, "flat")
        with pytest.raises(ValueError, match="chunked_attention"):
            RetrievalCache(
                tiny(
                    "llama4_text", num_local_experts=2, layer_types=["chunked_attention", "full_attention"]
                ).config
            )
        with pytest.raises(ValueError, match="head_dim must be a multiple of 8"):
            prefilled(tiny("llama", head_dim=12), 5)

    def test_an_error_while_sealing_is_raised_by_the_next_call_that_needs_the_segment(self, llama):
        cache = RetrievalCache(llama.config, FLAT)
        feed(llama, cache, tokens(100))
        row = layer_of(cache).rows[0]
        row.tail._keys[:] = torch.nan
        try:
            with pytest.raises(ValueError, match="NaN"):
                feed(llama, cache, tokens(400, seed=1))
        finally:
            cache.reset()

    def test_keys_shared_with_a_layer_on_another_device(self, llama):
        from sakuin.backends.transformers.attention import sakuin_attention

        cache = RetrievalCache(llama.config, FLAT)
        keys, values = torch.randn(2, 1, 2, 5, 16)
        query = torch.randn(1, 4, 5, 16)
        module = torch.nn.Module()
        module.is_kv_shared_layer = True
        module.num_key_value_groups = 2
        keys, values = cache.update(keys, values, 0)
        sakuin_attention(module, query, keys, values, None)
        with pytest.raises(NotImplementedError, match="one device"):
            sakuin_attention(module, query.to("meta"), keys.to("meta"), values.to("meta"), None)
        del cache
        sakuin_attention(module, query, keys.clone(), values.clone(), None)

    def test_generate_with_new_ids_only_and_no_mask_of_the_past(self, llama):
        cache = prefilled(llama, 50)
        with pytest.raises(ValueError, match="no tokens beyond the 50 that the cache holds"):
            llama.generate(tokens(10), cache=cache, max_new_tokens=2)


class TestRows:
    """Rows of a batch that are none, or no numbers: one sentence, and the cache stays as it was."""

    @pytest.mark.parametrize(
        ("method", "given", "error", "words"),
        [
            ("reorder_cache", "0", TypeError, "reorder_cache takes a tensor of whole numbers.*got '0'"),
            ("reorder_cache", torch.tensor([0.5, 1]), TypeError, "of shape .* and torch.float32"),
            ("reorder_cache", torch.tensor([[0, 1]]), TypeError, r"of shape \(1, 2\)"),
            ("reorder_cache", torch.tensor([0, 2]), SakuinError, "row 2 in `beam_idx`.*holds 2 rows"),
            ("reorder_cache", torch.tensor([0, -1]), SakuinError, "row -1 in `beam_idx`"),
            ("reorder_cache", torch.tensor([], dtype=torch.long), SakuinError, "at least one row"),
            ("batch_repeat_interleave", 0, SakuinError, "at least 1 for `repeats`, got 0"),
            ("batch_repeat_interleave", 1.5, SakuinError, r"got 1\.5"),
            ("batch_repeat_interleave", None, SakuinError, "got None"),
            ("batch_select_indices", torch.tensor([2]), SakuinError, "row 2 in `indices`"),
            ("batch_select_indices", [0, "a"], TypeError, "takes a tensor of whole numbers"),
            ("batch_select_indices", torch.tensor([True]), SakuinError, "a mask of 2 rows .* one of 1"),
            ("batch_select_indices", torch.tensor([-3]), SakuinError, "row -3"),
        ],
    )
    def test_rows_that_are_none(self, llama, method, given, error, words):
        cache = RetrievalCache(llama.config, FLAT)
        feed(llama, cache, tokens(50, batch=2))
        with pytest.raises(error, match=words) as raised:
            getattr(cache, method)(given)
        assert "\n" not in str(raised.value)
        with torch.no_grad():
            assert llama(tokens(1, batch=2), cache=cache).logits.shape[0] == 2

    def test_what_transformers_takes_is_taken(self, llama):
        for given, n in (
            (torch.tensor([1, 1, 0]), 3),
            (torch.tensor([-1]), 1),
            (torch.tensor([True, False]), 1),
        ):
            cache = RetrievalCache(llama.config, FLAT)
            feed(llama, cache, tokens(50, batch=2))
            cache.batch_select_indices(given)
            with torch.no_grad():
                assert llama(tokens(1, batch=n), cache=cache).logits.shape[0] == n
