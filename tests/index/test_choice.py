"""`index="auto"`: what the cost model makes of a context's length and heads, and an index that begins as
`flat` and becomes `sketch`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from reference.exact import Data, attention, made, relative
from tiny import CLOSE, feed, full, layer_of, prefilled, tiny, tokens
from transformers import LlamaConfig

from sakuin import RetrievalCache, RetrievalConfig
from sakuin.backends.transformers.shape import shape_of
from sakuin.capacity.need import estimate
from sakuin.index import AutoIndex, SketchIndex, _native, build_index, choice
from sakuin.index.choice import HeadShape
from sakuin.index.costs import COSTS, FlatCosts, SketchCosts, StepCosts

AUTO = RetrievalConfig(index="auto", sink=0, recent=64)
KINDS = ("bf16", "fp16", "fp32", "int8")


def costs(flat: FlatCosts, **sketch: float) -> StepCosts:
    none = dict.fromkeys(("call", "segment", "project", "key", "dim", "head", "multiply", "power"), 0.0)
    return StepCosts(dict.fromkeys(KINDS, flat), SketchCosts(**none | sketch))


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constants by which `sketch` pays from a few hundred tokens on, for head_dim 16 and two KV heads: `flat`
    takes 0.032 us a token, `sketch` 12.8 us however long the context is."""
    monkeypatch.setitem(COSTS, _native.isa(), costs(FlatCosts(0.0, 1.0, 0.0, 0.0), call=12.8))


SIZES: dict[str, Any] = {"sink": 4, "recent": 16, "segment": 64}
SHORT = RetrievalConfig(index="auto", **SIZES)


def test_the_choice_is_where_the_times_of_the_model_say():
    # flat: 100 us and 64 ns a token of each head; sketch: 120 us and 8 ns.
    at = costs(FlatCosts(100.0, 1.0, 0.0, 0.0), call=120.0, dim=0.125)
    config = replace(AUTO, recent=1)
    for heads in (1, 4):
        start = HeadShape(64, 3, heads).sketch_from(config, costs=at)
        assert start is not None
        # 100 + heads * 0.064 (n + 1) >= 1.25 (120 + heads * (0.008 n + 0.064))
        assert start == pytest.approx((50 + heads * 0.016) / (heads * 0.054), abs=1)
    assert HeadShape(64, 3, 1).flat_us(1000, config, at) == pytest.approx(100 + 64 * 1.001)
    assert HeadShape(64, 3, 1).sketch_us(1000, config, at) == pytest.approx(120 + 8 + 0.064)


def test_it_depends_on_head_dim_group_tolerance_and_dtype():
    at = costs(FlatCosts(100.0, 0.2, 0.0, 0.0), call=120.0, segment=2.0, dim=0.01, head=0.5, power=0.3)
    at.flat["fp32"] = FlatCosts(100.0, 0.4, 0.0, 0.0)

    def start(d: int = 64, group: int = 3, stored: str = "bf16", **changes: Any) -> int:
        found = HeadShape(d, group, 2).sketch_from(replace(AUTO, **changes), stored, at)
        assert found is not None
        return found

    assert start(256) < start(128) < start(64)
    assert start(group=1) < start(group=3) < start(group=7)
    assert start(tolerance=4.0) < start() < start(tolerance=0.25)
    assert start(stored="fp32") < start()
    assert start() < start(segment=512)  # many short segments cost more than they save


def test_it_stays_flat_where_sketch_never_pays():
    shape = HeadShape(64, 3, 2)
    assert shape.sketch_from(replace(AUTO, tolerance=0.0)) is None
    assert shape.kind(10**6, replace(AUTO, tolerance=0.0)) == "flat"
    slow = costs(FlatCosts(1.0, 0.1, 0.0, 0.0), key=100.0)
    assert shape.sketch_from(AUTO, costs=slow) is None


@pytest.mark.parametrize("isa", sorted(COSTS))
@pytest.mark.parametrize("stored", KINDS)
def test_the_measured_constants_choose_flat_for_short_contexts_and_sketch_for_long_ones(isa, stored):
    for d, group, heads in ((64, 7, 2), (64, 3, 3), (128, 4, 8), (256, 4, 1)):
        shape = HeadShape(d, group, heads)
        start = shape.sketch_from(RetrievalConfig(), stored, COSTS[isa])
        if start is None:  # keys and values of half the bytes may be read faster than an index finds them
            assert stored == "int8"
            flat, sketch = (
                f(1 << 20, RetrievalConfig(), COSTS[isa], stored) for f in (shape.flat_us, shape.sketch_us)
            )
            assert flat < choice.WORTH * sketch
            continue
        assert 256 < start < 131_072, (d, group, heads, start)
        flat, sketch = (
            f(start, RetrievalConfig(), COSTS[isa], stored) for f in (shape.flat_us, shape.sketch_us)
        )
        assert flat == pytest.approx(choice.WORTH * sketch, rel=0.02)


