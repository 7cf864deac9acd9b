"""The native attention of prefill agrees with the definition in float64, within what bf16 can say."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from attention.test_exact import reference

from sakuin.attention.softmax import Softmax
from sakuin.index import _native
from sakuin.index.prefill import attend_chunk

KERNELS = _native.prefill_kernels()
pytestmark = pytest.mark.skipif(not KERNELS, reason="this CPU has no kernels for prefill")


def arrays(n, t, heads, kv_heads, d, dtype=torch.bfloat16, seed=0):
    """q, keys and values whose numbers bf16 holds, so that rounding them is no error of the kernels."""
    generator = torch.Generator().manual_seed(seed + n + t)

    def make(*shape):
        return torch.randn(shape, generator=generator).bfloat16().to(dtype)

    return make(heads, t, d) * 2, make(kv_heads, n, d), make(kv_heads, n, d)


def cut(keys, values, sizes):
    return list(zip(keys.split(sizes, 1), values.split(sizes, 1), strict=True)) if sizes else []


def attend(q, keys, values, sizes, scaling, isa, *, n_threads=2, out=None, **more):
    """As the binding, of keys and values of the past (`sizes`: its blocks) and the chunk together."""
    n = sum(sizes)
    out = torch.full(q.shape, torch.nan) if out is None else out
    past = cut(keys[:, :n], values[:, :n], sizes)
    _native.prefill_attention(q, keys[:, n:], values[:, n:], past, out, scaling, n_threads, isa=isa, **more)
    return out


def error(got, expected):
    """Of each row against its length, the greatest."""
    return float(((got.double() - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


@pytest.mark.parametrize("isa", KERNELS)
@pytest.mark.parametrize("d", [8, 64, 72, 80, 96, 128, 192, 256])
@pytest.mark.parametrize("group", [1, 3])
def test_every_head_dim(isa, d, group):
    q, keys, values = arrays(700, 100, 2 * group, 2, d)
    got = attend(q, keys, values, [300, 1, 299], d**-0.5, isa)
    assert error(got, reference(q, keys, values, d**-0.5)[0]) < 0.02


@pytest.mark.parametrize("isa", KERNELS)
@pytest.mark.parametrize("t", [1, 2, 31, 32, 33, 64, 257, 1000, 2100])
@pytest.mark.parametrize("sizes", [[], [5000], [1] * 70 + [31, 257]])
def test_every_length(isa, t, sizes):
    q, keys, values = arrays(sum(sizes) + t, t, 6, 2, 64)
    got = attend(q, keys, values, sizes, 0.125, isa)
    assert error(got, reference(q, keys, values, 0.125)[0]) < 0.02


@pytest.mark.parametrize("isa", KERNELS)
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("sinks", [None, 0.0, 60.0, -60.0])
def test_softcap_and_sinks(isa, softcap, sinks):
    q, keys, values = arrays(4500, 70, 4, 2, 64)  # more than one panel
    aux = None if sinks is None else torch.full((4,), sinks) + torch.arange(4)
    expected = reference(q, keys, values, 0.3, softcap, aux)[0]
    got = attend(q, keys, values, [4430], 0.3, isa, softcap=softcap, sinks=aux)
    if sinks == 60.0 and softcap is not None:  # next to nothing is left, of every row as much
        assert got.abs().max() < 1e-15
    assert error(got, expected) < 0.02


@pytest.mark.parametrize("isa", KERNELS)
def test_thousands_of_small_blocks_of_every_dtype(isa):
    q, keys, values = arrays(6000 + 50, 50, 4, 2, 64)
    generator = torch.Generator().manual_seed(1)
    sizes: list[int] = []
    while sum(sizes) < 6000:
        sizes.append(min(6000 - sum(sizes), int(torch.randint(0, 5, (1,), generator=generator))))
    past = cut(keys[:, :6000], values[:, :6000], sizes)
    dtypes = [torch.bfloat16, torch.float16, torch.float32]
    past = [(k.to(dtypes[i % 3]), v.to(dtypes[(i + 1) % 3])) for i, (k, v) in enumerate(past)]
    out = torch.empty(q.shape)
    _native.prefill_attention(q, keys[:, 6000:], values[:, 6000:], past, out, 0.2, 2, isa=isa)
    assert error(out, reference(q, keys, values, 0.2)[0]) < 0.02


@pytest.mark.parametrize("isa", KERNELS)
def test_strides_and_dtypes_change_nothing(isa):
    q, keys, values = arrays(400, 90, 6, 2, 80)
    plain = attend(q, keys, values, [310], 0.2, isa)
    by_position = torch.full((90, 6, 80), torch.nan)
    attend(q, keys, values, [310], 0.2, isa, out=by_position.transpose(0, 1))
    assert torch.equal(plain, by_position.transpose(0, 1))
    spread = [torch.stack([x, x.flip(1)], 2).flatten(2)[..., :80] for x in (q, keys, values)]
    swapped = [x.transpose(0, 1).contiguous().transpose(0, 1).float() for x in spread]
    assert not any(x.is_contiguous() for x in spread + swapped)
    assert torch.equal(plain, attend(*spread, [310], 0.2, isa))
    assert torch.equal(plain, attend(*swapped, [310], 0.2, isa))
    assert torch.equal(plain, attend(q, keys, values, [310], 0.2, isa, n_threads=1))
    assert torch.equal(plain, attend(q, keys, values, [100, 210], 0.2, isa, n_threads=3))


@pytest.mark.parametrize("isa", KERNELS)
@pytest.mark.parametrize("step", [3.0, 30.0, 3000.0])
def test_scores_that_rise_and_rise(isa, step):
    """Later keys outweigh all before, by more than a shift foresees; some rows see the greatest, some not."""
    n, t, d = 5000, 600, 64
    q, keys, values = arrays(n, t, 2, 2, d)
    q[..., 0], keys[..., 0] = 1.0, (torch.arange(n) // 500 * step).bfloat16()
    got = attend(q, keys, values, [n - t], 1.0, isa)
    assert error(got, reference(q, keys, values, 1.0)[0]) < 0.02
    assert error(attend(q, keys, values, [n - t], -1.0, isa), reference(q, keys, values, -1.0)[0]) < 0.02


@pytest.mark.parametrize("isa", KERNELS)
def test_a_query_that_is_no_number_shows_and_harms_no_other(isa):
    q, keys, values = arrays(300, 100, 2, 1, 64)
    right = attend(q, keys, values, [200], 0.125, isa)
    q[1, 50, 3] = torch.nan
    got = attend(q, keys, values, [200], 0.125, isa)
    assert got[1, 50].isnan().all()
    got[1, 50] = right[1, 50]
    assert torch.equal(got, right)


def test_what_does_not_fit_is_refused():
    q, keys, values = arrays(60, 20, 4, 2, 64)
    past, k, v = [(keys[:, :40], values[:, :40])], keys[:, 40:], values[:, 40:]
    out = torch.empty(4, 20, 64)

    def call(q=q, k=k, v=v, past=past, out=out, scaling=0.1, n_threads=1, **more):
        _native.prefill_attention(q, k, v, past, out, scaling, n_threads, **more)

    call()
    for wrong, message in (
        ({"q": q[:3]}, "multiple of the number of KV heads"),
        ({"q": q[:, :10]}, "as many as q has positions, 10, got 20"),
        ({"q": q[:, :0], "k": k[:, :0], "v": v[:, :0]}, "at least one position"),
        ({"q": q[..., :32]}, "head_dim 32, got 64"),
        ({"q": q.int()}, "q must be float32"),
        ({"v": v[:, 1:]}, "the same heads and tokens"),
        ({"past": [(k[:1], v[:1])]}, "same number of KV heads"),
        ({"past": [(k[..., :32], v[..., :32])]}, "head_dim 64, got 32"),
        ({"out": out.bfloat16()}, "out must be float32"),
        ({"out": out[:2]}, "out must have q's heads and positions"),
        ({"out": out[..., :32].contiguous()}, "values must have out's head_dim 32, got 64"),
        ({"out": out[:, :1].expand(4, 20, 64)}, "rows of its own"),
        ({"scaling": float("inf")}, "scaling must be finite"),
        ({"softcap": 0.0}, "softcap must be above 0"),
        ({"sinks": torch.zeros(3)}, "sinks must have shape"),
        ({"n_threads": 0}, "n_threads must be at least 1"),
        ({"isa": "abacus"}, "isa is 'abacus'"),
    ):
        with pytest.raises(ValueError, match=message):
            call(**wrong)
    with pytest.raises(TypeError, match="pairs"):
        call(past=[(k,)])
    big = torch.zeros(2, 20, 584)
    with pytest.raises(ValueError, match="head_dim must be from 1 to 576, got 584"):
        call(q=big, k=big, v=big, past=[], out=big)


def test_torch_may_use_tiles_before_and_after():
    q, keys, values = arrays(300, 300, 4, 2, 64)
    a = torch.randn(512, 512).bfloat16()
    product = a @ a
    first = attend(q, keys, values, [], 0.125, "")
    assert torch.equal(a @ a, product)
    assert torch.equal(attend(q, keys, values, [], 0.125, ""), first)


def test_a_forced_instruction_set_decides():
    def kernel(isa):
        code = "from sakuin.index import _native; print(_native.prefill_kernel())"
        run = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"SAKUIN_ISA": isa}, capture_output=True, text=True
        )
        return run.stdout.strip()

    assert kernel("") == _native.prefill_kernels()[-1]
    assert kernel("avx512") == ""
    assert kernel("avx512bf16") == "avx512bf16"
    assert _native.prefill_kernel("float32") in ("", "avx2", "avx512")


def test_a_chunk_is_attended_into_the_memory_that_is_given():
    q, keys, values = arrays(300, 40, 6, 2, 64)
    past = cut(keys[:, :260], values[:, :260], [100, 160])
    place = torch.full((40, 6, 64), torch.nan).transpose(0, 1)
    chunk = q, keys[:, 260:], values[:, 260:], past, Softmax(0.125)
    found = attend_chunk(*chunk, place)
    assert found.data_ptr() == place.data_ptr()
    assert torch.equal(place, attend_chunk(*chunk))
