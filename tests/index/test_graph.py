"""The `graph` index: what it finds against exact search, growth, forks and crops, and odd numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference.exact import attention, made, relative
from reference.graph import best, check_reached, graph, links, of, recall
from reference.trace import LAYERS, Layer, real_trace
from transformers import LlamaConfig

import sakuin
from sakuin.backends.transformers.shape import shape_of
from sakuin.capacity.need import estimate
from sakuin.index import GraphIndex, Static, build_index
from sakuin.index.graph import RUN

PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trace(smollm2_by_transformers: tuple[Any, Any]) -> dict[int, Layer]:
    return real_trace(*smollm2_by_transformers)


@pytest.mark.parametrize("layer_id", LAYERS)
def test_it_finds_what_real_queries_look_for(trace, layer_id):
    layer = trace[layer_id]
    index = graph(layer.keys, layer.values, layer.queries[:, ::4])
    true = best(layer.asked, layer.keys, 100)
    n = layer.keys.shape[1]
    shares, recalls = [], []
    for ef in (100, 400):
        scores, ids, scanned = index.walk(layer.asked, 100, ef)
        heads = torch.arange(len(ids)) // index.group_size
        products = (layer.asked[:, :, None] * layer.keys[heads[:, None, None], ids].float()).sum(-1)
        torch.testing.assert_close(scores, products, atol=2e-3, rtol=1e-4)
        assert (scores.diff() <= 0).all()
        recalls.append(recall(ids, true))
        shares.append(float(scanned.double().mean()) / n)
    assert recalls[0] > 0.8
    assert recalls[1] > 0.97
    assert shares[0] < 0.25
    assert shares[0] < shares[1] < 0.6


def test_queries_say_which_keys_lie_close_together():
    """Keys that differ in all dimensions, and queries that care for a few of them."""
    random = torch.Generator().manual_seed(2)
    keys, values = torch.randn(2, 1, 3000, 64, generator=random)
    cares = torch.randn(6, 64, generator=random)
    queries, q = (torch.randn(2, m, 6, generator=random) @ cares for m in (500, 20))
    true = best(q, keys, 50)
    with_queries, without = (
        recall(graph(keys, values, given, group_size=2).walk(q, 50, 80)[1], true) for given in (queries, None)
    )
    assert with_queries > 0.9
    assert with_queries > without + 0.3


def test_attention_is_close_on_a_real_trace_and_closer_with_the_rest_estimated(trace):
    for layer in trace.values():
        truth, _ = attention(layer.asked, layer.keys, layer.values, layer.scaling)
        index = graph(layer.keys, layer.values, layer.queries[:, ::4], budget=100)
        errors = []
        for rest in (True, False):
            index.config = index.config.with_changes(estimate_rest=rest)
            part = index.attend(layer.asked, scaling=layer.scaling)
            errors.append(float(relative(part.out, truth).mean()))
            assert part.stats is not None
            assert 0 < float(part.stats.exact.mean()) < 0.4
            assert 0.5 < float(part.stats.coverage.mean()) < 1
            assert 0 < part.stats.touched_share < 1
            assert (part.stats.codes == 0).all()
        assert errors[0] < 0.25
        assert errors[0] < errors[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("knobs", [{"budget": 1.0}, {"budget": 900}, {"tolerance": 0.0}])
def test_with_a_budget_of_all_tokens_it_is_flat(dtype, softcap, knobs):
    data = made(700, dtype=dtype)
    index = of(data, **knobs)
    flat = build_index("flat", data.keys, data.values, group_size=3)
    call = {"scaling": data.scaling, "softcap": softcap, "static_lse": torch.zeros(6, 2)}
    mass, other = torch.zeros(2, 700), torch.zeros(2, 700)
    part, want = index.attend(data.q, mass=mass, **call), flat.attend(data.q, mass=other, **call)
    torch.testing.assert_close(part.out, want.out, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(part.lse, want.lse, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(mass, other, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(part.stats.coverage, torch.ones(6, 2))
    assert part.stats.touched_bytes == want.stats.touched_bytes


def test_what_a_group_finds_all_of_it_attends_and_the_rest_by_means_of_runs():
    data = made(500)
    index = of(data, budget=10, ef=500)
    part = index.attend(data.q, scaling=data.scaling)
    bare = GraphIndex.attend(_without_rest(index), data.q, scaling=data.scaling)
    true = best(data.q, data.keys, 10)
    for head in range(2):
        for i in range(2):
            chosen = true[3 * head : 3 * head + 3, i].flatten().unique()
            rest = torch.ones(500, dtype=torch.bool)
            rest[chosen] = False
            q = data.q[3 * head : 3 * head + 3, i].double()
            keys, values = data.keys[head].double(), data.values[head].double()
            z = q @ keys[chosen].T * data.scaling
            torch.testing.assert_close(
                bare.lse[3 * head : 3 * head + 3, i].double(), z.logsumexp(-1), atol=1e-4, rtol=1e-4
            )
            runs = list(zip(keys.split(RUN), values.split(RUN), rest.split(RUN), strict=True))
            zs = torch.stack([q @ k.mean(0) * data.scaling + left.sum().log() for k, _, left in runs], -1)
            both = torch.cat([z, zs], -1)
            means = torch.stack([v.mean(0) for _, v, _ in runs])
            out = both.softmax(-1) @ torch.cat([values[chosen], means])
            torch.testing.assert_close(
                part.lse[3 * head : 3 * head + 3, i].double(), both.logsumexp(-1), atol=1e-4, rtol=1e-4
            )
            torch.testing.assert_close(
                part.out[3 * head : 3 * head + 3, i].double(), out, atol=1e-4, rtol=1e-3
            )
            assert float(part.stats.exact[head, i]) == pytest.approx(len(chosen) / 500)


def _without_rest(index: GraphIndex) -> GraphIndex:
    other = index.fork()
    other.config = index.config.with_changes(estimate_rest=False)
    return other


def test_touched_bytes_count_keys_scored_links_values_and_means():
    data = made(2000, dtype=torch.bfloat16)
    index = of(data, ef=60, budget=20)
    q = data.q[:, :1]
    part = index.attend(q, scaling=data.scaling)
    scanned, walked = index._graph.search(q, index._keys.first(2000), 20, ef=60, n_threads=1)[2:]
    values = part.stats.exact.sum() * 2000 * 64 * 2
    runs = 2 * 32 * (2 * 64 * 2 + 4)
    rows = int(walked.sum()) * (16 * 4 + 1)
    most = int(scanned.sum()) * 64 * 2 + values + runs + rows
    least = int(scanned.view(2, 3).max(1).values.sum()) * 64 * 2 + values + runs + rows
    assert least <= part.stats.touched_bytes <= most
    assert part.stats.offloaded_bytes == 2 * 2000 * 64 * 4


@pytest.mark.parametrize("n", [1, 2, 3, 15, 16, 17, 63, 64, 65, 300])
@pytest.mark.parametrize("queries", [True, False])
def test_every_key_is_reached_and_found_at_any_size(n, queries):
    data = made(n, d=16)
    index = graph(data.keys, data.values, data.queries if queries else None, group_size=3, segment=64)
    check_reached(index)
    scores, ids = index.search(data.q, n)
    assert (ids.sort(-1).values == torch.arange(n)).all()
    # A queue of one key is as long as what is asked for.
    index.config = index.config.with_changes(ef=1)
    assert torch.equal(index.search(data.q, n)[1], ids)
    assert (scores.diff() <= 0).all()


def test_it_is_the_same_for_any_number_of_threads():
    data = made(1500)
    made_by = []
    for n in (1, 2, 5):
        torch.set_num_threads(n)
        index = of(data, segment=256)
        part = index.attend(data.q, scaling=data.scaling)
        made_by.append((links(index), index.search(data.q, 50)[1], part.out))
    for other in made_by[1:]:
        for (rows, entry), (rows2, entry2) in zip(made_by[0][0], other[0], strict=True):
            assert torch.equal(rows, rows2)
            assert entry == entry2
        assert torch.equal(made_by[0][1], other[1])
        torch.testing.assert_close(made_by[0][2], other[2], atol=1e-5, rtol=1e-5)


def test_an_empty_index_attends_nothing():
    index = GraphIndex(2, 16, 3, sakuin.RetrievalConfig())
    part = index.attend(torch.randn(6, 2, 16), scaling=1.0)
    assert (part.out == 0).all()
    assert (part.lse == -torch.inf).all()
    assert part.stats.touched_bytes == index.nbytes == index.n_tokens == 0
    assert list(index.blocks()) == []
    with pytest.raises(ValueError, match="k must be a whole number from 1 to the index's 0 tokens, got 1"):
        index.search(torch.randn(6, 2, 16), 1)


def test_a_decode_step_is_its_parts():
    data = made(300)
    index = of(data, budget=30)
    static = Static(data.keys[:, :3], data.values[:, :3], data.keys[:, 3:9], data.values[:, 3:9])
    mass = torch.zeros(2, 3 + 300 + 6)
    got = index.decode(data.q[:, :1], static, scaling=data.scaling, mass=mass)
    beside = build_index("flat", data.keys[:, :9], data.values[:, :9], group_size=3).attend(
        data.q[:, :1], scaling=data.scaling
    )
    part = index.attend(data.q[:, :1], scaling=data.scaling, static_lse=beside.lse)
    torch.testing.assert_close(got.out, sakuin.merge([beside, part]).out, atol=1e-5, rtol=1e-4)
    assert 0.5 * 3 * 2 < float(mass.sum()) <= 3 * 2 + 1e-4


@PROPERTY
@given(st.data())
def test_odd_numbers_make_no_nan_and_no_hang(data):
    n = data.draw(st.sampled_from([1, 2, 5, 40, 130]))
    d = data.draw(st.sampled_from([8, 24, 64]))
    kind = data.draw(st.sampled_from(["equal", "zero", "huge", "outlier", "tiny", "mixed", "line"]))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    keys = torch.randn(2, n, d, generator=random)
    if kind == "equal":
        keys = keys[:, :1].expand(-1, n, -1)
    elif kind == "zero":
        keys = torch.zeros_like(keys)
    elif kind == "huge":
        keys = keys / keys.norm(dim=-1, keepdim=True) * 1e4
    elif kind == "outlier":
        keys[..., 3] = 500.0
    elif kind == "tiny":
        keys = keys * 1e-30
    elif kind == "mixed":
        keys = keys * torch.tensor([0.0, 1.0, 1e4])[torch.randint(3, (2, n, 1), generator=random)]
    else:
        keys = keys[:, :1] * torch.arange(n)[:, None]
    values = torch.randn(2, n, d, generator=random)
    queries = data.draw(st.sampled_from([None, 0.0, 1.0, 1e3]))
    q = torch.randn(4, 2, d, generator=random) * data.draw(st.sampled_from([0.0, 1.0, 1e4]))
    sampled = None if queries is None else torch.randn(4, 9, d, generator=random) * queries
    index = graph(
        keys.to(dtype),
        values.to(dtype),
        sampled,
        group_size=2,
        segment=64,
        budget=data.draw(st.sampled_from([1, 3, 0.5])),
        ef=data.draw(st.sampled_from([1, 4, 64])),
        graph_degree=data.draw(st.sampled_from([4, 5, 16, 128])),
        estimate_rest=data.draw(st.booleans()),
    )
    check_reached(index)
    part = index.attend(q, scaling=d**-0.5)
    assert torch.isfinite(part.out).all()
    assert torch.isfinite(part.lse).all()
    assert part.out.abs().max() <= values.abs().max() * 1.02
    assert torch.isfinite(part.stats.coverage).all()
    k = data.draw(st.integers(1, n))
    scores, ids = index.search(q, k)
    assert torch.isfinite(scores).all()
    assert all(len(set(row)) == k for row in ids.view(-1, k).tolist())


def test_wrong_arguments_are_refused_in_a_sentence():
    data = made(40)
    index = of(data)
    for k in (0, 41, True, 2.0):
        with pytest.raises(
            ValueError, match=f"k must be a whole number from 1 to the index's 40 tokens, got {k}"
        ):
            index.search(data.q, k)
    with pytest.raises(ValueError, match="q must have 6 heads"):
        index.attend(data.q[:2], scaling=1.0)
    with pytest.raises(ValueError, match="keys and values must have the same heads and tokens"):
        index.append(data.keys, data.values[:, 1:])
    with pytest.raises(
        ValueError, match=r"keys are torch.bfloat16, but the index holds torch.float32; convert"
    ):
        index.append(data.keys.bfloat16(), data.values.bfloat16())
    with pytest.raises(ValueError, match="NaN"):
        index.append(data.keys * torch.nan, data.values)
    with pytest.raises(ValueError, match="queries hold NaN"):
        index.append(data.keys, data.values, data.queries * torch.nan)
    assert index.n_tokens == 40
    check_reached(index)
    for name, value, message in (
        ("ef", 0, "ef must be a whole number of at least 1, got 0"),
        ("graph_degree", 3, "graph_degree must be a whole number of at least 4, got 3"),
        ("graph_degree", 129, "graph_degree must be at most 128, got 129"),
    ):
        with pytest.raises(ValueError, match=message):
            sakuin.RetrievalConfig(**{name: value})


def test_an_index_of_another_dtype_says_so_and_kv_dtype_settles_it():
    data = made(100)
    index = of(data, kv_dtype="bf16")
    index.append(data.keys.half(), data.values.half())
    ((keys, _),) = index.blocks()
    assert keys.dtype == torch.bfloat16


def test_its_memory_is_what_the_estimate_says():
    config = LlamaConfig(
        hidden_size=384, num_hidden_layers=1, num_attention_heads=6, num_key_value_heads=2, head_dim=64
    )
    index = of(made(640, dtype=torch.bfloat16))
    need = estimate(shape_of(config), 640, torch.bfloat16, index.config, weights=0)
    assert index.nbytes == 2 * 2 * 640 * 64 * 2 + need.index


def test_it_serves_a_cache(smollm2_by_transformers, long_text):
    model, tokenizer = smollm2_by_transformers
    ids = tokenizer(long_text, return_tensors="pt").input_ids[:, :900]
    before = model.config._attn_implementation
    model.set_attn_implementation("sakuin")
    try:
        cache = sakuin.RetrievalCache(
            model.config, sakuin.RetrievalConfig(index="graph", ef=64, sink=16, recent=64, segment=256)
        )
        out = model.generate(ids, max_new_tokens=8, do_sample=False, cache=cache)
    finally:
        model.set_attn_implementation(before)
    assert out.shape[1] > ids.shape[1]
    assert 0 < cache.stats()["touched_share"] < 1