def test_kernels_without_constants_take_those_of_avx2(monkeypatch):
    monkeypatch.setattr(_native, "isa", lambda: "portable")
    assert choice.costs_here() is COSTS["avx2"]


# --- an index by itself -----------------------------------------------------------------------------------


def auto(data: Data, n: int | None = None, **knobs: Any) -> AutoIndex:
    index = build_index("auto", data.keys[:, :n], data.values[:, :n], group_size=3, **SIZES | knobs)
    assert isinstance(index, AutoIndex)
    return index


def error(index: Any, data: Data, n: int) -> float:
    truth, _ = attention(data.q, data.keys[:, :n], data.values[:, :n], data.scaling)
    return float(relative(index.attend(data.q, scaling=data.scaling).out, truth).max())


@pytest.mark.usefixtures("early")
def test_it_begins_as_flat_and_becomes_sketch_where_that_pays():
    data, start = made(900, d=16), HeadShape(16, 3, 2).sketch_from(SHORT, "fp32")
    assert start == 505
    index = auto(data, start - 1)
    assert index.kind == "flat"
    assert index.nbytes == index.kv_bytes  # nothing is held beside keys and values
    assert error(index, data, start - 1) < 1e-5
    fork = index.fork()
    index.append(data.keys[:, start - 1 : start], data.values[:, start - 1 : start])
    assert (index.kind, index.n_tokens) == ("sketch", start)
    assert index.nbytes > index.kv_bytes
    assert 1e-5 < error(index, data, start) < 0.3
    assert error(auto(data, start, tolerance=1e-9, cap=1.0), data, start) < 1e-4
    assert (fork.kind, fork.n_tokens) == ("flat", start - 1)
    index.append(data.keys[:, start:], data.values[:, start:])
    assert (index.kind, index.n_tokens) == ("sketch", 900)
    keys, _ = index.crop(100)  # and stays so
    assert (index.kind, index.n_tokens + keys.shape[1]) == ("sketch", 100)
    got = torch.cat([block[0] for block in auto(data).fork().blocks()], 1)
    assert torch.equal(got.sort(1).values, data.keys.sort(1).values)


@pytest.mark.usefixtures("early")
def test_queries_from_before_count_when_sketch_is_built():
    data = made(512, d=16)
    queries = torch.randn(6, 128, 16) * torch.linspace(0.1, 3, 16)
    grown, plain = (
        build_index("auto", data.keys[:, :448], data.values[:, :448], queries=given, **SIZES)
        for given in (queries[:, :112], None)
    )
    both = build_index("sketch", data.keys, data.values, queries=queries, **SIZES)
    assert isinstance(both, SketchIndex)
    for index, given in ((grown, queries[:, 112:]), (plain, None)):
        assert index.kind == "flat"
        index.append(data.keys[:, 448:], data.values[:, 448:], given)
        assert isinstance(index, AutoIndex)
        assert isinstance(index.chosen, SketchIndex)
    assert grown.chosen._moment.count == both._moment.count
    total = both._moment.total  # rounded to fp32 at each segment's end, which is not the same end for both
    most = float(total.abs().max())
    torch.testing.assert_close(grown.chosen._moment.total, total, rtol=0, atol=1e-6 * most)
    assert plain.chosen._moment.count == 0


@pytest.mark.usefixtures("early")
def test_one_that_goes_on_from_stored_segments_equals_one_that_was_not_interrupted():
    data = made(512, d=16)
    queries = torch.randn(6, 128, 16) * torch.linspace(0.1, 3, 16)
    whole = build_index("auto", data.keys[:, :448], data.values[:, :448], queries=queries[:, :112], **SIZES)
    resumed = AutoIndex(2, 16, 3, SHORT)
    resumed.restore(whole.stored())  # without its state, as a prefix that two documents share
    chosen = []
    for index in (whole, resumed):
        assert index.kind == "flat"
        index.append(data.keys[:, 448:], data.values[:, 448:], queries[:, 112:])
        assert isinstance(index, AutoIndex)
        assert isinstance(index.chosen, SketchIndex)
        chosen.append(index.chosen)
    assert torch.equal(chosen[0]._moment.total, chosen[1]._moment.total)
    q = torch.randn(6, 1, 16)
    assert torch.equal(*(index.attend(q, scaling=0.25).out for index in chosen))


