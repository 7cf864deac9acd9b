"""The `sketch` index against exact attention in float64: every shape, static part and odd number."""

from __future__ import annotations

import pytest
import torch
from reference.exact import FINE, Data, attention, index_of, made, of, relative

import sakuin
from sakuin.index import SketchIndex

# --- every shape ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("d", [8, 24, 64, 80, 96, 128, 256])
def test_every_head_dim_and_dtype_is_exact_at_a_fine_tolerance_and_close_by_default(d, dtype):
    data = made(700, d=d, dtype=dtype)
    truth, lse = attention(data.q, data.keys, data.values, data.scaling)
    part = of(data, **FINE).attend(data.q, scaling=data.scaling)
    assert float(relative(part.out, truth).max()) < 5e-4
    assert torch.allclose(part.lse.double(), lse, atol=5e-4)
    part = of(data).attend(data.q, scaling=data.scaling)
    assert float(relative(part.out, truth).mean()) < 0.1


@pytest.mark.parametrize("group", range(1, 17))
def test_every_group_size_and_number_of_positions(group):
    data = made(300, d=24, group=group, t=1 + group % 4)
    truth, lse = attention(data.q, data.keys, data.values, data.scaling, softcap=4.0)
    part = of(data, **FINE).attend(data.q, scaling=data.scaling, softcap=4.0)
    assert float(relative(part.out, truth).max()) < 5e-4
    assert torch.allclose(part.lse.double(), lse, atol=5e-4)
    index = of(data)
    together = index.attend(data.q, scaling=data.scaling)
    for t in range(data.q.shape[1]):
        alone = index.attend(data.q[:, t : t + 1], scaling=data.scaling)
        assert torch.equal(alone.out[:, 0], together.out[:, t])


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1000])
def test_every_number_of_tokens(n):
    data = made(n, d=16)
    truth, lse = attention(data.q, data.keys, data.values, data.scaling)
    part = of(data, **FINE).attend(data.q, scaling=data.scaling, trace=True)
    assert float(relative(part.out, truth).max()) < 5e-4
    assert torch.allclose(part.lse.double(), lse, atol=5e-4)
    assert part.trace.tier.shape == (2, 2, n)
    scores, ids = of(data).search(data.q, n)
    assert (ids.sort(-1).values == torch.arange(n)).all()
    products = data.q @ data.keys.repeat_interleave(3, 0).transpose(1, 2)
    assert torch.allclose(scores, products.gather(-1, ids), atol=1e-3)


@pytest.mark.parametrize("softcap", [0.5, 5.0, 1e4])
def test_softcap(softcap):
    data = made(600)
    truth, lse = attention(data.q, data.keys, data.values, data.scaling, softcap)
    for knobs, most in ((FINE, 1e-3), ({}, 0.1)):
        part = of(data, **knobs).attend(data.q, scaling=data.scaling, softcap=softcap)
        assert float(relative(part.out, truth).max()) < most
        assert float((part.lse - lse).abs().max()) < most


def test_segments_of_different_sizes_are_one_index():
    data = made(1700)
    pieces = [1024, 300, 200, 100, 50, 20, 5, 1]
    index, at = SketchIndex(2, 64, 3, sakuin.RetrievalConfig(segment=1024, **FINE)), 0
    for n in pieces:
        index.append(data.keys[:, at : at + n], data.values[:, at : at + n], None)
        at += n
    assert [len(s) for s in index.segments] == pieces
    truth, _ = attention(data.q, data.keys, data.values, data.scaling)
    assert float(relative(index.attend(data.q, scaling=data.scaling).out, truth).max()) < 5e-4


# --- static part ------------------------------------------------------------------------------------------


def test_the_static_lse_sets_shares_and_stays_out_of_the_result():
    data = made(900)
    index = of(data)
    plain = index.attend(data.q, scaling=data.scaling, trace=True)
    same = index.attend(data.q, scaling=data.scaling, static_lse=torch.full((6, 2), -torch.inf), trace=True)
    assert torch.equal(plain.out, same.out)
    assert torch.equal(plain.lse, same.lse)
    for static in (0.0, 10.0, 1e4, torch.inf):
        part = index.attend(
            data.q, scaling=data.scaling, static_lse=torch.full((6, 2), float(static)), trace=True
        )
        assert torch.isfinite(part.out).all()
        # Less of the index is looked at closely, the more lies outside.
        assert float((part.lse - plain.lse).abs().max()) < 1.0
        assert (part.stats.exact <= plain.stats.exact).all()
    assert float(part.stats.exact.max()) == 0.0
    assert torch.allclose(part.stats.coverage, torch.ones(6, 2))
    assert float(part.trace.weight.abs().max()) == 0.0


def test_decoding_in_one_call_is_the_merge_of_its_parts():
    data, beside = made(900, t=3), made(60, t=3, seed=1)
    index = of(data)
    static = sakuin.index.Static(
        beside.keys[:, :20], beside.values[:, :20], beside.keys[:, 20:], beside.values[:, 20:],
        s_aux=torch.linspace(-2, 3, 6),
    )  # fmt: skip
    mass = torch.zeros(2, 960)
    part = index.decode(data.q, static, scaling=data.scaling, mass=mass)
    for t in range(3):
        keys, values = beside.keys[:, : 58 + t], beside.values[:, : 58 + t]
        out, lse = attention(data.q[:, t : t + 1], keys, values, data.scaling)
        both = torch.logaddexp(lse, torch.linspace(-2, 3, 6, dtype=torch.float64)[:, None])
        stat = sakuin.PartialAttention((out * (lse - both).exp()[..., None]).float(), both.float())
        own = index.attend(data.q[:, t : t + 1], scaling=data.scaling, static_lse=stat.lse)
        merged = sakuin.merge([stat, own])
        assert torch.allclose(part.out[:, t : t + 1], merged.out, atol=2e-3)
        assert torch.allclose(part.lse[:, t : t + 1], merged.lse, atol=2e-3)
    # Every share but the attention sinks' and that of tokens known only by their list is in the mass.
    sinks = (torch.linspace(-2, 3, 6)[:, None] - part.lse).exp().sum()
    assert float((mass.sum() + sinks - part.stats.coverage.sum()).abs()) < 0.01


