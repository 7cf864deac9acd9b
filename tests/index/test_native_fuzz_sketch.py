"""Hypothesis against the native entry points of `sketch`: damaged segments and odd arguments are refused or
answered.

A crash would end the whole test run, so that it cannot be overlooked. Which numbers come out of a segment
whose bits were flipped does not matter here; a file's checksum is what tells that they are wrong.
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
from reference.exact import made, of
from test_native_fuzz import ANYTHING, FLOATS, REFUSALS, tensors, told
from torch import Tensor

from sakuin.index import _native

FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = ("rescore", "coded", "exact", "reach", "cap", "target_error")
USUAL = _native.SketchSettings(rescore=4.0, coded=1.25, exact=30.0, reach=2.0, cap=0.3)
N, D, HEADS, GROUP = 150, 24, 2, 3

DATA = made(N, d=D, heads=HEADS, group=GROUP)
Q = DATA.q.contiguous()
INDEXES = {"order": N, "sub_coordinate": D, "code_coordinate": D}
"""Fields that lead a kernel to other places: their least valid number is 0 (-1 where nothing is named)."""


KV_DTYPES = ["auto", "int8"]


@cache
def sound(kv_dtype: str = "auto") -> _native.SketchSegment:
    """A segment in order."""
    return of(DATA, kv_dtype=kv_dtype).segments[0]


@pytest.fixture(scope="module", autouse=True)
def _leave_no_segment_behind():
    yield
    sound.cache_clear()


NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, torch.nan, torch.inf, -torch.inf, 1e30, -1e30, 1e-45]),
    st.floats(width=32),
)


def fields(kv_dtype: str = "auto") -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in sound(kv_dtype).fields.items()}


def attended(segment: Any, **changes: Any) -> None:
    """Runs every entry point that takes a segment; what comes back has the right shape."""
    arguments = {"q": Q, "static_lse": None, "softcap": None, "isa": "", **changes}
    q, isa = arguments["q"], arguments["isa"]
    mass = torch.zeros(HEADS, len(segment))
    out, lse, coverage, exact, coded, error, touched, tier, weight = _native.sketch_attend(
        q,
        [segment],
        0.2,
        1,
        USUAL,
        static_lse=arguments["static_lse"],
        softcap=arguments["softcap"],
        mass=mass,
        trace=True,
        isa=isa,
    )
    assert out.shape == q.shape
    assert lse.shape == coverage.shape == error.shape == q.shape[:2]
    assert exact.shape == coded.shape == (HEADS, q.shape[1])
    assert tier.shape == weight.shape == (HEADS, q.shape[1], len(segment))
    assert touched > 0


@FUZZ
@given(st.data())
def test_flipped_bits_anywhere_are_refused_or_answered_somehow(data):
    damaged = fields(data.draw(st.sampled_from(KV_DTYPES)))
    flip_bits(data, damaged)
    try:
        segment = _native.SketchSegment(damaged)
    except REFUSALS as refusal:
        told(refusal)
        return
    softcap = data.draw(st.sampled_from([None, 3.0]))
    attended(segment, softcap=softcap, isa=data.draw(st.sampled_from(_native.isas())))


@FUZZ
@given(st.data())
def test_numbers_that_lead_out_of_the_arrays_are_refused(data):
    name = data.draw(st.sampled_from(sorted(INDEXES)))
    damaged = fields()
    flat = damaged[name].view(-1)
    info = torch.iinfo(flat.dtype)
    below = [st.integers(info.min, -2)] if info.min < 0 else []
    bad = data.draw(st.one_of(st.integers(INDEXES[name], info.max), *below))
    flat[data.draw(st.integers(0, len(flat) - 1))] = bad
    with pytest.raises(ValueError, match=f"{name}.*damaged"):
        _native.SketchSegment(damaged)


@FUZZ
@given(st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(0, 4), min_size=3, max_size=3))
def test_a_code_plan_that_does_not_fit_its_rows_is_refused(plan):
    damaged = fields()
    damaged["code_plan"][1] = torch.tensor(plan, dtype=torch.int32)
    chunks, row = -(-D // 16), damaged["codes"].shape[2]
    fits = (
        min(plan) >= 0 and sum(plan) <= chunks and 16 * plan[0] + 8 * plan[1] + 4 * plan[2] <= row
    )  # fmt: skip
    if fits:
        attended(_native.SketchSegment(damaged))
    else:
        with pytest.raises(ValueError, match=r"code_plan.*damaged"):
            _native.SketchSegment(damaged)


@FUZZ
@given(st.data())
def test_fields_of_another_shape_dtype_or_layout_are_refused(data):
    damaged = fields(data.draw(st.sampled_from(KV_DTYPES)))
    name, kind = misshape(data, damaged)
    try:
        segment = _native.SketchSegment(damaged)
    except REFUSALS as refusal:
        told(refusal)
    else:  # a row of codes may be longer than its plan needs
        assert (name, kind) in {("codes", "longer"), ("codes", "shorter")}
        attended(segment)


@pytest.mark.parametrize("name", ["key_scale", "key_zero", "value_scale"])
def test_scales_are_there_for_int8_and_for_nothing_else(name):
    with pytest.raises(ValueError, match="int8 keys and values need"):
        _native.SketchSegment({**fields("int8"), name: None})
    with pytest.raises(ValueError, match="only int8"):
        _native.SketchSegment({**fields(), name: fields("int8")[name]})
    for other in KV_DTYPES:
        swapped = {**fields(other), "keys": fields("int8" if other == "auto" else "auto")["keys"]}
        with pytest.raises(ValueError, match="of the same heads, tokens and dtype"):
            _native.SketchSegment(swapped)


@pytest.mark.parametrize("bad", [None, 5, [], {"keys": torch.ones(2, 3, 8)}, {}, {1: 2}])
def test_what_is_not_a_segment_is_refused(bad):
    with pytest.raises(REFUSALS):
        _native.SketchSegment(bad)


def test_a_segment_keeps_its_memory_whatever_becomes_of_the_dictionary_it_came_from():
    mine = fields()
    segment = _native.SketchSegment(mine)
    before = _native.sketch_attend(Q, [segment], 0.2, 1, USUAL)[0]
    mine.clear()
    segment.fields.clear()
    gc.collect()
    room = [torch.full_like(tensor, 7) for tensor in fields().values()]
    assert torch.equal(_native.sketch_attend(Q, [segment], 0.2, 1, USUAL)[0], before)
    assert len(room) == len(segment.fields)


@FUZZ
@given(st.data())
def test_queries_of_any_layout_and_any_number_are_answered(data):
    t = data.draw(st.integers(0, 3))
    q = data.draw(tensors((HEADS * GROUP, t, D)))
    for _ in range(data.draw(st.integers(0, 3)) if t else 0):
        if q.is_contiguous():
            q.view(-1)[data.draw(st.integers(0, q.numel() - 1))] = data.draw(NUMBERS)
    if q.stride(-1) != 1:
        with pytest.raises(ValueError, match="contiguous in its last dimension"):
            attended(sound(), q=q)
    elif t == 0:
        assert _native.sketch_attend(q, [sound()], 0.2, 1, USUAL)[0].shape == (HEADS * GROUP, 0, D)
    else:
        static = torch.full((HEADS * GROUP, t), float(data.draw(NUMBERS)))
        attended(sound(), q=q, static_lse=data.draw(st.sampled_from([None, static])))


@FUZZ
@given(
    q=st.one_of(ANYTHING, tensors((HEADS * GROUP, 2, D))),
    segments=st.sampled_from([[], ["sound"], ["sound", "sound"], [None], None, ["sound", 5]]),
    scaling=st.one_of(st.floats(), st.none()),
    n_threads=st.integers(-2, 2**40),
    chosen=st.one_of(st.just(USUAL), ANYTHING, st.tuples(*[NUMBERS] * 6)),
    static_lse=ANYTHING,
    softcap=st.one_of(st.none(), st.floats()),
    mass=st.one_of(ANYTHING, tensors((HEADS, N), [torch.float32])),
    isa=st.sampled_from(["", "portable", "avx9", "\0", "é"]),
)
def test_attend_of_anything_answers_or_refuses(
    q, segments, scaling, n_threads, chosen, static_lse, softcap, mass, isa
):
    if segments is not None:
        segments = [sound() if s == "sound" else s for s in segments]
    try:
        out, *_ = _native.sketch_attend(
            q,
            segments,
            scaling,
            n_threads,
            chosen,
            static_lse=static_lse,
            softcap=softcap,
            mass=mass,
            isa=isa,
        )
    except REFUSALS as refusal:
        told(refusal)
    else:
        assert out.shape == q.shape


@FUZZ
@given(st.tuples(*[NUMBERS] * 6), NUMBERS, st.sampled_from([None, 1e-30, 0.5, 1e30]))
def test_any_settings_and_scaling_are_answered_or_refused(chosen, scaling, softcap):
    try:
        given = _native.SketchSettings(**dict(zip(NAMES, chosen, strict=True)))
        out, *_ = _native.sketch_attend(Q, [sound(), sound()], scaling, 2, given, softcap=softcap)
    except REFUSALS as refusal:
        told(refusal)
    else:
        assert out.shape == Q.shape


def test_settings_are_given_by_name_and_can_be_read():
    numbers = {"rescore": 4.0, "coded": 1.25, "exact": 30.0, "reach": 2.5, "cap": 0.25, "target_error": 0.5}
    given = _native.SketchSettings(**numbers)
    assert {name: getattr(given, name) for name in NAMES} == numbers
    assert _native.SketchSettings(**{**numbers, "cap": 3.0}).cap == 1.0  # a share
    with pytest.raises(TypeError):
        _native.SketchSettings(*numbers.values())
    with pytest.raises(TypeError):
        _native.sketch_attend(Q, [sound()], 0.2, 1, tuple(numbers.values()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [-1.0, torch.nan, -torch.inf])
def test_a_setting_below_0_or_no_number_is_refused(name, bad):
    with pytest.raises(ValueError, match="settings must be at least 0, got"):
        _native.SketchSettings(**{**dict.fromkeys(NAMES, 1.0), name: bad})


@FUZZ
@given(st.data())
def test_decode_with_one_wrong_argument_answers_or_refuses(data):
    right: dict[str, Any] = {
        "q": Q,
        "segments": [sound()],
        "sink_keys": torch.ones(HEADS, 2, D),
        "sink_values": torch.ones(HEADS, 2, D),
        "recent_keys": torch.ones(HEADS, 5, D),
        "recent_values": torch.ones(HEADS, 5, D),
        "scaling": 0.2,
        "n_threads": 2,
        "settings": USUAL,
        "s_aux": torch.zeros(HEADS * GROUP),
        "softcap": 5.0,
        "mass": torch.zeros(HEADS, N + 7),
    }
    name = data.draw(st.sampled_from(sorted(right)))
    shaped = tensors(tuple(right[name].shape), FLOATS) if isinstance(right[name], Tensor) else st.nothing()
    try:
        out, *_ = _native.sketch_decode(**{**right, name: data.draw(st.one_of(ANYTHING, shaped))})
    except REFUSALS as refusal:
        told(refusal)
    else:
        assert out.shape[0] == HEADS * GROUP


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_what_is_sealed_has_the_dtype_of_the_segment(kv_dtype):
    arguments: dict[str, Any] = {
        "fields": fields(kv_dtype),
        "y": torch.randn(HEADS, D, N),
        "weight": torch.ones(HEADS, D),
        "features": torch.randn(HEADS, 8, N),
        "values_f32": torch.randn(HEADS, N, D),
        "n_threads": 2,
    }
    small = torch.randint(-127, 128, (HEADS, N, D), dtype=torch.int8)
    mine, other = (small, small.float()) if kv_dtype == "int8" else (small.float(), small)
    segment = _native.sketch_seal(keys=mine, values=mine, **arguments)
    order = segment.fields["order"].long()[:, :, None].expand(-1, -1, D)
    assert torch.equal(segment.fields["keys"], mine.gather(1, order))
    attended(segment)
    for keys, values in ((other, mine), (mine, other), (other, other)):
        with pytest.raises(ValueError, match=r"(shape|tokens) and dtype"):
            _native.sketch_seal(keys=keys, values=values, **arguments)


@FUZZ
@given(st.data())
def test_seal_with_one_wrong_argument_seals_or_refuses(data):
    right: dict[str, Any] = {
        "fields": fields(),
        "y": torch.randn(HEADS, D, N),
        "weight": torch.ones(HEADS, D),
        "features": torch.randn(HEADS, 8, N),
        "keys": torch.randn(HEADS, N, D),
        "values": torch.randn(HEADS, N, D),
        "values_f32": torch.randn(HEADS, N, D),
        "n_threads": 2,
    }
    name = data.draw(st.sampled_from(sorted(right)))
    if isinstance(right[name], Tensor) and data.draw(st.booleans()):
        for _ in range(data.draw(st.integers(1, 4))):
            flat = right[name].view(-1)
            flat[data.draw(st.integers(0, len(flat) - 1))] = data.draw(NUMBERS)
    else:
        right[name] = data.draw(ANYTHING)
    try:
        segment = _native.sketch_seal(**right)
    except REFUSALS as refusal:
        told(refusal)
    else:
        order = segment.fields["order"].long()
        assert (order.sort(1).values == torch.arange(N)).all()
        _native.SketchSegment(segment.fields)
        attended(segment)
