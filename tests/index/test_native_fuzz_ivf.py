"""Hypothesis against the native entry points of `ivf`: damaged segments and odd arguments are refused or
answered.

A crash would end the whole test run, so that it cannot be overlooked.
"""

from __future__ import annotations

import gc
from functools import cache
from typing import Any

import pytest
import torch
from damaged import flip_bits, misshape
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference.exact import made
from test_native_fuzz import ANYTHING, FLOATS, REFUSALS, tensors, told
from torch import Tensor

from sakuin.index import IvfIndex, _native, build_index

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
N, D, HEADS, GROUP = 150, 24, 2, 3

DATA = made(N, d=D, heads=HEADS, group=GROUP)
Q = DATA.q.contiguous()
T = Q.shape[1]


@cache
def sound() -> _native.IvfSegment:
    """A segment in order."""
    index = build_index("ivf", DATA.keys, DATA.values, group_size=GROUP, list_size=10)
    assert isinstance(index, IvfIndex)
    return index.segments[0]


@cache
def small() -> _native.IvfSegment:
    """A segment of 20 tokens, which another may begin with."""
    keys, values = DATA.keys[:, :20], DATA.values[:, :20]
    index = build_index("ivf", keys, values, group_size=GROUP, list_size=10)
    assert isinstance(index, IvfIndex)
    return index.segments[0]


@pytest.fixture(scope="module", autouse=True)
def _leave_no_segment_behind():
    yield
    sound.cache_clear()
    small.cache_clear()


def fields() -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in sound().fields.items()}


def attended(segment: Any, q: Tensor = Q, **changes: Any) -> None:
    """Runs every entry point that takes a segment; what comes back has the right shape."""
    arguments = {"probes": 0, "budget": 30, "estimate_rest": True, "static_lse": None, "softcap": None}
    arguments = {**arguments, "isa": "", **changes}
    mass = torch.zeros(HEADS, len(segment))
    out, lse, coverage, exact, touched = _native.ivf_attend(q, [segment], 0.2, 1, mass=mass, **arguments)
    assert out.shape == q.shape
    assert lse.shape == coverage.shape == q.shape[:2]
    assert exact.shape == (HEADS, q.shape[1])
    assert touched > 0 or q.shape[1] == 0
    scores, ids = torch.empty(*q.shape[:2], 40), torch.full((*q.shape[:2], 40), -1)
    _native.ivf_search(
        q, [segment], 1, probes=arguments["probes"], budget=arguments["budget"], scores=scores, ids=ids
    )
    assert ((ids >= 0) & (ids < len(segment))).all()


@FUZZ
@given(st.data())
def test_flipped_bits_anywhere_are_refused_or_answered_somehow(data):
    damaged = fields()
    flip_bits(data, damaged)
    try:
        segment = _native.IvfSegment(damaged)
    except REFUSALS as refusal:
        told(refusal)
        return
    attended(
        segment,
        softcap=data.draw(st.sampled_from([None, 3.0])),
        isa=data.draw(st.sampled_from(_native.isas())),
        estimate_rest=data.draw(st.booleans()),
        probes=data.draw(st.sampled_from([0, 1, 5, 10**12])),
    )


@FUZZ
@given(st.data())
def test_numbers_that_lead_out_of_the_arrays_are_refused(data):
    name = data.draw(st.sampled_from(["order", "start"]))
    damaged = fields()
    flat = damaged[name].view(-1)
    bad = data.draw(st.one_of(st.integers(N + 1, 2**31 - 1), st.integers(-(2**31), -1)))
    flat[data.draw(st.integers(0, len(flat) - 1))] = bad
    with pytest.raises(ValueError, match=f"{name}.*damaged"):
        _native.IvfSegment(damaged)


def test_a_position_that_comes_twice_is_refused():
    damaged = fields()
    damaged["order"][1, 3] = damaged["order"][1, 4]
    with pytest.raises(ValueError, match=r"order.*damaged"):
        _native.IvfSegment(damaged)


@FUZZ
@given(st.data())
def test_fields_of_another_shape_dtype_or_layout_are_refused(data):
    damaged = fields()
    misshape(data, damaged)
    with pytest.raises(REFUSALS) as refusal:
        _native.IvfSegment(damaged)
    told(refusal.value)


@pytest.mark.parametrize("bad", [None, 5, [], {"keys": torch.ones(2, 3, 8)}, {}, {1: 2}])
def test_what_is_not_a_segment_is_refused(bad):
    with pytest.raises(REFUSALS):
        _native.IvfSegment(bad)


@pytest.mark.parametrize("bad", [[None], [sound, None], [None, None], [], None, [5], "ab"])
def test_what_are_not_segments_is_refused(bad):
    if isinstance(bad, list):
        bad = [s() if s is sound else s for s in bad]
    with pytest.raises(REFUSALS) as refusal:
        _native.ivf_attend(Q, bad, 0.2, 1, probes=0, budget=30, estimate_rest=True)
    told(refusal.value)
    scores, ids = torch.empty(6, T, 1), torch.empty(6, T, 1, dtype=torch.int64)
    with pytest.raises(REFUSALS):
        _native.ivf_search(Q, bad, 1, probes=0, budget=30, scores=scores, ids=ids)


