"""`flat` against attention by its definition in float64, on every instruction set this machine has."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from sakuin import RetrievalConfig, build_index, merge
from sakuin.index import FlatIndex, Static, _native

CLOSE = 3e-5
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def attention(q, k, v, scaling, causal=False, s_aux=None, softcap=None):
    """(out, lse, mass) in float64, by the definition."""
    (heads, t, _), (kv_heads, n, _) = q.shape, k.shape
    group = heads // kv_heads
    z = q.double() @ k.double().repeat_interleave(group, 0).transpose(1, 2) * scaling
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    if causal:
        z = z.masked_fill(torch.arange(n)[None] > (n - t + torch.arange(t))[:, None], -torch.inf)
    lse = z.logsumexp(-1)
    if s_aux is not None:
        lse = torch.logaddexp(lse, s_aux.double()[:, None].expand_as(lse))
    w = (z - lse[..., None]).exp()
    return w @ v.double().repeat_interleave(group, 0), lse, w.view(kv_heads, group, t, n).sum((1, 2))


def random(*shape, dtype=torch.float32, seed=0, scale=1.0):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)


def error(got, expected):
    return max(float((a - b).abs().max()) for a, b in zip(got, expected, strict=False))


@pytest.fixture(params=_native.isas())
def isa(request):
    return request.param


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [8, 24, 64, 80, 96, 128, 256])
def test_flat_attend_equals_attention_in_float64(isa, dtype, head_dim):
    for seed, (group, t, kv_heads, n) in enumerate(
        [(1, 1, 2, 70), (3, 1, 3, 333), (7, 2, 1, 129), (4, 5, 2, 64), (16, 1, 1, 700)]
    ):
        q = random(kv_heads * group, t, head_dim, dtype=dtype, seed=seed)
        k = random(kv_heads, n, head_dim, dtype=dtype, seed=seed + 10, scale=2)
        v = random(kv_heads, n, head_dim, dtype=dtype, seed=seed + 20)
        s_aux = random(kv_heads * group, seed=seed)
        mass = torch.zeros(kv_heads, n)
        for softcap in (None, 20.0):
            mass.zero_()
            got = _native.flat_attend(
                q, [(k, v)], head_dim**-0.5, 2, causal=True, s_aux=s_aux, softcap=softcap, mass=mass, isa=isa
            )
            expected = attention(q, k, v, head_dim**-0.5, True, s_aux, softcap)
            assert error([*got, mass], expected) < CLOSE


def test_spans_of_different_dtypes_and_strides_are_one_sequence(isa):
    q = random(6, 3, 64)
    parts = []
    for i, (n, dtype) in enumerate(
        [(4, torch.float32), (0, torch.bfloat16), (300, torch.bfloat16), (77, torch.float32)]
    ):
        k = random(n, 2, 64, dtype=dtype, seed=i).transpose(0, 1)  # token-major memory
        v = random(2, n + 9, 64, dtype=dtype, seed=i + 5)[:, 5 : n + 5]  # a slice of a longer buffer
        parts.append((k, v))
    got = _native.flat_attend(q, parts, 0.125, 1, causal=True, isa=isa)
    k, v = (torch.cat([part[i].float() for part in parts], 1) for i in (0, 1))
    assert error(got, attention(q, k, v, 0.125, True)) < CLOSE


def test_the_number_of_threads_changes_nothing_but_rounding(isa):
    q, k, v = (
        random(6, 2, 64),
        random(2, 40_000, 64, dtype=torch.bfloat16),
        random(2, 40_000, 64, dtype=torch.bfloat16),
    )
    expected = attention(q, k, v, 0.125)
    for n_threads in (1, 2, 3, 8):
        mass = torch.zeros(2, 40_000)
        got = _native.flat_attend(q, [(k, v)], 0.125, n_threads, mass=mass, isa=isa)
        assert error([*got, mass], expected) < CLOSE


def test_large_keys_neither_overflow_nor_lose_the_largest(isa):
    k = random(1, 500, 64, scale=100.0)
    got = _native.flat_attend(k[:, 77:78], [(k, k)], 1.0, 1, isa=isa)
    assert torch.equal(got[0][0, 0], k[0, 77])


def test_not_a_number_in_a_key_or_value_shows_in_the_result(isa):
    for place in (0, 1):
        spans = [random(1, 200, 64), random(1, 200, 64)]
        spans[place][0, 130, 3] = torch.nan
        out, _ = _native.flat_attend(random(2, 1, 64), [tuple(spans)], 0.125, 1, isa=isa)
        assert out.isnan().any()


def test_calls_from_several_threads_at_once_do_not_disturb_each_other():
    k, v = random(1, 30_000, 64), random(1, 30_000, 64)
    queries = [random(3, 1, 64, seed=i) for i in range(4)]
    expected = [_native.flat_attend(q, [(k, v)], 0.125, 2)[0] for q in queries]
    wrong = []

    def work(i):
        for _ in range(10):
            out, _ = _native.flat_attend(queries[i], [(k, v)], 0.125, 2)
            if error([out], [expected[i]]) > 1e-6:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- the index ---------------------------------------------------------------------------------------------


def static(kv_heads, sink, recent, head_dim, dtype=torch.float32, s_aux=None):
    parts = [
        random(kv_heads, n, head_dim, dtype=dtype, seed=40 + i)
        for i, n in enumerate((sink, sink, recent, recent))
    ]
    return Static(*parts, s_aux=s_aux)


def test_decode_is_attention_over_sink_index_and_recent():
    s_aux = random(6)
    q, k, v = random(6, 2, 64), random(2, 500, 64, seed=1), random(2, 500, 64, seed=2)
    index = build_index("flat", k, v, group_size=3, segment=128)
    around = static(2, 4, 30, 64, s_aux=s_aux)
    keys = torch.cat([around.sink_keys, k, around.recent_keys], 1)
    values = torch.cat([around.sink_values, v, around.recent_values], 1)
    mass = torch.zeros(2, 534)
    got = index.decode(q, around, scaling=0.125, softcap=30.0, mass=mass)
    assert error([got.out, got.lse, mass], attention(q, keys, values, 0.125, True, s_aux, 30.0)) < CLOSE


def test_attend_merged_with_the_static_part_is_decode():
    q, k, v = random(6, 1, 64), random(2, 500, 64, seed=1), random(2, 500, 64, seed=2)
    index = build_index("flat", k, v, group_size=3)
    around = static(2, 4, 30, 64)
    whole_mass, mass = torch.zeros(2, 534), torch.zeros(2, 500)
    whole = index.decode(q, around, scaling=0.125, mass=whole_mass)
    outside = FlatIndex(2, 64, 3, RetrievalConfig()).decode(q, around, scaling=0.125)
    part = index.attend(q, scaling=0.125, static_lse=outside.lse, mass=mass)
    together = merge([part, outside])
    assert error([together.out, together.lse], [whole.out, whole.lse]) < CLOSE
    assert error([mass], [whole_mass[:, 4:504]]) < CLOSE


def test_stats_say_that_everything_was_read_exactly():
    index = build_index("flat", *[random(2, 300, 64, dtype=torch.bfloat16)] * 2, group_size=3)
    stats = index.attend(random(6, 2, 64), scaling=0.125).stats
    assert stats.exact.shape == stats.codes.shape == (2, 2)
    assert stats.coverage.shape == (6, 2)
    assert stats.exact.min() == 1
    assert stats.codes.max() == 0
    assert stats.touched_bytes == stats.offloaded_bytes == 2 * 2 * 300 * 64 * 2 * 2


def test_an_empty_index_attends_to_nothing():
    index = FlatIndex(2, 64, 3, RetrievalConfig())
    part = index.attend(random(6, 1, 64), scaling=0.125)
    assert part.out.abs().max() == 0
    assert (part.lse == -torch.inf).all()
    assert index.n_tokens == index.nbytes == 0


def test_search_finds_the_keys_with_the_largest_inner_product():
    q, k = random(6, 2, 64), random(2, 500, 64, seed=1)
    scores, ids = build_index("flat", k, k, group_size=3, segment=128).search(q, 7)
    expected = (q @ k.repeat_interleave(3, 0).transpose(1, 2)).topk(7, -1)
    assert torch.equal(ids, expected.indices)
    assert torch.allclose(scores, expected.values, atol=1e-4)


def test_small_segments_are_joined_and_a_fork_keeps_its_own():
    config = RetrievalConfig(index="flat", segment=256)
    index = FlatIndex(1, 64, 1, config)
    k = random(1, 600, 64)
    for first in range(0, 300, 60):
        index.append(k[:, first : first + 60], k[:, first : first + 60])
    fork = index.fork()
    for first in range(300, 600, 60):
        index.append(k[:, first : first + 60], k[:, first : first + 60])
    assert (index.n_tokens, fork.n_tokens) == (600, 300)
    assert max(keys.shape[1] for keys, _ in index.blocks()) <= 256
    assert len(list(index.blocks())) == 3
    assert torch.equal(torch.cat([keys for keys, _ in fork.blocks()], 1), k[:, :300])
    assert torch.equal(torch.cat([keys for keys, _ in index.blocks()], 1), k)


def test_crop_keeps_whole_segments_and_hands_back_the_rest():
    k = random(2, 500, 64)
    index = build_index("flat", k, -k, segment=128)
    keys, values = index.crop(300)
    assert index.n_tokens == 256
    assert torch.equal(keys, k[:, 256:300])
    assert torch.equal(values, -k[:, 256:300])
    keys, _ = index.crop(256)
    assert keys.shape == (2, 0, 64)
    with pytest.raises(ValueError, match="256 tokens, got 257"):
        index.crop(257)


def test_the_index_does_not_change_when_the_callers_tensors_do():
    k = random(1, 100, 64)
    index = build_index("flat", k, k)
    before = index.attend(random(1, 1, 64), scaling=0.125).out
    k.zero_()
    assert torch.equal(index.attend(random(1, 1, 64), scaling=0.125).out, before)


@pytest.mark.parametrize(
    ("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)]
)
def test_kv_dtype_names_how_keys_are_stored(name, dtype):
    index = build_index("flat", random(1, 100, 64), random(1, 100, 64), kv_dtype=name)
    assert next(index.blocks())[0].dtype == dtype
    assert index.nbytes == 2 * 100 * 64 * dtype.itemsize


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_keys_and_values_that_are_not_finite_are_refused(number):
    bad = random(2, 100, 64)
    bad[1, 50, 7] = number
    with pytest.raises(ValueError, match=r"keys hold .*finite"):
        build_index("flat", bad, random(2, 100, 64))
    with pytest.raises(ValueError, match=r"values hold .*finite"):
        build_index("flat", random(2, 100, 64), bad)


def test_finite_numbers_whose_sum_overflows_are_accepted():
    big = torch.full((1, 100, 64), 1e38)
    assert build_index("flat", big, big).n_tokens == 100


def test_numbers_that_float16_does_not_hold_are_refused():
    with pytest.raises(ValueError, match="float16 does not hold"):
        build_index("flat", random(1, 100, 64, scale=1e6), random(1, 100, 64), kv_dtype="fp16")


@pytest.mark.parametrize(
    ("keys", "values", "more", "message"),
    [
        ((2, 10, 64), (2, 11, 64), {}, "as many tokens as keys, got 11 and 10"),
        ((2, 10, 64), (3, 10, 64), {}, "values must have 2 heads"),
        ((2, 10, 64), (2, 10, 12), {}, "the values' head_dim must be a multiple of 8 from 8 to 576, got 12"),
        ((2, 0, 64), (2, 0, 64), {}, "no tokens"),
        ((0, 10, 64), (0, 10, 64), {}, "at least one KV head"),
        ((2, 10, 12), (2, 10, 12), {}, "multiple of 8 from 8 to 576, got 12"),
        ((2, 10, 584), (2, 10, 584), {}, "multiple of 8 from 8 to 576, got 584"),
        ((10, 64), (10, 64), {}, "three dimensions"),
        ((2, 10, 64), (2, 10, 64), {"group_size": 129}, "1 to 128 query heads, got 129"),
        ((2, 10, 64), (2, 10, 64), {"queries": torch.ones(3, 5, 64)}, "multiple of the keys' 2 heads"),
        ((2, 10, 64), (2, 10, 64), {"queries": torch.ones(4, 5, 32)}, "queries must have head_dim 64"),
        (
            (2, 10, 64),
            (2, 10, 64),
            {"queries": torch.ones(4, 2, 64), "query_positions": torch.tensor([3, 1])},
            "not decrease",
        ),
        (
            (2, 10, 64),
            (2, 10, 64),
            {"queries": torch.ones(4, 2, 64), "query_positions": torch.tensor([3, 10])},
            "0 to 9",
        ),
        ((2, 10, 64), (2, 10, 64), {"query_positions": torch.tensor([3])}, "without queries"),
        ((2, 10, 64), (2, 10, 64), {"tolerance": -1.0}, "tolerance must be a finite number"),
        ((2, 10, 64), (2, 10, 64), {"segment": 100}, "multiple of 64"),
        (
            (2, 10, 64),
            (2, 10, 64),
            {"group_size": 0},
            "group_size must be a whole number of at least 1, got 0",
        ),
        ((2, 10, 64), (2, 10, 64), {"group_size": 1.5}, "group_size must be a whole number"),
    ],
)
def test_build_index_refuses_with_the_value_and_the_remedy(keys, values, more, message):
    with pytest.raises(ValueError, match=message):
        build_index("flat", torch.ones(keys), torch.ones(values), **more)


def test_two_dtypes_are_refused_unless_one_is_chosen():
    keys, values = torch.ones(2, 10, 64), torch.ones(2, 10, 64).half()
    with pytest.raises(ValueError, match=r"one dtype, got torch\.float32 and torch\.float16"):
        build_index("flat", keys, values)
    assert build_index("flat", keys, values, kv_dtype="bf16").n_tokens == 10


def test_an_unknown_kind_or_setting_is_refused():
    k = torch.ones(1, 10, 64)
    with pytest.raises(ValueError, match="kind must be one of"):
        build_index("hnsw", k, k)
    with pytest.raises(TypeError, match="colour"):
        build_index("flat", k, k, colour=1)


def test_a_wrong_query_is_refused():
    index = build_index("flat", torch.ones(2, 10, 64), torch.ones(2, 10, 64))
    for q, message in [
        (torch.ones(3, 1, 64), "multiple of the index's 2 heads"),
        (torch.ones(2, 1, 32), "head_dim 64"),
        (torch.ones(2, 64), "three dimensions"),
        (torch.ones(2, 1, 64, dtype=torch.float64), "float32, bfloat16 or float16"),
    ]:
        with pytest.raises(ValueError, match=message):
            index.attend(q, scaling=0.125)
    with pytest.raises(ValueError, match="k must be a whole number from 1 to the index's 10 tokens, got 11"):
        index.search(torch.ones(2, 1, 64), 11)
    with pytest.raises(ValueError, match="tolerance must be"):
        index.attend(torch.ones(2, 1, 64), scaling=0.125, tolerance=float("nan"))


# --- which kernels run -------------------------------------------------------------------------------------


def test_an_environment_variable_forces_a_lower_instruction_set():
    for isa in _native.isas():
        out = subprocess.run(
            [sys.executable, "-c", "from sakuin.index import _native; print(_native.isa())"],
            env={**os.environ, "SAKUIN_ISA": isa},
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout.strip() == isa


def test_an_instruction_set_that_is_not_there_is_told_with_what_is():
    out = subprocess.run(
        [sys.executable, "-c", "from sakuin.index import _native"],
        env={**os.environ, "SAKUIN_ISA": "mmx"},
        capture_output=True,
        text=True,
    )
    assert out.returncode != 0
    assert "SAKUIN_ISA is 'mmx'" in out.stderr
    assert "portable" in out.stderr


def test_native_tasks_run_on_torchs_own_openmp_runtime():
    maps = Path("/proc/self/maps").read_text()
    runtimes = {
        line.split()[-1] for line in maps.splitlines() if "gomp" in line or "libomp" in line or "iomp" in line
    }
    if not any("gomp" in path for path in runtimes):
        pytest.skip("this torch has another OpenMP runtime than GNU's")
    assert len(runtimes) == 1
    assert _native.parallel_runtime() == "openmp (borrowed)"