@pytest.mark.usefixtures("early")
def test_it_keeps_eight_bits_across_the_change():
    data = made(600, d=16)
    index = auto(data, 400, kv_dtype="int8")
    assert index.kind == "flat"
    assert error(index, data, 400) < 0.02
    index.append(data.keys[:, 400:], data.values[:, 400:])
    assert index.kind == "sketch"
    assert index.chosen.segments[0].fields["keys"].dtype == torch.int8
    assert error(index, data, 600) < 0.3


@pytest.mark.usefixtures("early")
def test_a_target_error_is_met_by_both():
    data = made(600, d=16)
    for n, kind in ((300, "flat"), (600, "sketch")):
        index = auto(data, n, target_error=1e-5)
        assert index.kind == kind
        assert error(index, data, n) < 1e-4


def test_what_it_cannot_take_is_said():
    data = made(100, d=16)
    index = auto(data)
    with pytest.raises(ValueError, match="keys must have head_dim 16, got 8"):
        index.append(data.keys[:, :, :8], data.values[:, :, :8])
    with pytest.raises(ValueError, match="6 heads"):
        index.append(data.keys, data.values, torch.zeros(4, 10, 16))
    assert index.n_tokens == 100
    with pytest.raises(ValueError, match=r"index must be one of sketch, flat, auto.*got 'automatic'"):
        RetrievalConfig(index="automatic")
    with pytest.raises(ValueError, match="or 'auto'; got index='flat'"):
        RetrievalConfig(index="flat", target_error=0.1)


# --- in a cache -------------------------------------------------------------------------------------------


def test_a_short_context_is_exact_and_pays_for_nothing_else():
    model = tiny("llama")
    ids = tokens(600)
    cache = RetrievalCache(model.config, SHORT)
    got = feed(model, cache, ids, 10)
    assert (got - full(model, ids)).abs().max() <= CLOSE
    assert cache.stats()["index"] == "flat"
    assert [layer["index"] for layer in cache.stats()["layers"]] == ["flat", "flat"]
    index = layer_of(cache).rows[0].index
    assert (index.kind, index.nbytes) == ("flat", index.kv_bytes)


@pytest.mark.usefixtures("early")
def test_a_cache_grows_across_the_change():
    model = tiny("llama")
    config = SHORT.with_changes(tolerance=1e-9, cap=1.0)  # as exact as sketch is
    ids, kinds = tokens(1200), []
    cache = RetrievalCache(model.config, config)
    got = [feed(model, cache, ids[:, :400])]
    for step in ids[:, 400:].split(10, 1):
        got.append(feed(model, cache, step))
        kinds.append(cache.stats()["index"])
    assert kinds == sorted(kinds)  # flat, then sketch
    assert set(kinds) == {"flat", "sketch"}
    assert (torch.cat(got, 1) - full(model, ids)).abs().max() <= 10 * CLOSE


@pytest.mark.usefixtures("early")
def test_a_fork_changes_by_itself_and_rows_may_differ():
    model = tiny("llama")
    cache = prefilled(model, 450, SHORT)
    cache.seal()
    fork = cache.fork()
    feed(model, fork, tokens(600, seed=2))
    fork.seal()
    assert (cache.stats()["index"], fork.stats()["index"]) == ("flat", "sketch")


def test_before_anything_was_said_the_setting_is_shown():
    assert RetrievalCache(tiny("llama").config, SHORT).stats()["index"] == "auto"


def test_the_estimate_of_memory_knows_what_will_be_chosen():
    llama = LlamaConfig(
        hidden_size=512, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2, vocab_size=1000
    )
    start = HeadShape(64, 4, 2).sketch_from(RetrievalConfig())
    assert start is not None

    def index_bytes(kind: str, n: int) -> int:
        return estimate(shape_of(llama), n, torch.bfloat16, RetrievalConfig(index=kind), weights=0).index

    outside = 128 + 512
    assert index_bytes("auto", outside + start - 1) == 0
    assert index_bytes("auto", outside + start) == index_bytes("sketch", outside + start) > 0
