"""The `ivf` index against exact attention in float64: every shape, odd numbers, and keys and queries of
a real model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference.exact import Data, attention, made, relative
from reference.trace import Layer, real_trace
from test_sketch import ODD, odd
from torch import Tensor
from transformers import LlamaConfig

from sakuin.backends.transformers.shape import shape_of
from sakuin.capacity.need import estimate
from sakuin.index import IvfIndex, Static, build_index


def index_of(keys: Tensor, values: Tensor, **knobs: Any) -> IvfIndex:
    index = build_index("ivf", keys, values, **knobs)
    assert isinstance(index, IvfIndex)
    return index


def of(data: Data, **knobs: Any) -> IvfIndex:
    return index_of(data.keys, data.values, **{"group_size": len(data.q) // len(data.keys), **knobs})


# --- probing everything is exact --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("d", [8, 24, 64, 96, 256])
def test_probing_every_list_is_exact_for_every_head_dim_and_dtype(d, dtype):
    data = made(700, d=d, dtype=dtype)
    truth, lse = attention(data.q, data.keys, data.values, data.scaling)
    for knobs in ({"nprobe": 1.0}, {"budget": 1.0}, {"nprobe": 10**6}, {"budget": 700}, {"tolerance": 0.0}):
        part = of(data, **knobs).attend(data.q, scaling=data.scaling)
        assert float(relative(part.out, truth).max()) < 5e-4
        assert torch.allclose(part.lse.double(), lse, atol=5e-4)
        assert part.stats is not None
        assert torch.equal(part.stats.exact, torch.ones(2, 2))
        assert torch.allclose(part.stats.coverage, torch.ones(6, 2))
        assert part.stats.touched_bytes >= 2 * 2 * data.keys.nbytes


@pytest.mark.parametrize("group", range(1, 17))
def test_every_group_size_and_number_of_positions(group):
    data = made(300, d=24, group=group, t=1 + group % 4)
    truth, lse = attention(data.q, data.keys, data.values, data.scaling, softcap=4.0)
    part = of(data, budget=1.0).attend(data.q, scaling=data.scaling, softcap=4.0)
    assert float(relative(part.out, truth).max()) < 5e-4
    assert torch.allclose(part.lse.double(), lse, atol=5e-4)
    index = of(data)
    together = index.attend(data.q, scaling=data.scaling)
    for t in range(data.q.shape[1]):
        alone = index.attend(data.q[:, t : t + 1], scaling=data.scaling)
        assert torch.equal(alone.out[:, 0], together.out[:, t])


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 127, 1000])
def test_every_number_of_tokens(n):
    data = made(n, d=16)
    truth, _ = attention(data.q, data.keys, data.values, data.scaling)
    for list_size in (1, 32, 5000):
        index = of(data, budget=1.0, list_size=list_size)
        part = index.attend(data.q, scaling=data.scaling)
        assert float(relative(part.out, truth).max()) < 5e-4
        scores, ids = index.search(data.q, n)
        assert (ids.sort(-1).values == torch.arange(n)).all()
        assert (scores.diff(dim=-1) <= 0).all()
        products = data.q @ data.keys.repeat_interleave(3, 0).transpose(1, 2)
        assert torch.allclose(scores, products.gather(-1, ids), atol=1e-3)
        assert torch.isfinite(of(data, list_size=list_size).attend(data.q, scaling=1.0).out).all()


# --- what a step attends ----------------------------------------------------------------------------------


def test_a_larger_budget_finds_more_and_errs_less():
    data = made(4000)
    truth, lse = attention(data.q, data.keys, data.values, data.scaling)
    exact = build_index("flat", data.keys, data.values, group_size=3).search(data.q, 50)[1]
    errors, recalls, coverages, touched = [], [], [], []
    for budget in (40, 0.05, 0.2, 0.6):
        index = of(data, budget=budget)
        part = index.attend(data.q, scaling=data.scaling)
        errors.append(float(relative(part.out, truth).mean()))
        found = index.search(data.q, 50)[1]
        recalls.append(float((found[..., None] == exact[..., None, :]).any(-1).float().mean()))
        coverages.append(float(part.stats.coverage.mean()))
        touched.append(part.stats.touched_share)
    assert errors == sorted(errors, reverse=True)
    assert recalls == sorted(recalls)
    assert coverages == sorted(coverages)
    assert touched == sorted(touched)
    assert recalls[-1] > 0.99
    assert float((part.lse - lse).abs().max()) < 0.05


def test_the_rest_is_estimated_by_centroid_and_mean_value_or_dropped():
    data = made(2000)
    truth, lse = attention(data.q, data.keys, data.values, data.scaling)
    estimated = of(data, nprobe=2).attend(data.q, scaling=data.scaling)
    dropped = of(data, nprobe=2, estimate_rest=False).attend(data.q, scaling=data.scaling)
    assert torch.equal(estimated.stats.exact, dropped.stats.exact)
    assert torch.allclose(estimated.stats.coverage, dropped.stats.coverage)
    assert dropped.stats.touched_bytes < estimated.stats.touched_bytes
    assert (dropped.lse < estimated.lse).all()
    assert float((estimated.lse - lse).abs().max()) < float((dropped.lse - lse).abs().max())
    assert float(relative(estimated.out, truth).mean()) < float(relative(dropped.out, truth).mean())
    true_share = (dropped.lse.double() - lse).exp()
    assert float((dropped.stats.coverage - true_share).abs().mean()) < 0.05


def test_the_static_lse_sets_shares_and_stays_out_of_the_result():
    data = made(900)
    index = of(data)
    plain = index.attend(data.q, scaling=data.scaling)
    for static in (-torch.inf, 0.0, 10.0, 1e4, torch.inf):
        mass = torch.zeros(2, 900)
        beside = torch.full((6, 2), float(static))
        part = index.attend(data.q, scaling=data.scaling, static_lse=beside, mass=mass)
        assert torch.equal(part.out, plain.out)
        assert torch.equal(part.lse, plain.lse)
        assert torch.isfinite(mass).all()
        assert (part.stats.coverage >= plain.stats.coverage - 1e-6).all()
    assert torch.allclose(part.stats.coverage, torch.ones(6, 2))
    assert float(mass.abs().max()) == 0.0


def test_the_mass_of_a_whole_step_is_every_tokens_own_share():
    data, beside = made(900, t=3), made(60, t=3, seed=1)
    static = Static(beside.keys[:, :20], beside.values[:, :20], beside.keys[:, 20:], beside.values[:, 20:])
    masses = []
    for index in (of(data, budget=1.0), build_index("flat", data.keys, data.values, group_size=3)):
        mass = torch.zeros(2, 960)
        part = index.decode(data.q, static, scaling=data.scaling, softcap=5.0, mass=mass)
        masses.append((mass, part))
    (ours, part), (theirs, flat) = masses
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(part.out, flat.out, atol=1e-4, rtol=1e-3)
    assert torch.allclose(ours.sum(1), torch.full((2,), 9.0), atol=1e-3)


# --- odd numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("estimate", [True, False])
def test_odd_numbers_give_right_answers(kind, estimate):
    data = odd(kind)
    truth, lse = attention(data.q, data.keys, data.values, data.scaling)
    size = float(data.q.double().norm(dim=-1).max() * data.keys.double().norm(dim=-1).max()) * data.scaling
    rounding = 1e-3 + 1e-6 * size  # of a logit in float32, which is what may decide between two keys
    exact = of(data, estimate_rest=estimate).attend(data.q, scaling=data.scaling, tolerance=0)
    assert float(relative(exact.out, truth).max()) < 2 * rounding
    assert float((exact.lse - lse).abs().max()) < 1e-3 + rounding
    part = of(data, estimate_rest=estimate).attend(data.q, scaling=data.scaling)
    assert torch.isfinite(part.out).all()
    assert torch.isfinite(part.lse).all()
    assert (part.lse <= lse + 2.0).all()


NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 500.0, 1e4, -1e4, 1e-20, 3e38])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_finite_numbers_come_none_is_lost_and_none_becomes_not_a_number(data):
    heads, group, d = 2, data.draw(st.integers(1, 4)), data.draw(st.sampled_from([8, 16]))
    n = data.draw(st.integers(1, 150))
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    x = {
        "keys": torch.randn(heads, n, d, generator=random),
        "values": torch.randn(heads, n, d, generator=random),
        "q": torch.randn(heads * group, 1, d, generator=random),
    }
    for _ in range(data.draw(st.integers(0, 4))):
        name = data.draw(st.sampled_from(sorted(x)))
        number = data.draw(NUMBERS)
        where = data.draw(st.sampled_from(["one", "channel", "token", "all"]))
        # Keys beyond 1e15 are refused; values are summed, weighing up to 1 each, before they are divided.
        most = {"keys": 1e14, "values": 1e30, "q": 3e38}[name]
        number = max(-most, min(number, most))
        head, token, channel = (data.draw(st.integers(0, k - 1)) for k in x[name].shape)
        if where == "one":
            x[name][head, token, channel] = number
        elif where == "channel":
            x[name][:, :, channel] = number
        elif where == "token":
            x[name][:, token] = number
        else:
            x[name][:] = number
    knobs: dict[str, Any] = {
        "list_size": data.draw(st.sampled_from([1, 4, 32])),
        "estimate_rest": data.draw(st.booleans()),
    }
    if data.draw(st.booleans()):
        knobs["nprobe"] = data.draw(st.sampled_from([1, 2, 0.5]))
    else:
        knobs["budget"] = data.draw(st.sampled_from([1, 20, 0.3]))
    index = index_of(x["keys"], x["values"], group_size=group, **knobs)
    softcap = data.draw(st.sampled_from([None, 5.0]))
    mass = torch.zeros(heads, n)
    part = index.attend(x["q"], scaling=0.25, softcap=softcap, mass=mass)
    for result in (part.out, part.lse, mass, part.stats.coverage):
        assert torch.isfinite(result).all()
    assert ((part.stats.exact > 0) & (part.stats.exact <= 1)).all()
    ids = index.search(x["q"], n)[1]
    assert (ids.sort(-1).values == torch.arange(n)).all()
    exact = index.attend(x["q"], scaling=0.25, softcap=softcap, tolerance=0)
    assert float(exact.stats.exact.min()) == 1.0
    assert float(exact.out.abs().max()) <= float(x["values"].abs().max()) * 1.001


# --- a real model -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trace(smollm2_by_transformers: tuple[Any, Any]) -> dict[int, Layer]:
    return real_trace(*smollm2_by_transformers)


def test_on_a_real_trace_the_estimate_helps_in_every_layer_and_the_budget_bounds_the_bytes(trace):
    for layer in trace.values():
        q, s = layer.asked, layer.static_lse
        truth, truth_lse = attention(q, layer.keys, layer.values, layer.scaling)
        beside = torch.logaddexp(truth_lse, s.double())
        errors = {}
        for name, knobs in {
            "default": {},
            "dropped": {"estimate_rest": False},
            "tight": {"budget": 0.02},
            "dropped, tight": {"budget": 0.02, "estimate_rest": False},
        }.items():
            index = index_of(layer.keys, layer.values, group_size=len(q) // len(layer.keys), **knobs)
            part = index.attend(q, scaling=layer.scaling, static_lse=s)
            both = torch.logaddexp(part.lse.double(), s.double())
            ours = part.out.double() * (part.lse.double() - both).exp()[..., None]
            theirs = truth * (truth_lse - beside).exp()[..., None]
            errors[name] = float(((ours - theirs).norm(dim=-1) / truth.norm(dim=-1)).mean())
            assert part.stats is not None
            share = part.stats.touched_share
            assert 0.1 < share < 0.35 if name == "default" else share < 0.35
        assert errors["default"] < errors["dropped"]
        assert errors["tight"] < errors["dropped, tight"]
        assert errors["default"] < errors["tight"]
        assert errors["default"] < 0.05


def test_its_memory_is_what_the_estimate_says():
    config = LlamaConfig(
        hidden_size=384, num_hidden_layers=1, num_attention_heads=6, num_key_value_heads=2, head_dim=64
    )
    for n, knobs in ((640, {}), (700, {"list_size": 48}), (17_000, {"list_size": 512})):
        index = of(made(n, dtype=torch.bfloat16), **knobs)
        need = estimate(shape_of(config), n, torch.bfloat16, index.config, weights=0)
        assert index.nbytes - index.kv_bytes == pytest.approx(need.index, rel=0.01)