# --- odd keys ---------------------------------------------------------------------------------------------


def odd(kind: str) -> Data:
    data = made(500, d=32)
    if kind == "all equal":
        data.keys[:] = data.keys[:, :1].clone()
    elif kind == "all zero":
        data.keys[:] = 0
    elif kind == "norm 1e4":
        data.keys *= 1e4 / data.keys.norm(dim=-1, keepdim=True)
    elif kind == "one of norm 1e4":
        data.keys[:, 77] *= 1e4 / data.keys[:, 77].norm()
    elif kind == "a constant coordinate":
        data.keys[:, :, 5] = 3.0
    elif kind == "an outlier channel of 500":
        data.keys[:, :, 3] = 500.0 + data.keys[:, :, 3]
        data.queries[:, :, 3] *= 0.1
        data.q[:, :, 3] *= 0.1
    elif kind == "a token of 500 in one channel":
        data.keys[:, 10, 3] = 500.0
    elif kind == "singular covariance":
        data.keys[:] = data.keys[:, :, :4] @ torch.randn(4, 32, generator=torch.Generator().manual_seed(5))
    elif kind == "queries in a plane":
        data.queries[:, :, 2:] = 0
    elif kind == "queries zero":
        data.queries[:] = 0
    elif kind == "queries far from all keys":
        data.q[:] = -20 * data.keys.mean(1).repeat_interleave(3, 0)[:, None]
    elif kind == "query zero":
        data.q[:] = 0
    elif kind == "query huge":
        data.q *= 1e4
    elif kind == "values equal":
        data.values[:] = 1.5
    elif kind == "values zero but one":
        data.values[:] = 0
        data.values[:, 3] = 1e3
    elif kind == "tiny":
        data.keys *= 1e-20
        data.values *= 1e-20
    return data


ODD = (
    "all equal", "all zero", "norm 1e4", "one of norm 1e4", "a constant coordinate",
    "an outlier channel of 500", "a token of 500 in one channel", "singular covariance",
    "queries in a plane", "queries zero", "queries far from all keys", "query zero", "query huge",
    "values equal", "tiny",
)  # fmt: skip


BEYOND_SKETCHES = ("norm 1e4", "query huge")
"""Logits of thousands, far apart: one token takes everything, and a sketch's error is larger than what
decides which one."""


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("with_queries", [True, False])
def test_odd_numbers_give_right_answers(kind, with_queries):
    data = odd(kind)
    queries = data.queries if with_queries else None
    truth, lse = attention(data.q, data.keys, data.values, data.scaling)
    fine = index_of(data.keys, data.values, queries, group_size=3, segment=256, **FINE)
    part = fine.attend(data.q, scaling=data.scaling)
    assert torch.isfinite(part.out).all()
    exact = fine.attend(data.q, scaling=data.scaling, tolerance=0)
    size = float(data.q.double().norm(dim=-1).max() * data.keys.double().norm(dim=-1).max()) * data.scaling
    rounding = 1e-3 + 1e-6 * size  # of a logit in float32, which is what may decide between two keys
    assert float(relative(exact.out, truth).max()) < 2 * rounding
    if kind not in BEYOND_SKETCHES:
        assert float(relative(part.out, truth).max()) < 2 * rounding
        assert float((part.lse - lse).abs().max()) < 1e-3 + rounding
    part = index_of(data.keys, data.values, queries, group_size=3, segment=256).attend(
        data.q, scaling=data.scaling
    )
    assert torch.isfinite(part.out).all()
    assert torch.isfinite(part.lse).all()
    # Logits of -600 to -800 along what no query was known to ask for are beyond coarse sketches as well.
    unknown = kind == "queries far from all keys" and not with_queries
    if kind not in BEYOND_SKETCHES and not unknown:
        assert float(relative(part.out, truth).mean()) < 0.15


def test_one_large_value_among_nothing_never_gives_not_a_number():
    data = odd("values zero but one")
    part = of(data).attend(data.q, scaling=data.scaling)
    assert torch.isfinite(part.out).all()


def test_strided_and_negative_scaling_and_other_dtypes_of_the_query():
    data = made(400)
    index = of(data, **FINE)
    q = data.q.transpose(0, 1).contiguous().transpose(0, 1)
    assert not q.is_contiguous()
    for query, most in ((q, 5e-4), (q.bfloat16(), 5e-4), (q.half(), 5e-4)):
        truth, _ = attention(query, data.keys, data.values, -0.1)
        assert float(relative(index.attend(query, scaling=-0.1).out, truth).max()) < most


def test_the_exact_share_falls_as_the_root_of_the_tokens_in_a_long_context():
    data = made(20_000, heads=1, group=1)
    index = of(data, segment=4096)
    trace = index.attend(data.q, scaling=data.scaling, trace=True).trace
    assert trace is not None
    shares = trace.weight[trace.tier == 3]
    assert len(shares) > 10
    assert float(shares.min()) > 0.8 * 20 / (20_000 * 8192) ** 0.5
