"""`kv_dtype="int8"`: what the numbers stand for, attention over them on every instruction set, growth, and
what is refused. Real keys and whole models are in test_int8_models.py."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.exact import FINE, Data, attention, made, of, relative
from test_sketch import BEYOND_SKETCHES, ODD, odd
from torch import Tensor

import sakuin
from sakuin import RetrievalConfig, build_index, kinds
from sakuin.index import FlatIndex, Index, SketchIndex, Static, _native, register
from sakuin.index.int8 import Int8KV
from sakuin.index.peers import ChosenIndex

INT8 = {"kv_dtype": "int8"}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=_native.isas())
def isa(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def held(index: Index) -> tuple[Tensor, Tensor]:
    """Keys and values that an index stores, in fp32, in order of position."""
    parts = []
    segments = index.segments if isinstance(index, SketchIndex) else []
    for i, (keys, values) in enumerate(index.blocks()):
        if segments:
            back = segments[i].fields["order"].long().argsort(1)[:, :, None].expand_as(keys)
            keys, values = keys.gather(1, back), values.gather(1, back)
        parts.append((keys, values))
    keys, values = (torch.cat(x, 1) for x in zip(*parts, strict=True))
    return keys, values


# --- the numbers -------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(1, 40),
    scale=st.sampled_from([1e-42, 1e-20, 1e-3, 1.0, 500.0, 1e30, 3e38]),
    offset=st.sampled_from([0.0, 1.0, -3e3, 1e30]),
    flat_channel=st.booleans(),
    zero_token=st.booleans(),
    seed=st.integers(0, 100),
)
def test_every_number_is_within_half_a_step_and_finite(n, scale, offset, flat_channel, zero_token, seed):
    random = torch.Generator().manual_seed(seed)
    keys = (torch.rand(2, n, 8, generator=random) * 2 - 1) * scale + offset
    values = (torch.rand(2, n, 8, generator=random) * 2 - 1) * scale
    if flat_channel:
        keys[:, :, 3] = keys[:, :1, 3]
    if zero_token:
        values[:, 0] = 0.0
    kept = Int8KV.of(keys, values)
    near_keys, near_values = kept.decode()
    for near, x, step in (
        (near_keys, keys, kept.key_scale[:, None]),
        (near_values, values, kept.value_scale[..., None]),
    ):
        assert torch.isfinite(near).all()
        assert torch.isfinite(step).all()
        # Beside the rounding of fp32 itself, and of steps that are hardly a number any more.
        slack = x.abs().double() * 3e-7 + step.double() * 1e-4 + 2e-43
        assert ((near.double() - x.double()).abs() <= step.double() / 2 + slack).all()
    if flat_channel and scale >= 1e-20:
        assert torch.allclose(near_keys[:, :, 3], keys[:, :, 3], rtol=1e-6)
    if zero_token:
        assert (near_values[:, 0] == 0).all()


def test_what_was_rounded_once_is_not_rounded_again():
    data = made(300)
    once = Int8KV.of(data.keys, data.values)
    twice = Int8KV.of(*once.decode())
    assert torch.equal(once.keys, twice.keys)
    assert torch.equal(once.values, twice.values)
    assert torch.allclose(once.key_scale, twice.key_scale, rtol=1e-5)


def test_channels_far_from_zero_cost_nothing():
    # Some families have them. Where all keys move together a softmax does not change, nor should its error.
    data = made(600)
    moved = Data(data.keys.clone(), data.values, data.queries, data.q, data.scaling)
    moved.keys[:, :, [5, 40]] += 500.0
    errors = []
    for case in (data, moved):
        truth, _ = attention(case.q, case.keys, case.values, case.scaling)
        index = build_index("flat", case.keys, case.values, group_size=3, **INT8)
        errors.append(float(relative(index.attend(case.q, scaling=case.scaling).out, truth).mean()))
    assert errors[1] < 1.1 * errors[0]
    assert errors[0] < 0.01


# --- attention ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [8, 24, 64, 80, 128, 256])
def test_flat_is_exact_over_what_the_numbers_stand_for(isa, d, dtype):
    for n, group, t in ((1, 1, 1), (70, 3, 2), (333, 7, 1), (700, 16, 5)):
        data = made(n, d=d, group=group, t=t)
        kept = Int8KV.of(data.keys, data.values)
        q = data.q.to(dtype)
        for softcap in (None, 5.0):
            mass = torch.zeros(2, n)
            out, lse = _native.flat_attend(q, [kept.span()], 0.2, 2, softcap=softcap, mass=mass, isa=isa)
            truth, truth_lse = attention(q, *kept.decode(), 0.2, softcap)
            assert float(relative(out, truth).max()) < 5e-5
            assert (lse - truth_lse).abs().max() < 2e-4
            assert torch.allclose(mass.sum(1), torch.full((2,), group * t * 1.0), rtol=1e-4)


def test_spans_in_int8_and_in_floats_are_one_sequence(isa):
    data = made(900, t=3)
    kept = [Int8KV.of(data.keys[:, a:b], data.values[:, a:b]) for a, b in ((100, 400), (400, 465))]
    rest = data.keys[:, 465:].bfloat16(), data.values[:, 465:].bfloat16()
    spans = [(data.keys[:, :100], data.values[:, :100]), *(x.span() for x in kept), rest]
    out, lse = _native.flat_attend(data.q, spans, data.scaling, 2, causal=True, isa=isa)
    parts = [(data.keys[:, :100], data.values[:, :100]), *(x.decode() for x in kept), rest]
    keys, values = (torch.cat([part[i].float() for part in parts], 1) for i in (0, 1))
    for t in range(3):  # position t does not see the last 2 - t tokens
        end = keys.shape[1] - 2 + t
        truth, truth_lse = attention(data.q[:, t : t + 1], keys[:, :end], values[:, :end], data.scaling)
        assert float(relative(out[:, t : t + 1], truth).max()) < 5e-5
        assert (lse[:, t : t + 1] - truth_lse).abs().max() < 2e-4


def test_a_slice_of_a_longer_buffer_and_token_major_memory(isa):
    data = made(200)
    kept = Int8KV.of(data.keys, data.values)
    keys = kept.keys.transpose(0, 1).contiguous().transpose(0, 1)
    values = torch.cat([kept.values, kept.values], 1)[:, 200:]
    span = _native.Span(keys, values, kept.key_scale, kept.key_zero, kept.value_scale)
    got, _ = _native.flat_attend(data.q, [span], data.scaling, 2, isa=isa)
    want, _ = _native.flat_attend(data.q, [kept.span()], data.scaling, 2, isa=isa)
    assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [8, 24, 64, 128, 256])
def test_sketch_is_exact_over_what_it_stores_at_a_fine_tolerance(isa, d, dtype, monkeypatch):
    data = made(700, d=d, dtype=dtype, t=2)
    index = of(data, **FINE, **INT8)
    settings_ = index._settings(index.config.tolerance)
    out, lse, *_ = _native.sketch_attend(data.q, index.segments, data.scaling, 2, settings_, isa=isa)
    truth, truth_lse = attention(data.q, *held(index), data.scaling)
    assert float(relative(out, truth).max()) < 5e-4
    assert (lse - truth_lse).abs().max() < 5e-4


@pytest.mark.parametrize("group", [1, 3, 5, 8, 16])
def test_sketch_with_softcap_static_part_mass_and_trace(group):
    data = made(500, d=24, group=group)
    index = of(data, **FINE, **INT8)
    truth, lse = attention(data.q, *held(index), data.scaling, softcap=4.0)
    mass = torch.zeros(2, 500)
    part = index.attend(
        data.q, scaling=data.scaling, softcap=4.0, static_lse=lse.float(), mass=mass, trace=True
    )
    assert float(relative(part.out, truth).max()) < 5e-4
    assert torch.allclose(mass.sum(1), torch.full((2,), 0.5 * group * 2), rtol=1e-3)
    assert torch.allclose(part.trace.weight.sum((1, 2)), torch.full((2,), 1.0), rtol=1e-3)


def test_tolerance_zero_reads_the_numbers_and_keeps_the_order_of_mass():
    data = made(500)
    index = of(data, tolerance=0.0, **INT8)
    truth, _ = attention(data.q, *held(index), data.scaling)
    mass = torch.zeros(2, 500)
    part = index.attend(data.q, scaling=data.scaling, mass=mass)
    assert float(relative(part.out, truth).max()) < 5e-5
    z = data.q.double() @ held(index)[0].double().repeat_interleave(3, 0).mT * data.scaling
    assert torch.allclose(mass.double(), z.softmax(-1).view(2, 3, 2, 500).sum((1, 2)), atol=1e-4)
    assert part.stats.touched_bytes == index.kv_bytes * 2


@pytest.mark.parametrize("kind", ODD)
def test_odd_numbers_give_right_answers(kind):
    data = odd(kind)
    index = of(data, **INT8)
    keys, values = held(index)
    assert (
        (keys - data.keys).abs() <= (data.keys.amax(1) - data.keys.amin(1))[:, None] / 508 * 1.01 + 1e-4
    ).all()
    truth, _ = attention(data.q, keys, values, data.scaling)
    size = float(data.q.double().norm(dim=-1).max() * keys.double().norm(dim=-1).max()) * data.scaling
    rounding = 1e-3 + 2e-6 * size
    exact = index.attend(data.q, scaling=data.scaling, tolerance=0)
    assert float(relative(exact.out, truth).max()) < 2 * rounding
    for knobs, most in ((FINE, 2 * rounding), ({}, 0.15)):
        part = of(data, **knobs, **INT8).attend(data.q, scaling=data.scaling)
        assert torch.isfinite(part.out).all()
        assert torch.isfinite(part.lse).all()
        if kind not in BEYOND_SKETCHES:
            assert float(relative(part.out, truth).mean()) < most


@pytest.mark.parametrize("kind", ["flat", "sketch"])
@pytest.mark.parametrize("tolerance", [1.0, 0.0])
def test_a_whole_step_is_the_static_part_beside_the_stored_tokens(kind, tolerance):
    data = made(600, t=3)
    index = build_index(
        kind, data.keys, data.values, queries=data.queries, segment=256, tolerance=tolerance, **INT8
    )
    keys, values = data.keys[:, :40], data.values[:, :40]
    step = Static(keys[:, :10], values[:, :10], keys[:, 10:], values[:, 10:], s_aux=torch.zeros(6))
    got = index.decode(data.q, step, scaling=data.scaling)
    want = sakuin.index.decode_by_parts(index, data.q, step, scaling=data.scaling)
    assert float(relative(got.out, want.out.double()).max()) < 1e-3
    assert (got.lse - want.lse).abs().max() < 1e-3


@pytest.mark.parametrize("kind", ["flat", "sketch"])
def test_search_finds_the_largest_products_with_what_is_stored(kind):
    data = made(700)
    index = build_index(kind, data.keys, data.values, queries=data.queries, segment=256, **INT8)
    scores, ids = index.search(data.q, 5)
    products = data.q @ held(index)[0].repeat_interleave(3, 0).mT
    assert torch.allclose(scores, products.topk(5, -1).values, atol=1e-3)
    assert torch.allclose(products.gather(-1, ids), scores, atol=1e-3)


def test_all_but_exact_tokens_is_made_from_the_keys_as_they_came():
    data = made(256)
    plain, small = (of(data, **knobs).segments[0].fields for knobs in ({}, INT8))
    for name in plain:
        if name not in ("keys", "values"):
            assert torch.equal(plain[name], small[name]), name


# --- growth ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flat", "sketch"])
@pytest.mark.parametrize("step", [1, 7, 64, 100, 400])
def test_rounding_again_stays_within_half_a_step_each_time(kind, step):
    data = made(400, d=8)
    # Every new key lies outside the range so far, in every channel.
    keys = data.keys + torch.arange(400.0)[:, None] * 0.05
    index = (FlatIndex if kind == "flat" else SketchIndex)(
        2, 8, 3, RetrievalConfig(index=kind, segment=128, **INT8)
    )
    for at in range(0, 400, step):
        index.append(keys[:, at : at + step], data.values[:, at : at + step])
    assert index.n_tokens == 400
    got_keys, got_values = held(index)
    first = 0
    for block, _ in index.blocks():
        here = slice(first, first + block.shape[1])
        first += block.shape[1]
        steps = (keys[:, here].amax(1) - keys[:, here].amin(1)) / 254
        times = 1 + math.ceil(math.log2(128)) if step < 128 else 1
        assert ((got_keys[:, here] - keys[:, here]).abs() <= steps[:, None] * (times / 2 + 0.1) + 1e-4).all()
    # Each token's value is rounded once, however often it moves.
    assert ((got_values - data.values).abs() <= data.values.abs().amax(2, keepdim=True) / 254 * 1.001).all()
    assert index.nbytes >= index.kv_bytes >= 400 * 2 * 8 * 2


def test_flat_joins_short_spans_in_int8_as_well():
    index = FlatIndex(1, 8, 1, RetrievalConfig(index="flat", segment=128, **INT8))
    for _ in range(300):
        index.append(torch.randn(1, 1, 8), torch.randn(1, 1, 8))
    sizes = [keys.shape[1] for keys, _ in index.blocks()]
    assert sum(sizes) == 300
    assert max(sizes) <= 128
    assert len(sizes) < 10
    assert index.nbytes == 300 * (16 + 4) + len(sizes) * 64


@pytest.mark.parametrize("kind", ["flat", "sketch"])
def test_forks_share_and_crop_hands_back_floats(kind):
    data = made(600)
    index = build_index(kind, data.keys, data.values, queries=data.queries, segment=256, **INT8)
    before, bytes_before = index.attend(data.q, scaling=data.scaling).out, index.nbytes
    fork = index.fork()
    fork.append(data.keys[:, :64] * 2, data.values[:, :64] * 2)
    assert (index.n_tokens, fork.n_tokens) == (600, 664)
    assert torch.equal(index.attend(data.q, scaling=data.scaling).out, before)
    stored_keys, stored_values = held(fork)
    keys, values = fork.crop(300)
    assert fork.n_tokens == 256
    assert keys.dtype == values.dtype == torch.float32
    assert torch.equal(keys, stored_keys[:, 256:300])
    assert torch.equal(values, stored_values[:, 256:300])
    assert index.nbytes == bytes_before
    assert fork.nbytes < index.nbytes
    empty, _ = fork.crop(256)
    assert empty.shape == (2, 0, 64)


# --- bytes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flat", "sketch"])
def test_bytes_are_those_that_are_stored(kind):
    data = made(512, d=64, dtype=torch.bfloat16)
    plain, small = (
        build_index(kind, data.keys, data.values, queries=data.queries, segment=256, **knobs)
        for knobs in ({}, INT8)
    )
    assert plain.kv_bytes == 512 * 2 * 64 * 2 * 2
    # 8 bits a number, 4 bytes for each token's value, 8 for each channel of each of two segments.
    assert small.kv_bytes == 2 * (512 * (64 * 2 + 4) + 2 * 64 * 8)
    assert plain.nbytes - plain.kv_bytes == small.nbytes - small.kv_bytes
    part = small.attend(data.q, scaling=data.scaling)
    assert part.stats.offloaded_bytes == plain.kv_bytes * 2
    if kind == "flat":
        assert part.stats.touched_bytes == small.kv_bytes * 2
    else:
        before = plain.attend(data.q, scaling=data.scaling).stats
        rows = round(float(before.exact.sum()) * 512)
        assert torch.equal(before.exact, part.stats.exact)
        assert rows > 0
        # Scales of keys are read once for each of two heads, segments and positions.
        saved = before.touched_bytes - part.stats.touched_bytes
        assert rows * (256 - 132) - 8 * 64 * 8 <= saved <= rows * (256 - 132)


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["topk", "pages", "streaming"])
def test_kinds_that_cannot_store_so_say_which_can(kind):
    with pytest.raises(ValueError, match=f"needs an index of sketch, flat.*{kind}"):
        RetrievalConfig(index=kind, **INT8)
    with pytest.raises(ValueError, match="kv_dtype='int8'"):
        build_index(kind, torch.ones(1, 9, 8), torch.ones(1, 9, 8), **INT8)


def test_a_registered_kind_that_says_so_may(monkeypatch):
    monkeypatch.setattr(kinds, "_classes", dict(kinds.loaded()))
    register("mine8")(type("Mine8", (FlatIndex,), {}))
    register("mine16")(type("Mine16", (ChosenIndex,), {}))
    assert RetrievalConfig(index="mine8", **INT8).kv_dtype == "int8"
    with pytest.raises(ValueError, match="mine16"):
        RetrievalConfig(index="mine16", **INT8)


@pytest.mark.parametrize("kind", ["flat", "sketch"])
def test_what_is_not_finite_is_refused_as_ever(kind):
    bad = torch.ones(1, 9, 8)
    bad[0, 3, 2] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        build_index(kind, bad, torch.ones(1, 9, 8), **INT8)
    with pytest.raises(ValueError, match="must be float32"):
        build_index(kind, torch.ones(1, 9, 8, dtype=torch.int8), torch.ones(1, 9, 8), **INT8)


def test_numbers_at_the_edge_of_float32_are_stored():
    big = torch.full((1, 100, 64), 3e38)
    big[:, ::2] *= -1
    index = build_index("flat", big, big, **INT8)
    keys, values = held(index)
    assert torch.allclose(keys, big)
    assert torch.allclose(values, big)