def test_a_segment_keeps_its_memory_whatever_becomes_of_the_dictionary_it_came_from():
    mine = fields()
    segment = _native.IvfSegment(mine)
    before = _native.ivf_attend(Q, [segment], 0.2, 1, probes=0, budget=30, estimate_rest=True)[0]
    mine.clear()
    segment.fields.clear()
    gc.collect()
    room = [torch.full_like(tensor, 7) for tensor in fields().values()]
    assert torch.equal(
        _native.ivf_attend(Q, [segment], 0.2, 1, probes=0, budget=30, estimate_rest=True)[0], before
    )
    assert len(room) == len(segment.fields)


@FUZZ
@given(st.data())
def test_queries_of_any_layout_and_any_number_are_answered(data):
    t = data.draw(st.integers(0, 3))
    q = data.draw(tensors((HEADS * GROUP, t, D)))
    if t and q.is_contiguous():
        numbers = st.sampled_from([torch.nan, torch.inf, -torch.inf, 3e38, 0.0])
        q.view(-1)[data.draw(st.integers(0, q.numel() - 1))] = data.draw(numbers)
    if q.stride(-1) != 1:
        with pytest.raises(ValueError, match="contiguous in its last dimension"):
            attended(sound(), q)
    else:
        static = torch.full((HEADS * GROUP, t), float(data.draw(st.floats(width=32))))
        attended(sound(), q, static_lse=data.draw(st.sampled_from([None, static])))


@FUZZ
@given(st.data())
def test_one_wrong_argument_of_attend_is_answered_or_refused(data):
    right: dict[str, Any] = {
        "q": Q,
        "segments": [sound(), sound()],
        "scaling": 0.2,
        "n_threads": 2,
        "probes": 3,
        "budget": 20,
        "estimate_rest": True,
        "static_lse": torch.zeros(HEADS * GROUP, T),
        "softcap": 5.0,
        "mass": torch.zeros(HEADS, 2 * N),
        "isa": "",
    }
    name = data.draw(st.sampled_from(sorted(right)))
    shaped = tensors(tuple(right[name].shape), FLOATS) if isinstance(right[name], Tensor) else st.nothing()
    odd = st.sampled_from([[], [None], [sound(), 5], "avx9", "\0", -1, 0, 2**40, 2**62, torch.nan])
    try:
        out, *_ = _native.ivf_attend(**{**right, name: data.draw(st.one_of(ANYTHING, shaped, odd))})
    except REFUSALS as refusal:
        told(refusal)
    else:
        assert out.shape[0] == HEADS * GROUP


@FUZZ
@given(st.data())
def test_one_wrong_argument_of_search_is_answered_or_refused(data):
    shape = (HEADS * GROUP, T, data.draw(st.integers(1, N)))
    right: dict[str, Any] = {
        "q": Q,
        "segments": [sound()],
        "n_threads": 2,
        "probes": 0,
        "budget": 20,
        "scores": torch.empty(shape),
        "ids": torch.empty(shape, dtype=torch.int64),
    }
    name = data.draw(st.sampled_from(sorted(right)))
    ints, nothing = torch.empty(shape, dtype=torch.int32), torch.empty(6, T, 0)
    odd = st.sampled_from([[], [None], -1, 0, 2**62, ints, nothing])
    odd = st.one_of(odd, tensors(shape, [torch.float32, torch.int64]), tensors((6, T, N + 1), FLOATS))
    try:
        _native.ivf_search(**{**right, name: data.draw(st.one_of(ANYTHING, odd))})
    except REFUSALS as refusal:
        told(refusal)


@FUZZ
@given(st.data())
def test_seal_with_one_wrong_argument_seals_or_refuses(data):
    right: dict[str, Any] = {
        "fields": fields(),
        "keys": DATA.keys.contiguous().clone(),
        "values": DATA.values.contiguous().clone(),
        "iterations": 2,
        "n_threads": 2,
        "base": None,
        "isa": data.draw(st.sampled_from(["", *_native.isas()])),
    }
    if data.draw(st.booleans()):
        right["base"] = small()
        for field in ("keys", "values"):
            right[field] = right[field][:, : N - 20].contiguous()
    name = data.draw(st.sampled_from(sorted(right)))
    if isinstance(right[name], Tensor) and data.draw(st.booleans()):
        numbers = st.sampled_from([torch.nan, torch.inf, -torch.inf, 3e38, 1e-45, 0.0])
        for _ in range(data.draw(st.integers(1, 4))):
            flat = right[name].view(-1)
            flat[data.draw(st.integers(0, len(flat) - 1))] = data.draw(numbers)
    else:
        right[name] = data.draw(ANYTHING)
    try:
        segment = _native.ivf_seal(**right)
    except REFUSALS as refusal:
        told(refusal)
    else:
        order = segment.fields["order"].long()
        assert (order.sort(1).values == torch.arange(N)).all()
        _native.IvfSegment(segment.fields)
        attended(segment)
