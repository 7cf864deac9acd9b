"""`kv_dtype="int8"` on keys of a real model, and in the cache of whole models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference.exact import attention, relative
from reference.trace import LAYERS, Layer, real_trace
from tiny import FLAT, feed, full, layer_of, prefilled, tiny, tokens

from sakuin import RetrievalCache, RetrievalConfig, build_index
from sakuin.backends.transformers.shape import shape_of
from sakuin.cache import layer
from sakuin.cache.token_buffer import GROWTH
from sakuin.capacity.need import estimate
from sakuin.index import SketchIndex, new_index

INT8 = FLAT.with_changes(kv_dtype="int8")


@pytest.fixture(scope="module")
def trace(smollm2_by_transformers: tuple[Any, Any]) -> dict[int, Layer]:
    return real_trace(*smollm2_by_transformers)


@pytest.fixture(scope="module")
def llama():
    return tiny("llama")


def errors_of(layer: Layer, kind: str, **knobs: Any) -> torch.Tensor:
    index = build_index(kind, layer.keys, layer.values, layer.queries, segment=1024, **knobs)
    part = index.attend(layer.asked, scaling=layer.scaling, static_lse=layer.static_lse)
    truth, _ = attention(layer.asked, layer.keys, layer.values, layer.scaling)
    return relative(part.out, truth)


@pytest.mark.parametrize("layer_id", LAYERS)
def test_eight_bits_are_nearly_as_good_as_sixteen_on_a_real_trace(trace, layer_id):
    layer = trace[layer_id]
    flat = errors_of(layer, "flat", kv_dtype="int8")
    assert float(flat.mean()) < 0.008
    sketch, small = (errors_of(layer, "sketch", **knobs) for knobs in ({}, {"kv_dtype": "int8"}))
    assert float(small.mean()) < 1.05 * float(sketch.mean()) + 0.001
    assert float(small.max()) < 1.1 * float(sketch.max()) + 0.005


def test_growth_on_a_real_trace_loses_little(trace):
    layer = trace[LAYERS[1]]
    config = RetrievalConfig(index="flat", segment=1024, kv_dtype="int8")
    truth, _ = attention(layer.asked, layer.keys, layer.values, layer.scaling)
    errors = []
    for step in (1024, GROWTH, 16):
        index = new_index(3, 64, 3, config)
        for keys, values in zip(layer.keys.split(step, 1), layer.values.split(step, 1), strict=True):
            index.append(keys, values)
        errors.append(float(relative(index.attend(layer.asked, scaling=layer.scaling).out, truth).mean()))
    assert errors[1] < 1.6 * errors[0]
    assert errors[2] < 2.0 * errors[0]


# --- whole models ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss"])
@pytest.mark.parametrize("kind", ["flat", "sketch"])
def test_prefill_in_chunks_growth_and_decoding_stay_near_full_attention(family, kind):
    model, ids = tiny(family), tokens(900)
    config = INT8.with_changes(index=kind, tolerance=0.25)
    cache = RetrievalCache(model.config, config)
    got = torch.cat([feed(model, cache, ids[:, :500], 50), feed(model, cache, ids[:, 500:], 1)], 1)
    if kind == "flat":
        expected = full(model, ids)
    else:  # what the sketch itself costs is not the question
        plain = RetrievalCache(model.config, config.with_changes(kv_dtype="auto"))
        expected = torch.cat([feed(model, plain, ids[:, :500], 50), feed(model, plain, ids[:, 500:], 1)], 1)
    assert float((got - expected).abs().mean() / expected.abs().mean()) < 0.03
    index = layer_of(cache).rows[0].index
    assert index.n_tokens >= 500
    assert index.kv_bytes < 0.4 * index.n_tokens * 2 * 2 * 16 * 4


def test_a_prompt_in_one_pass_and_in_chunks_leaves_the_same_tokens(llama):
    ids = tokens(700)
    one, many = RetrievalCache(llama.config, INT8), RetrievalCache(llama.config, INT8)
    feed(llama, one, ids, 700), feed(llama, many, ids, 37)
    a, b = (layer_of(cache).rows[0] for cache in (one, many))
    keys = [torch.cat([k.float() for k, _ in row.past()], 1) for row in (a, b)]
    assert keys[0].shape == keys[1].shape == (2, 700, 16)
    assert float((keys[0] - keys[1]).abs().mean() / keys[0].abs().mean()) < 0.02


def test_the_past_is_made_block_by_block_and_may_be_gone_through_twice(llama, monkeypatch):
    row = layer_of(prefilled(llama, 700, INT8)).rows[0]
    row.flush()
    made = []
    blocks = type(row.index).blocks

    def counted(self):
        for block in blocks(self):
            made.append(block[0].shape[1])
            yield block

    monkeypatch.setattr(type(row.index), "blocks", counted)
    past = row.past()
    assert made == []
    assert sum(keys.shape[1] for keys, _ in past) == 700
    assert sum(made) == row.index.n_tokens
    assert sum(values.shape[1] for _, values in past) == 700


@pytest.mark.parametrize("kept", [390, 330, 150, 3])
def test_after_crop_the_cache_goes_on(llama, kept):
    cache = prefilled(llama, 400, INT8)
    cache.crop(kept - 400)
    row = layer_of(cache).rows[0]
    assert row.tail.keys.dtype == torch.float32  # the model's
    more = tokens(100, seed=5)
    got = feed(llama, cache, more, 1)
    expected = full(llama, torch.cat([tokens(400)[:, :kept], more], 1))[:, kept:]
    assert float((got - expected).abs().mean() / expected.abs().mean()) < 0.03


def test_a_fork_shares_and_goes_its_own_way(llama):
    cache = prefilled(llama, 600, INT8)
    cache.seal()
    fork = cache.fork()
    assert layer_of(fork).rows[0].index is layer_of(cache).rows[0].index
    a, b = (feed(llama, c, tokens(300, seed=s), 1) for c, s in ((cache, 1), (fork, 2)))
    for got, seed in ((a, 1), (b, 2)):
        expected = full(llama, torch.cat([tokens(600), tokens(300, seed=seed)], 1))[:, 600:]
        assert float((got - expected).abs().mean() / expected.abs().mean()) < 0.03


def test_rows_of_a_batch_and_the_path_for_models_off_the_cpu(llama, monkeypatch):
    ids = tokens(500, batch=2)
    outs = []
    for device_path in (False, True):
        cache = RetrievalCache(llama.config, INT8)
        monkeypatch.setattr(layer, "in_one_call", lambda q, off=device_path: not off)
        outs.append(torch.cat([feed(llama, cache, ids[:, :480]), feed(llama, cache, ids[:, 480:], 1)], 1))
    assert torch.allclose(outs[0], outs[1], atol=1e-3)
    assert float((outs[0] - full(llama, ids)).abs().mean() / outs[0].abs().mean()) < 0.03


def test_host_bytes_are_those_of_eight_bits(llama):
    plain, small = (prefilled(llama, 1200, config) for config in (FLAT, INT8))
    for cache in (plain, small):
        cache.seal()
    n = layer_of(small).rows[0].index.n_tokens
    spans = len(layer_of(small).rows[0].index._segments)
    layers, heads, d = 2, 2, 16
    assert plain.kv_bytes()["host"] == layers * heads * n * d * 2 * 4
    assert small.kv_bytes()["host"] == layers * heads * (n * (2 * d + 4) + spans * 2 * d * 4)
    assert small.kv_bytes()["device"] == plain.kv_bytes()["device"]


def test_the_estimate_of_memory_knows_eight_bits(llama):
    config = RetrievalConfig(index="flat", kv_dtype="int8", segment=256)
    few, many = (
        estimate(shape_of(llama.config), n, torch.bfloat16, config, weights=0).kv for n in (10_240, 20_480)
    )
    n, heads, d = 10_240, 2, 16
    assert many - few == 2 * heads * (n * (2 * d + 4) + n // 256 * 2 * d * 4)


def test_a_model_in_bf16_keeps_its_static_part_so(llama):
    model = tiny("llama").to(torch.bfloat16)
    cache = prefilled(model, 500, INT8.with_changes(index="sketch"))
    cache.seal()
    row = layer_of(cache).rows[0]
    assert isinstance(row.index, SketchIndex)
    assert row.index.segments[0].fields["keys"].dtype == torch.int8
    assert row.tail.keys.dtype == row._sink.keys.dtype == torch.bfloat16
    assert torch.isfinite(feed(model, cache, tokens(10, seed=3), 1)).all()
