"""Hypothesis against the native entry points: a right answer or one clear error, never a crash.

A crash would end the whole test run, so that it cannot be overlooked.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sakuin.index import _native

FLOATS = [torch.float32, torch.bfloat16, torch.float16]
OTHERS = [torch.float64, torch.int32, torch.uint8, torch.bool, torch.complex64]
REFUSALS = (TypeError, ValueError)
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def tensors(draw, shape=None, dtypes=FLOATS):
    """A CPU tensor of some layout: contiguous, permuted memory, a slice, expanded, or at an odd address."""
    if shape is None:
        shape = draw(st.lists(st.integers(0, 9), min_size=0, max_size=4))
    shape, dtype = tuple(shape), draw(st.sampled_from(dtypes))
    layout = draw(st.sampled_from(["contiguous", "permuted", "slice", "expanded", "unaligned"]))
    if layout == "permuted" and len(shape) > 1:
        order = draw(st.permutations(range(len(shape))))
        x = filled([shape[i] for i in order], dtype)
        return x.permute([order.index(i) for i in range(len(shape))])
    if layout == "slice" and shape:
        lead = draw(st.integers(0, 3))
        x = filled([n + lead for n in shape], dtype)
        return x[tuple(slice(lead, None) for _ in shape)]
    if layout == "expanded" and shape:
        return filled([1, *shape[1:]], dtype).expand(shape)
    if layout == "unaligned" and math.prod(shape):
        buffer = bytearray(math.prod(shape) * dtype.itemsize + 1)
        x = torch.frombuffer(buffer, dtype=dtype, offset=1).view(shape)
        return x.copy_(filled(shape, dtype))
    return filled(shape, dtype)


def filled(shape, dtype):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(list(shape), generator=generator).to(dtype)


ANYTHING = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=3), tensors(), tensors(dtypes=OTHERS)
)


@FUZZ
@given(st.data())
def test_well_formed_calls_of_any_layout_give_the_right_answer(data):
    kv_heads, group, t = (data.draw(st.integers(1, n)) for n in (3, 5, 4))
    head_dim = data.draw(st.sampled_from([8, 16, 40, 64]))
    lengths = [*data.draw(st.lists(st.integers(0, 70), max_size=3)), data.draw(st.integers(t, 70))]
    q = data.draw(tensors((kv_heads * group, t, head_dim)))
    spans = []
    for n in lengths:
        dtype = [data.draw(st.sampled_from(FLOATS))]
        k, v = (data.draw(tensors((kv_heads, n, head_dim), dtype)) for _ in range(2))
        spans.append((k, v))
    last_dims = [x.stride(-1) for x in [q, *(x for pair in spans for x in pair)]]
    isa = data.draw(st.sampled_from(_native.isas()))
    call = {"causal": True, "isa": isa}
    if any(stride != 1 for stride in last_dims):
        with pytest.raises(ValueError, match="contiguous in its last dimension"):
            _native.flat_attend(q, spans, 0.2, 2, **call)
        return
    out, lse = _native.flat_attend(q, spans, 0.2, 2, **call)
    k, v = (torch.cat([pair[i].double() for pair in spans], 1).repeat_interleave(group, 0) for i in (0, 1))
    z = q.double() @ k.transpose(1, 2) * 0.2
    n = z.shape[-1]
    z = z.masked_fill(torch.arange(n)[None] > (n - t + torch.arange(t))[:, None], -torch.inf)
    assert (lse - z.logsumexp(-1)).abs().max() < 1e-4
    assert (out - z.softmax(-1) @ v).abs().max() < 1e-4


@FUZZ
@given(ANYTHING, ANYTHING)
def test_a_span_of_anything_is_a_span_or_refused(keys, values):
    try:
        span = _native.Span(keys, values)
    except REFUSALS as refusal:
        told(refusal)
    else:
        assert len(span) == keys.shape[1]
        assert keys.shape[:2] == values.shape[:2]  # a value may have another size than a key


def int8_span(n=9):
    """The arguments of a span in int8 that is in order."""
    return {
        "keys": torch.randint(-127, 128, (2, n, 16), dtype=torch.int8),
        "values": torch.randint(-127, 128, (2, n, 16), dtype=torch.int8),
        "key_scale": torch.rand(2, 16),
        "key_zero": torch.randn(2, 16),
        "value_scale": torch.rand(2, n),
    }


@FUZZ
@given(st.data())
def test_an_int8_span_with_one_wrong_argument_is_attended_or_refused(data):
    right = int8_span()
    name = data.draw(st.sampled_from(sorted(right)))
    x = right[name]
    shapes = st.lists(st.sampled_from([0, 1, 2, 8, 9, 10, 15, 16, 17]), min_size=x.dim(), max_size=x.dim())
    shape = data.draw(st.one_of(st.just(tuple(x.shape)), shapes))
    wrong = data.draw(st.one_of(ANYTHING, tensors(shape, [*FLOATS, torch.int8, torch.uint8])))
    try:
        span = _native.Span(**{**right, name: wrong})
    except REFUSALS as refusal:
        told(refusal)
    else:
        assert wrong.shape == x.shape
        assert wrong.dtype == x.dtype
        out, _ = _native.flat_attend(torch.randn(4, 2, 16), [span], 0.2, 2)
        assert torch.isfinite(out).all()


@pytest.mark.parametrize("name", ["key_scale", "key_zero", "value_scale"])
def test_scales_are_there_for_int8_and_for_nothing_else(name):
    right = int8_span()
    with pytest.raises(ValueError, match="int8 keys and values need"):
        _native.Span(**{**right, name: None})
    floats = {"keys": torch.ones(2, 9, 16), "values": torch.ones(2, 9, 16)}
    with pytest.raises(ValueError, match="only int8"):
        _native.Span(**floats, **{name: right[name]})
    with pytest.raises(ValueError, match="one dtype"):
        _native.Span(**{**right, "values": floats["values"]})


def test_an_empty_int8_span_is_attended():
    both = [_native.Span(**int8_span(0)), _native.Span(**int8_span(5))]
    alone = both[1:]
    q = torch.randn(4, 1, 16)
    assert torch.equal(_native.flat_attend(q, both, 0.2, 1)[0], _native.flat_attend(q, alone, 0.2, 1)[0])


def test_a_query_and_a_pair_of_tensors_in_int8_are_refused():
    right = int8_span()
    with pytest.raises(ValueError, match=r"q must be float32, bfloat16 or float16, got torch\.int8"):
        _native.flat_attend(right["keys"], [_native.Span(**right)], 0.2, 1)
    with pytest.raises(ValueError, match="int8 keys and values need"):
        _native.flat_attend(torch.ones(2, 1, 16), [(right["keys"], right["values"])], 0.2, 1)


@FUZZ
@given(
    q=ANYTHING,
    spans=st.lists(st.one_of(ANYTHING, st.tuples(ANYTHING, ANYTHING), st.tuples(ANYTHING)), max_size=3),
    scaling=st.one_of(st.floats(), st.none()),
    n_threads=st.integers(-2, 2**40),
    causal=st.booleans(),
    s_aux=ANYTHING,
    softcap=st.one_of(st.none(), st.floats()),
    mass=ANYTHING,
    static_lse=ANYTHING,
    isa=st.sampled_from(["", "portable", "avx9", "\0", "é"]),
)
def test_flat_attend_of_anything_answers_or_refuses(**arguments):
    refused_or_answered(arguments)


@FUZZ
@given(st.data())
def test_one_wrong_argument_among_right_ones_is_answered_or_refused(data):
    right = {
        "q": torch.ones(4, 2, 16),
        "spans": [(torch.ones(2, 5, 16), torch.ones(2, 5, 16))],
        "scaling": 0.25,
        "n_threads": 2,
        "causal": True,
        "s_aux": torch.zeros(4),
        "softcap": 5.0,
        "mass": torch.zeros(2, 5),
        "static_lse": torch.zeros(4, 2),
    }
    name = data.draw(st.sampled_from(sorted(right)))
    wrong = data.draw(st.one_of(ANYTHING, st.lists(st.tuples(ANYTHING, ANYTHING), max_size=2)))
    refused_or_answered({**right, name: wrong})


def refused_or_answered(arguments):
    try:
        out, lse = _native.flat_attend(**arguments)
    except REFUSALS as refusal:
        told(refusal)
    else:
        assert out.shape[:2] == lse.shape


def told(refusal):
    assert str(refusal).strip()


def test_tensors_without_plain_memory_are_refused():
    k = torch.ones(1, 4, 8)
    for bad in (k.to("meta"), k.to_sparse(), torch.empty_like(k, device="meta").expand(1, 4, 8)):
        with pytest.raises((*REFUSALS, RuntimeError)):
            _native.Span(bad, bad)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
def test_a_tensor_without_storage_is_refused():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = torch.ones(1, 4, 8)
    with pytest.raises((*REFUSALS, RuntimeError)):
        _native.Span(fake, fake)


def test_the_roofs_refuse_what_they_cannot_measure():
    for bad in (torch.ones(2, 2), torch.ones(4, dtype=torch.int32), None):
        with pytest.raises(REFUSALS):
            _native.read_rate(bad, 1)
    for n_threads in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            _native.multiply_add_rate(n_threads)
        with pytest.raises(ValueError, match="at least 1"):
            _native.read_rate(torch.ones(100), n_threads)
    with pytest.raises(ValueError, match="at least"):
        _native.read_rate(torch.ones(100), 1)
