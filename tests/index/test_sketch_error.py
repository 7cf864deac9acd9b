"""`sketch` knows how far off a step is, and keeps to a target."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference.exact import attention, index_of, made, of, relative
from reference.trace import LAYERS, Layer, real_trace
from torch import Tensor

import sakuin
from sakuin import RetrievalConfig
from sakuin.index import SketchIndex
from sakuin.index.base import Index, Static, decode_by_parts


@pytest.fixture(scope="module")
def trace(smollm2_by_transformers: tuple[Any, Any]) -> dict[int, Layer]:
    return real_trace(*smollm2_by_transformers)


def of_trace(layer: Layer, **knobs: Any) -> SketchIndex:
    return index_of(layer.keys, layer.values, layer.queries, **{"segment": 1024, **knobs})


def index_share(part: Any, static_lse: Tensor) -> Tensor:
    return (part.lse - torch.logaddexp(part.lse, static_lse)).exp()


@pytest.mark.parametrize("layer_id", LAYERS)
@pytest.mark.parametrize("tolerance", [0.25, 1.0, 4.0])
def test_the_estimate_is_about_the_true_error(trace, layer_id, tolerance):
    layer = trace[layer_id]
    truth, _ = attention(layer.asked, layer.keys, layer.values, layer.scaling)
    part = of_trace(layer).attend(layer.asked, scaling=layer.scaling, tolerance=tolerance)
    ratio = part.stats.error / relative(part.out, truth)
    assert 0.7 <= float(ratio.median()) <= 1.5
    # Heads and steps with large errors are told from those with small ones.
    ranks = torch.stack([part.stats.error.flatten(), relative(part.out, truth).flatten().float()]).argsort(1)
    places = ranks.argsort(1).double()
    assert float(torch.corrcoef(places)[0, 1]) > 0.5


def test_a_static_part_takes_its_share_of_the_error(trace):
    layer = trace[LAYERS[1]]
    index = of_trace(layer)
    alone = index.attend(layer.asked, scaling=layer.scaling)
    beside = index.attend(layer.asked, scaling=layer.scaling, static_lse=alone.lse + 3)
    assert torch.all(beside.stats.error <= 1.1 * index_share(beside, alone.lse + 3))
    assert float(beside.stats.error.mean()) < 0.5 * float(alone.stats.error.mean())


@pytest.mark.parametrize("target", [0.03, 0.01])
def test_a_target_is_kept_and_costs_only_where_it_must(trace, target):
    for layer in trace.values():
        truth, _ = attention(layer.asked, layer.keys, layer.values, layer.scaling)
        free = of_trace(layer).attend(layer.asked, scaling=layer.scaling)
        held = of_trace(layer, target_error=target).attend(layer.asked, scaling=layer.scaling)
        assert float(held.stats.error.max()) <= target
        true = relative(held.out, truth)
        assert float((true <= 2 * target).double().mean()) > 0.95
        groups = free.stats.error.view(3, 3, -1).amax(1)
        easy = (groups <= target).repeat_interleave(3, 0)
        assert torch.equal(held.out[easy], free.out[easy])
        if not easy.all():
            assert held.stats.touched_bytes > free.stats.touched_bytes
            assert float(true[~easy].mean()) < float(relative(free.out, truth)[~easy].mean())


def test_a_target_out_of_reach_of_codes_is_met_exactly():
    data = made(700)
    truth, lse = attention(data.q, data.keys, data.values, data.scaling)
    part = of(data, target_error=1e-6).attend(data.q, scaling=data.scaling)
    assert float(relative(part.out, truth).max()) < 1e-4
    assert torch.allclose(part.lse.double(), lse, atol=1e-4)
    assert float(part.stats.error.max()) == 0.0
    assert float(part.stats.exact.min()) == 1.0


def test_the_whole_step_is_judged_by_the_whole_output(trace):
    layer = trace[LAYERS[0]]
    index = of_trace(layer)
    torch.manual_seed(0)
    q = layer.asked[:, :1].contiguous()
    sink, recent = torch.randn(2, 3, 8, 64), torch.randn(2, 3, 20, 64)
    static = Static(sink[0], sink[1], recent[0], recent[1])
    keys = torch.cat([sink[0], layer.keys.float(), recent[0]], 1)
    values = torch.cat([sink[1], layer.values.float(), recent[1]], 1)
    truth, _ = attention(q, keys, values, layer.scaling)
    native = index.decode(q, static, scaling=layer.scaling)
    parts = decode_by_parts(index, q, static, scaling=layer.scaling)
    assert torch.allclose(native.stats.error, parts.stats.error, rtol=0.05, atol=1e-4)
    ratio = native.stats.error / relative(native.out, truth)
    assert 0.5 <= float(ratio.median()) <= 2.0
    held = of_trace(layer, target_error=0.005).decode(q, static, scaling=layer.scaling)
    assert float(held.stats.error.max()) <= 0.005


def test_an_index_that_does_not_know_says_so(trace):
    layer = trace[LAYERS[0]]
    knowing: dict[str, Index] = {
        kind: sakuin.build_index(kind, layer.keys, layer.values, queries=layer.queries)
        for kind in ("flat", "topk")
    }
    parts = {kind: i.attend(layer.asked, scaling=layer.scaling) for kind, i in knowing.items()}
    assert float(parts["flat"].stats.error.max()) == 0.0
    assert parts["topk"].stats.error is None


@pytest.mark.parametrize("bad", [0, -0.1, 2.0, float("nan"), "small", True])
def test_a_target_must_be_a_share(bad):
    with pytest.raises(ValueError, match="target_error must be between"):
        RetrievalConfig(target_error=bad)


def test_a_target_needs_an_index_that_knows_its_error():
    with pytest.raises(ValueError, match="target_error needs index='sketch'"):
        RetrievalConfig(index="flat", target_error=0.01)
