"""Each supported family gives, through sakuin with the exact index, the logits of its own eager attention."""

from __future__ import annotations

import pytest
import torch
from tiny import CLOSE, FAMILIES, FLAT, MIXED, tiny, tokens
from transformers import DynamicCache

from sakuin import RetrievalCache, RetrievalConfig


@torch.no_grad()
def logits_of(model, cache, ids, chunks, steps):
    """Logits of a prompt in chunks, then of `steps` tokens one by one (the same ones for every model)."""
    out = [model(chunk, cache=cache).logits for chunk in ids[:, :-steps].split(chunks, 1)]
    out += [model(ids[:, i : i + 1], cache=cache).logits for i in range(ids.shape[1] - steps, ids.shape[1])]
    return torch.cat(out, 1)


@pytest.mark.parametrize("family", [*FAMILIES, *MIXED])
def test_logits_equal_the_models_own_eager_attention_over_chunked_prefill_and_64_steps(family):
    ids = tokens(500 + 64)
    eager, ours = tiny(family, "eager"), tiny(family)
    cache = RetrievalCache(ours.config, FLAT)
    expected = logits_of(eager, DynamicCache(config=eager.config), ids, 150, 64)
    got = logits_of(ours, cache, ids, 150, 64)
    assert (got - expected).abs().max() <= CLOSE
    layer = cache.retrieval_layers[0]
    assert layer.rows[0].index.n_tokens > ids.shape[1] / 2
    assert cache.stats()["steps"] == 64


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3_text", "gpt_oss", "gemma3n_text"])
def test_a_left_padded_batch_gives_each_row_what_it_gets_alone(family):
    model = tiny(family)
    rows = [tokens(330, seed=1), tokens(7, seed=3), tokens(200, seed=2)]
    steps = 40
    width = max(row.shape[1] for row in rows)
    ids, mask = torch.zeros(3, width, dtype=torch.long), torch.zeros(3, width, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - row.shape[1] :], mask[i, width - row.shape[1] :] = row[0], 1
    options = {
        "max_new_tokens": steps,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    together = model.generate(
        ids, attention_mask=mask, cache=RetrievalCache(model.config, FLAT), prefill_chunk_size=100, **options
    )
    for i, row in enumerate(rows):
        alone = model.generate(row, cache=RetrievalCache(model.config, FLAT), **options)
        assert torch.equal(together.sequences[i, width:], alone.sequences[0, row.shape[1] :])
        for step in range(steps):
            assert (together.logits[step][i] - alone.logits[step][0]).abs().max() <= CLOSE


def test_rows_of_different_lengths_decode_with_positions_of_their_own_and_no_mask():
    model = tiny("llama")
    mask = torch.ones(2, 300, dtype=torch.long)
    mask[1, :120] = 0
    ids, more = tokens(300, 2), tokens(30, 2, seed=1)
    cache = RetrievalCache(model.config, FLAT)
    with torch.no_grad():
        model(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), cache=cache)
        got = []
        for i in range(30):
            positions = torch.tensor([[300 + i], [180 + i]])
            got.append(model(more[:, i : i + 1], position_ids=positions, cache=cache).logits)
        alone = model(torch.cat([ids[1:, 120:], more[1:]], 1), use_cache=False).logits
    assert (torch.cat(got, 1)[1] - alone[0, 180:]).abs().max() <= CLOSE


@pytest.mark.parametrize("family", FAMILIES)
def test_with_another_cache_the_name_gives_the_models_own_math(family):
    ids = tokens(120)
    eager, ours = tiny(family, "eager"), tiny(family)
    expected = logits_of(eager, DynamicCache(config=eager.config), ids, 50, 8)
    got = logits_of(ours, DynamicCache(config=ours.config), ids, 50, 8)
    assert (got - expected).abs().max() <= CLOSE
    with torch.no_grad():
        assert (ours(ids, use_cache=False).logits - eager(ids, use_cache=False).logits).abs().max() <= CLOSE


@pytest.mark.parametrize(
    ("family", "change"), [("gemma2", {"attn_logit_softcapping": None}), ("gpt_oss", {})]
)
def test_the_comparison_would_notice_a_dropped_score_change(family, change):
    """The tiny models are sharp enough: without softcap or sinks their logits differ by far more than the
    bound."""
    ids = tokens(100)
    model, other = tiny(family, "eager"), tiny(family, "eager", **change)
    if family == "gpt_oss":
        for layer in other.model.layers:
            layer.self_attn.sinks.data.fill_(-torch.inf)
    with torch.no_grad():
        assert (model(ids).logits - other(ids).logits).abs().max() > 20 * CLOSE


def test_the_sketch_index_approaches_exact_attention_as_tolerance_falls():
    # Random weights have none of the structure that the sketch lives on: this holds the mechanism, not the
    # quality, which real models and real text show.
    model = tiny("llama")
    ids = tokens(1000)

    def said(cache):  # in float64: what float32 rounds of a divergence is as large as the first bar below
        return logits_of(model, cache, ids, 256, 32)[0, -32:].double().log_softmax(-1)

    exact = said(RetrievalCache(model.config, FLAT))

    def divergence(**settings):
        cache = RetrievalCache(model.config, RetrievalConfig(sink=4, recent=16, segment=128, **settings))
        near = said(cache)
        assert cache.stats()["steps"] == 32
        return (exact.exp() * (exact - near)).sum(-1).mean()

    assert divergence(tolerance=0) < 1e-8
    assert divergence(tolerance=0.01, cap=1.0) < 1e-3
    assert 1e-4 < divergence() < 0.5


LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 2,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 1,
    "first_k_dense_replace": 2,
}


@pytest.mark.parametrize(
    "rope_dim", [8, 16], ids=["latents of two shapes", "latents shaped like keys and values"]
)
def test_a_model_that_caches_no_plain_keys_is_refused_with_the_reason(rope_dim):
    model = tiny("deepseek_v3", qk_rope_head_dim=rope_dim, head_dim=rope_dim, **LATENT)
    with pytest.raises(ValueError, match="latents"):
        RetrievalCache(model.config, FLAT)
    # Made for another model: the first pass notices.
    cache = RetrievalCache(tiny("llama").config, FLAT)
    with torch.no_grad():
        for _ in range(2):
            with pytest.raises(NotImplementedError, match="plain keys and values"):
                model(tokens(20), cache=cache)
            cache.reset()
        # And the refusal leaves nothing behind: another cache works at once.
        model(tokens(20), cache=DynamicCache(config=model.config))


def test_bf16_models_decode_close_to_their_fp32_selves():
    model = tiny("llama").to(torch.bfloat16)
    eager = tiny("llama", "eager").to(torch.bfloat16)
    ids = tokens(300)
    got = logits_of(model, RetrievalCache(model.config, FLAT), ids, 100, 32).float()
    expected = logits_of(eager, DynamicCache(config=eager.config), ids, 100, 32).float()
    reference = logits_of(tiny("llama", "eager"), DynamicCache(config=eager.config), ids, 100, 32)
    assert (got - reference).abs().mean() <= 1.2 * (expected - reference).abs().mean()
