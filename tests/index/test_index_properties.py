"""Whatever keys, values and queries come, an index answers as attention in float64 does, never with NaN."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference.exact import attention
from torch import Tensor

import sakuin

KINDS = ("flat", "sketch")
EXACT = {"tolerance": 0}
ODD = ("plain", "equal", "zero", "long", "outliers", "flat values", "few directions", "far queries", "spikes")


@dataclass
class Case:
    keys: Tensor
    values: Tensor
    q: Tensor
    queries: Tensor | None
    segment: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Up to a few segments of keys that are odd in one way or two."""
    heads, group, d = draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.sampled_from([8, 24, 64]))
    n = draw(st.sampled_from([1, 2, 31, 63, 64, 65, 127, 200, 330]))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    keys, values = (torch.randn(heads, n, d, generator=random) for _ in range(2))
    q = torch.randn(heads * group, draw(st.integers(1, 3)), d, generator=random)
    queries = torch.randn(heads * group, max(n // 4, 1), d, generator=random) if draw(st.booleans()) else None
    for odd in draw(st.sets(st.sampled_from(ODD), min_size=1, max_size=2)):
        if odd == "equal":
            keys[:] = keys[:, :1]
        elif odd == "zero":
            keys[:, :: draw(st.integers(1, 3))] = 0
        elif odd == "long":
            keys *= 1e4 / keys.norm(dim=-1, keepdim=True).clamp(min=1e-20)
        elif odd == "outliers":
            keys[:, :, draw(st.integers(0, d - 1))] += 500
        elif odd == "flat values":
            values[:] = draw(st.sampled_from([0.0, 3.0]))
        elif odd == "few directions":
            keys = keys[:, :, :2] @ torch.randn(2, d, generator=random)
        elif odd == "far queries":
            q *= draw(st.sampled_from([0.0, 1e-6, 100.0]))
        elif odd == "spikes":
            keys[:, draw(st.integers(0, n - 1))] *= 50
            values[:, draw(st.integers(0, n - 1))] *= 1000
    return Case(keys, values, q, queries, draw(st.sampled_from([64, 128, 4096])))


def index_of(kind: str, case: Case, **knobs: float) -> sakuin.index.Index:
    group = len(case.q) // len(case.keys)
    index = sakuin.build_index(
        kind, case.keys, case.values, queries=case.queries, group_size=group, segment=case.segment, **knobs
    )
    nothing = torch.empty(case.keys.shape[0], 0, case.keys.shape[2])
    index.append(nothing, nothing)  # changes nothing
    return index


CHECKED = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@CHECKED
@given(cases(), st.sampled_from(KINDS), st.sampled_from([None, 20.0]))
def test_in_full_precision_it_is_attention(case, kind, softcap):
    scaling = case.q.shape[2] ** -0.5
    truth, lse = attention(case.q, case.keys, case.values, scaling, softcap)
    part = index_of(kind, case, **EXACT).attend(case.q, scaling=scaling, softcap=softcap)
    # float32 tells scores apart to about their size times 2^-22.
    group = len(case.q) // len(case.keys)
    sizes = case.q.norm(dim=-1)[..., None] * case.keys.norm(dim=-1).repeat_interleave(group, 0)[:, None]
    loss = float(sizes.max()) * scaling * 2**-20 + 2e-4
    scale = case.values.abs().amax().item() + 1e-30
    assert torch.allclose(part.lse.double(), lse, atol=loss, rtol=1e-5)
    assert float((part.out.double() - truth).abs().max()) <= min(4 * loss, 2.0) * scale + 1e-6


@CHECKED
@given(cases(), st.sampled_from(KINDS), st.booleans())
def test_the_defaults_give_finite_averages_of_the_values(case, kind, beside):
    scaling = case.q.shape[2] ** -0.5
    static = torch.randn(case.q.shape[:2]) if beside else None
    part = index_of(kind, case).attend(case.q, scaling=scaling, static_lse=static)
    for x in (part.out, part.lse, part.stats.coverage, part.stats.error):
        assert torch.isfinite(x).all()
    assert 0 <= float(part.stats.error.min()) <= float(part.stats.error.max()) <= 1
    assert 0 <= float(part.stats.coverage.min()) <= float(part.stats.coverage.max()) <= 1 + 1e-4
    # A tilted mean may lie a little outside of what it is a mean of.
    assert float(part.out.norm(dim=-1).max()) <= 1.5 * float(case.values.norm(dim=-1).max()) + 1e-6


@CHECKED
@given(cases(), st.sampled_from(KINDS), st.data())
def test_search_names_each_key_once_with_its_inner_product(case, kind, data):
    n = case.keys.shape[1]
    k = data.draw(st.integers(1, n))
    scores, ids = index_of(kind, case).search(case.q, k)
    group = len(case.q) // len(case.keys)
    products = case.q @ case.keys.repeat_interleave(group, 0).transpose(1, 2)
    size = float(products.abs().max()) + 1e-6
    assert torch.allclose(scores, products.gather(-1, ids), atol=1e-4 * size)
    assert (scores.diff(dim=-1) <= 1e-4 * size).all()
    assert all(len(row.unique()) == k for row in ids.flatten(0, 1))
    if k == n:
        assert torch.equal(ids.sort(-1).values, torch.arange(n).expand_as(ids))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [0, -1, 6, 2.5])
def test_more_keys_than_there_are_cannot_be_asked_for(kind, k):
    index = sakuin.build_index(kind, torch.randn(1, 5, 8), torch.randn(1, 5, 8))
    with pytest.raises(ValueError, match=r"k must be a whole number from 1 to the index's 5 tokens, got"):
        index.search(torch.randn(1, 1, 8), k)
