"""RetrievalCache as a transformers cache: growing, going back, copies and batches."""

from __future__ import annotations

import pytest
import torch
from tiny import FLAT, close, feed, full, layer_of, prefilled, tiny, tokens

from sakuin import RetrievalCache, RetrievalConfig
from sakuin.backends.open import backend_of
from sakuin.cache.sequence import QUERY_STEP
from sakuin.cache.token_buffer import GROWTH
from sakuin.context.generate import prefill_steps


@pytest.fixture(scope="module")
def llama():
    return tiny("llama")


@pytest.fixture(scope="module")
def gemma3():
    return tiny("gemma3_text")


class TestGrowing:
    def test_prefill_seals_every_whole_segment_outside_the_recent_window(self, llama):
        row = layer_of(prefilled(llama, 500)).rows[0]
        row.flush()
        assert len(row._sink) == FLAT.sink
        assert row.index.n_tokens == (500 - FLAT.sink - FLAT.recent) // 64 * 64
        assert FLAT.recent <= len(row.tail) < FLAT.recent + 64

    def test_a_prompt_in_one_pass_and_in_chunks_leaves_the_same_cache_and_logits(self, llama):
        ids = tokens(700)
        one, many = RetrievalCache(llama.config, FLAT), RetrievalCache(llama.config, FLAT)
        assert close(feed(llama, one, ids, 700), feed(llama, many, ids, 37))
        for a, b in zip(one.retrieval_layers, many.retrieval_layers, strict=True):
            for x, y in zip(a.rows[0].past(), b.rows[0].past(), strict=True):
                torch.testing.assert_close(x[0], y[0], atol=1e-4, rtol=1e-4)

    def test_layers_with_a_window_shorten_the_chunks_of_a_prompt(self, llama, gemma3):
        done = {}
        for model in (llama, gemma3):
            cache, ids = RetrievalCache(model.config, FLAT), tokens(2100)[0].tolist()
            done[model] = list(prefill_steps(backend_of(model), cache, ids))
        assert done == {llama: [2048, 2100], gemma3: [1024, 2048, 2100]}

    def test_the_remainder_is_sealed_when_decoding_starts_and_growth_in_runs_of_256(self, llama):
        config = RetrievalConfig(index="flat", sink=4, recent=16, segment=1024)
        cache = prefilled(llama, 700, config)
        row = layer_of(cache).rows[0]
        assert row.index.n_tokens == 0
        feed(llama, cache, tokens(1), 1)
        assert row.index.n_tokens == 700 - 4 - 16
        most = 0
        for part in tokens(600).split(1, 1):
            feed(llama, cache, part)
            most = max(most, len(row.tail))
        assert row.index.n_tokens == 680 + 2 * GROWTH
        assert FLAT.recent + GROWTH <= most <= FLAT.recent + GROWTH + 64

    def test_growth_keeps_the_logits_exact(self, llama):
        ids = tokens(900)
        cache = RetrievalCache(llama.config, FLAT)
        got = torch.cat([feed(llama, cache, ids[:, :100]), feed(llama, cache, ids[:, 100:], 1)], 1)
        assert close(got, full(llama, ids))
        assert layer_of(cache).rows[0].index.n_tokens >= 2 * GROWTH

    def test_a_short_prompt_touches_no_index(self, llama):
        cache = prefilled(llama, 200, RetrievalConfig(index="flat"))
        feed(llama, cache, tokens(20), 1)
        assert layer_of(cache).rows[0].index.n_tokens == 0
        assert cache.stats()["steps"] == 0
        assert cache.stats()["coverage"] == 1.0

    @pytest.mark.parametrize("t", [16, 17])
    def test_passes_of_up_to_exact_above_positions_go_through_the_index(self, llama, t):
        cache = prefilled(llama, 400)
        got = feed(llama, cache, tokens(t, seed=5))
        assert cache.stats()["steps"] == (1 if t <= FLAT.exact_above else 0)
        assert close(got, full(llama, torch.cat([tokens(400), tokens(t, seed=5)], 1))[:, 400:])

    def test_a_segment_gets_the_queries_of_every_fourth_position_up_to_its_end(self, llama, monkeypatch):
        given = []
        from sakuin.index.flat import FlatIndex

        append = FlatIndex.append

        def recording(self, keys, values, queries=None):
            given.append((keys.shape[1], queries.shape))
            append(self, keys, values, queries)

        monkeypatch.setattr(FlatIndex, "append", recording)
        cache = prefilled(llama, 300)
        cache.flush()
        first = next(shape for n, shape in given if n == 64)
        assert first == (4, (FLAT.sink + 64) // QUERY_STEP, 16)
        assert all(
            shape == (4, 16, 16) for n, shape in given[len(given) // 2 :] if n == 64 and shape[1] != first[1]
        )

    def test_padding_never_enters_sink_index_or_tail(self, llama):
        mask = torch.ones(2, 300, dtype=torch.long)
        mask[1, :150] = 0
        cache = RetrievalCache(llama.config, FLAT)
        with torch.no_grad():
            llama(tokens(300, 2), attention_mask=mask, cache=cache)
        assert [row.n_tokens for row in layer_of(cache).rows] == [300, 150]
        assert cache.get_seq_length() == 300

    def test_inference_mode_and_no_grad_can_alternate(self, llama):
        ids = tokens(400)
        cache = RetrievalCache(llama.config, FLAT)
        with torch.inference_mode():
            first = torch.cat([llama(part, cache=cache).logits for part in ids[:, :300].split(100, 1)], 1)
        rest = feed(llama, cache, ids[:, 300:], 1)
        with torch.inference_mode():
            llama(ids[:, :1], cache=cache)
        assert close(torch.cat([first.clone(), rest], 1), full(llama, ids))

    def test_offloaded_tokens_can_be_stored_in_bf16(self, llama):
        config = FLAT.with_changes(kv_dtype="bf16")
        cache = prefilled(llama, 600, config)
        got = feed(llama, cache, tokens(10, seed=3), 1)
        expected = full(llama, torch.cat([tokens(600), tokens(10, seed=3)], 1))[:, 600:]
        assert (got - expected).abs().max() < 0.05 * expected.abs().max()
        assert next(iter(layer_of(cache).rows[0].index.blocks()))[0].dtype == torch.bfloat16


class TestGoingBack:
    @pytest.mark.parametrize("kept", [399, 390, 330, 150, 68, 67, 3, 0])
    def test_after_crop_the_cache_goes_on_as_if_the_tokens_had_never_been(self, llama, kept):
        cache = prefilled(llama, 400)
        cache.crop(kept - 400)
        assert cache.get_seq_length() == kept
        ids = torch.cat([tokens(400)[:, :kept], tokens(120, seed=9)], 1)
        got = torch.cat(
            [feed(llama, cache, ids[:, kept : kept + 60]), feed(llama, cache, ids[:, kept + 60 :], 1)], 1
        )
        assert close(got, full(llama, ids)[:, kept:])

    def test_crop_counts_padding(self, llama):
        mask = torch.ones(2, 330, dtype=torch.long)
        mask[1, :200] = 0
        ids = tokens(330, 2)
        cache = RetrievalCache(llama.config, FLAT)
        with torch.no_grad():
            llama(ids[:, :300], attention_mask=mask[:, :300], cache=cache)
            cache.crop(-150)
            assert [row.n_tokens for row in layer_of(cache).rows] == [150, 0]
            positions = (mask[:, :330].cumsum(1) - 1).clamp(min=0)[:, 150:]
            got = llama(ids[:, 150:], attention_mask=mask, position_ids=positions, cache=cache).logits
            alone = llama(ids[1:, 200:], use_cache=False).logits
        assert close(got[1, 50:], alone[0])

    def test_crop_refuses_before_it_changes_anything(self, gemma3):
        cache = prefilled(gemma3, 100)
        for count, error, words in [
            (-5, RuntimeError, "activate_past_recording"),
            (5, ValueError, "negative"),
            (-101, ValueError, "cannot remove 101 tokens from a cache of 100"),
        ]:
            with pytest.raises(error, match=words):
                cache.crop(count)
            assert [layer.get_seq_length() for layer in cache.layers] == [100, 100]
        assert close(
            feed(gemma3, cache, tokens(9, seed=4)),
            full(gemma3, torch.cat([tokens(100), tokens(9, seed=4)], 1))[:, 100:],
        )

    def test_crop_after_past_recording_goes_back_in_sliding_layers_too(self, gemma3):
        cache = prefilled(gemma3, 300)
        cache.activate_past_recording()
        feed(gemma3, cache, tokens(30, seed=1), 30)
        with pytest.raises(RuntimeError, match="no longer holds the window"):
            cache.crop(-60)
        cache.crop(-20)
        ids = torch.cat([tokens(300), tokens(30, seed=1)[:, :10], tokens(20, seed=2)], 1)
        assert close(feed(gemma3, cache, ids[:, 310:]), full(gemma3, ids)[:, 310:])

    def test_draft_tokens_are_not_sealed_before_they_are_confirmed(self, llama):
        cache = prefilled(llama, 300)
        cache.flush()
        cache.activate_past_recording()
        before = layer_of(cache).rows[0].index.n_tokens
        feed(llama, cache, tokens(200, seed=1), 200)
        cache.flush()
        assert layer_of(cache).rows[0].index.n_tokens <= before + 64
        cache.crop(-200)
        assert layer_of(cache).rows[0].n_tokens == 300

    @pytest.mark.parametrize("family", ["llama", "gemma3_text"])
    def test_assisted_decoding_gives_the_greedy_tokens(self, family):
        model = tiny(family)
        ids = tokens(150).repeat(1, 2)
        options = {"do_sample": False, "max_new_tokens": 30}
        expected = model.generate(ids, cache=RetrievalCache(model.config, FLAT), **options)
        looked_up = model.generate(
            ids, cache=RetrievalCache(model.config, FLAT), prompt_lookup_num_tokens=5, **options
        )
        assert torch.equal(looked_up, expected)
        assistant = tiny("llama", "sdpa", num_hidden_layers=1)
        assisted = model.generate(
            ids, cache=RetrievalCache(model.config, FLAT), assistant_model=assistant, **options
        )
        assert torch.equal(assisted, expected)

    def test_reset_makes_a_new_cache_of_it(self, llama):
        cache = prefilled(llama, 400)
        feed(llama, cache, tokens(5), 1)
        cache.reset()
        assert cache.get_seq_length() == 0
        assert cache.kv_bytes() == {"device": 0, "host": 0}
        assert cache.stats()["steps"] == 0
        ids = tokens(200, batch=2, seed=8)
        assert close(feed(llama, cache, ids), full(llama, ids))


class TestCopies:
    def test_a_fork_and_its_parent_go_separate_ways(self, llama):
        cache = prefilled(llama, 400)
        forks = [cache.fork(), cache.fork()]
        for i, one in enumerate([cache, *forks]):
            ids = torch.cat([tokens(400), tokens(330, seed=20 + i)], 1)
            got = torch.cat([feed(llama, one, ids[:, 400:430]), feed(llama, one, ids[:, 430:], 1)], 1)
            assert close(got, full(llama, ids)[:, 400:])

    def test_a_fork_shares_the_sealed_segments(self, llama):
        cache = prefilled(llama, 400)
        fork = cache.fork()
        mine, other = (next(iter(layer_of(c).rows[0].index.blocks())) for c in (cache, fork))
        assert mine[0].data_ptr() == other[0].data_ptr()

    def test_cropping_a_fork_leaves_the_parent(self, llama):
        cache = prefilled(llama, 400)
        fork = cache.fork()
        fork.crop(-300)
        feed(llama, fork, tokens(50, seed=6))
        ids = torch.cat([tokens(400), tokens(5, seed=7)], 1)
        assert close(feed(llama, cache, ids[:, 400:], 1), full(llama, ids)[:, 400:])

    @pytest.mark.parametrize("family", ["gemma3_text", "qwen3_5_text", "lfm2"])
    def test_layers_of_other_kinds_are_copied_with_the_fork(self, family):
        model = tiny(family)
        cache = prefilled(model, 200)
        fork = cache.fork()
        feed(model, fork, tokens(30, seed=5))
        ids = torch.cat([tokens(200), tokens(5, seed=7)], 1)
        assert close(feed(model, cache, ids[:, 200:], 1), full(model, ids)[:, 200:])

    def test_batch_calls_choose_repeat_and_reorder_rows(self, llama):
        cache = prefilled(llama, 300, batch=2)
        cache.batch_repeat_interleave(2)
        cache.reorder_cache(torch.tensor([3, 0, 2, 1]))
        cache.batch_select_indices(torch.tensor([True, True, False, True]))
        cache.batch_select_indices(torch.tensor([0, 1, 2]))
        order = [1, 0, 0]
        more = tokens(40, batch=3, seed=2)
        ids = torch.cat([tokens(300, batch=2)[order], more], 1)
        assert close(feed(llama, cache, more, 1), full(llama, ids)[:, 300:])

    def test_generation_from_one_prefilled_row_with_beams_after_batch_repeat_interleave(self, llama):
        ids = tokens(300)
        cache = prefilled(llama, 299)
        cache.batch_repeat_interleave(3)
        options = {"num_beams": 3, "do_sample": False, "max_new_tokens": 20}
        got = llama.generate(ids, cache=cache, **options)
        expected = llama.generate(ids, **options)
        assert torch.equal(got, expected)
