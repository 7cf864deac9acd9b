"""The `sketch` index against exact attention in float64, on real keys and on every odd shape."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference.exact import Data, attention, made, relative
from reference.trace import ASKED, LAYERS, Layer, real_trace
from torch import Tensor

import sakuin
from sakuin import _native
from sakuin.index import SketchIndex
from sakuin.partial import CODED, EXACT, RESCORED

FINE = {"tolerance": 1e-6, "cap": 1.0}
"""Everything is attended exactly, but by the whole machinery of the index."""


@pytest.fixture(scope="module")
def trace(smollm2: tuple[Any, Any]) -> dict[int, Layer]:
    return real_trace(*smollm2)


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def index_of(keys: Tensor, values: Tensor, queries: Tensor | None = None, **knobs: Any) -> SketchIndex:
    index = sakuin.build_index("sketch", keys, values, queries=queries, **knobs)
    assert isinstance(index, SketchIndex)
    return index


def of_trace(layer: Layer, **knobs: Any) -> SketchIndex:
    return index_of(layer.keys, layer.values, layer.queries, **{"segment": 1024, **knobs})


def of(data: Data, **knobs: Any) -> SketchIndex:
    return index_of(data.keys, data.values, data.queries, **{"segment": 256, **knobs})


def whole(out: Tensor, lse: Tensor, static_lse: Tensor) -> Tensor:
    """What a part contributes to the whole output."""
    return out.double() * (lse.double() - torch.logaddexp(lse.double(), static_lse.double())).exp()[..., None]


# --- on a real trace --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer_id", LAYERS)
def test_the_defaults_are_within_a_few_percent_and_a_fine_tolerance_is_exact(trace, layer_id):
    layer = trace[layer_id]
    q, s = layer.asked, layer.static_lse
    truth, truth_lse = attention(q, layer.keys, layer.values, layer.scaling)
    errors = []
    for knobs in ({"tolerance": 4.0}, {}, {"tolerance": 0.25}, FINE):
        part = of_trace(layer, **knobs).attend(q, scaling=layer.scaling, static_lse=s)
        ours, theirs = whole(part.out, part.lse, s), whole(truth, truth_lse, s)
        # The static part's own output is left out of the difference; its size is that of the values.
        errors.append((ours - theirs).norm(dim=-1) / truth.norm(dim=-1))
        assert torch.isfinite(part.out).all()
    coarse, default, fine, finest = (float(e.mean()) for e in errors)
    assert fine < default < coarse
    assert default < 0.03
    assert float(errors[1].max()) < 0.2
    assert finest < 2e-4


def test_nothing_static_makes_it_harder_but_not_wrong(trace):
    for layer in trace.values():
        truth, lse = attention(layer.asked, layer.keys, layer.values, layer.scaling)
        part = of_trace(layer).attend(layer.asked, scaling=layer.scaling)
        assert float(relative(part.out, truth).mean()) < 0.05
        assert float((part.lse - lse).abs().mean()) < 0.05


def test_tolerance_zero_is_exact_on_a_real_trace(trace):
    for layer in trace.values():
        truth, lse = attention(layer.asked, layer.keys, layer.values, layer.scaling)
        part = of_trace(layer).attend(layer.asked, scaling=layer.scaling, tolerance=0, trace=True)
        # One ISA multiplies in bf16 after rounding the query; the others in float32.
        assert float(relative(part.out, truth).max()) < (1e-5 if _native.isa() != "avx512bf16" else 5e-3)
        assert torch.allclose(part.lse.double(), lse, atol=1e-5 if _native.isa() != "avx512bf16" else 1e-2)
        assert (part.trace.tier == EXACT).all()


def test_search_finds_the_nearest_keys_and_scores_them_exactly(trace):
    found = wanted = 0
    for layer in trace.values():
        group = len(layer.asked) // len(layer.keys)
        scores, ids = of_trace(layer).search(layer.asked, 100)
        assert scores.shape == ids.shape == (len(layer.asked), ASKED, 100)
        products = layer.asked @ layer.keys.float().repeat_interleave(group, 0).transpose(1, 2)
        assert torch.allclose(scores, products.gather(-1, ids), rtol=1e-4, atol=1e-2)
        assert (scores.diff(dim=-1) <= 0).all()
        best = products.topk(100).indices
        for row, truth in zip(ids.flatten(0, 1), best.flatten(0, 1), strict=True):
            assert len(row.unique()) == 100
            found += int(torch.isin(row, truth).sum())
            wanted += 100
    assert found >= 0.9 * wanted


def test_appending_in_small_pieces_is_about_as_good_as_at_once(trace):
    layer = trace[LAYERS[1]]
    once, grown = of_trace(layer), SketchIndex(3, 64, 3, sakuin.RetrievalConfig(segment=1024))
    first = 1024
    grown.append(layer.keys[:, :first], layer.values[:, :first], layer.queries[:, :first])
    for at in range(first, layer.keys.shape[1], 48):
        piece = slice(at, at + 48)
        grown.append(layer.keys[:, piece], layer.values[:, piece], layer.queries[:, piece])
    assert grown.n_tokens == once.n_tokens
    assert max(len(s) for s in grown.segments) <= 1024
    assert len(grown.segments) < 12
    truth, _ = attention(layer.asked, layer.keys, layer.values, layer.scaling)
    errors = [
        float(relative(i.attend(layer.asked, scaling=layer.scaling).out, truth).mean()) for i in (once, grown)
    ]
    assert errors[1] < 1.35 * errors[0]


def test_touched_bytes_are_what_the_trace_says_was_read(trace):
    layer = trace[LAYERS[0]]
    index = of_trace(layer)
    t, heads = ASKED, len(layer.keys)
    part = index.attend(layer.asked, scaling=layer.scaling, static_lse=layer.static_lse, trace=True)
    always = (
        "sketch", "basis", "mean", "residue", "sub_coordinate", "sub_step", "list_mean"
    )  # fmt: skip
    read, first = 0, 0
    for segment in index.segments:
        f = segment.fields
        tier = part.trace.tier[..., first : first + len(segment)]
        first += len(segment)
        rows = [int((tier >= kind).sum()) for kind in (RESCORED, CODED, EXACT)]
        read += sum(f[name].nbytes for name in always) * t
        read += rows[0] * f["codes"].shape[2]
        read += sum(f[name].nbytes for name in ("code_plan", "code_coordinate", "code_step")) * t
        read += (rows[1] - rows[2]) * (f["value_codes"].shape[2] + f["value_params"].shape[2] * 2)
        read += rows[2] * 2 * 64 * f["keys"].element_size()
    assert abs(part.stats.touched_bytes - read) <= 0.01 * read
    assert part.stats.offloaded_bytes == layer.keys.nbytes * 2 * t
    shares = [(part.trace.tier == kind).float().mean(-1) for kind in (EXACT, CODED)]
    assert torch.allclose(part.stats.exact, shares[0])
    assert torch.allclose(part.stats.codes, shares[1])
    assert part.stats.exact.shape == (heads, t)


def test_mass_is_the_coverage_of_the_index_and_close_to_the_true_weights(trace):
    for layer in trace.values():
        index, n = of_trace(layer), layer.keys.shape[1]
        mass = torch.full((3, n), 0.25)
        part = index.attend(
            layer.asked, scaling=layer.scaling, static_lse=layer.static_lse, mass=mass, trace=True
        )
        mass -= 0.25
        static = (layer.static_lse - torch.logaddexp(part.lse, layer.static_lse)).exp()
        covered = (part.stats.coverage - static).view(3, -1).sum(1)
        assert torch.allclose(mass.sum(1), covered, rtol=1e-3, atol=1e-3)
        named = torch.where(part.trace.tier >= CODED, part.trace.weight, 0.0).sum(1) * 3
        assert torch.allclose(mass, named, atol=1e-3)
        z = (layer.asked @ layer.keys.float().repeat_interleave(3, 0).transpose(1, 2)) * layer.scaling
        _, lse = attention(layer.asked, layer.keys, layer.values, layer.scaling)
        true = (
            (z - torch.logaddexp(lse, layer.static_lse.double())[..., None])
            .exp()
            .view(3, 3, ASKED, n)
            .mean(1)
        )
        exact = part.trace.tier == EXACT
        assert torch.allclose(part.trace.weight[exact].double(), true[exact].double(), rtol=0.05, atol=1e-3)
        assert float((part.trace.weight - true).abs().sum(-1).mean()) < 0.15


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


def test_every_instruction_set_agrees(trace):
    layer = trace[LAYERS[2]]
    for data in (
        (layer.asked[:, :4].contiguous(), of_trace(layer), layer.scaling),
        *((d.q, of(d), d.scaling) for d in (made(500, d=40, group=5), made(130, d=8, group=16))),
    ):
        q, index, scaling = data
        for softcap in (None, 8.0):
            results = [
                _native.sketch_attend(q, index.segments, scaling, 1, (1.0, 0.5, 8.0, 2.0, 0.3), None, softcap,
                                      None, True, isa)
                for isa in _native.isas()
            ]  # fmt: skip
            for other in results[1:]:
                # A token at a threshold may fall on either side of it: a few, and the output hardly moves.
                assert float((other[-2] != results[0][-2]).float().mean()) < 0.01
                assert float(relative(other[0], results[0][0].double()).max()) < 0.01
                assert torch.allclose(other[1], results[0][1], atol=5e-3)
        scores = [_native.sketch_scores(q, index.segments, 1, isa) for isa in _native.isas()]
        for other in scores[1:]:
            assert float((other - scores[0]).abs().max()) < 1e-3 * float(scores[0].abs().max())


def test_the_number_of_threads_changes_nothing_but_rounding(trace):
    layer = trace[LAYERS[0]]
    results = []
    for n in (1, 2, 3, 4):
        torch.set_num_threads(n)
        index = of_trace(layer)
        mass = torch.zeros(3, index.n_tokens)
        part = index.attend(layer.asked, scaling=layer.scaling, static_lse=layer.static_lse, mass=mass)
        results.append((part.out, part.lse, mass))
    for other in results[1:]:
        for x, y in zip(results[0], other, strict=True):
            assert torch.allclose(x, y, atol=2e-3)


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
    "an outlier channel of 500", "a token of 500 in one channel", "singular covariance", "queries in a plane", "queries zero",
    "queries far from all keys", "query zero", "query huge", "values equal", "tiny",
)  # fmt: skip


BEYOND_SKETCHES = ("norm 1e4", "query huge")
"""Logits of thousands, far apart: one token takes everything, and a sketch's error is larger than what decides
which one."""


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
    if kind not in BEYOND_SKETCHES:
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


# --- growing, cropping, sharing ---------------------------------------------------------------------------


def tokens_of(index: SketchIndex) -> list[Tensor]:
    rows = []
    for segment in index.segments:
        order = segment.fields["order"].long()
        assert (order.sort(1).values == torch.arange(len(segment))).all()
        at = order.argsort(1)[..., None].expand_as(segment.fields["keys"])
        rows.append(torch.stack([segment.fields[name].gather(1, at) for name in ("keys", "values")]))
    return list(torch.cat(rows, 2))


def test_appending_nothing_changes_nothing():
    data = made(200)
    index = of(data)
    before = index.segments
    index.append(data.keys[:, :0], data.values[:, :0], data.q)
    index.append(data.keys[:, :0], data.values[:, :0])
    assert index.segments == before
    assert index.n_tokens == 200


def test_an_empty_index_attends_nothing():
    index = SketchIndex(2, 16, 3, sakuin.RetrievalConfig())
    part = index.attend(torch.randn(6, 2, 16), scaling=1.0, trace=True)
    assert (part.out == 0).all()
    assert (part.lse == -torch.inf).all()
    assert part.trace.tier.shape == (2, 2, 0)
    assert part.stats.touched_bytes == 0


@pytest.mark.parametrize("step", [1, 7, 64, 100])
def test_tokens_survive_growth_in_order(step):
    data = made(400, d=8)
    index = SketchIndex(2, 8, 3, sakuin.RetrievalConfig(segment=128))
    for at in range(0, 400, step):
        index.append(data.keys[:, at : at + step], data.values[:, at : at + step])
    keys, values = tokens_of(index)
    assert torch.equal(keys, data.keys)
    assert torch.equal(values, data.values)
    assert max(len(s) for s in index.segments) <= 128
    assert sum(k.shape[1] for k, _ in index.blocks()) == 400


def test_a_fork_shares_segments_and_goes_its_own_way():
    data = made(600)
    index = of(data)
    other = index.fork()
    assert all(a is b for a, b in zip(index.segments, other.segments, strict=True))
    before = index.attend(data.q, scaling=data.scaling).out
    other.append(data.keys[:, :64] * 2, data.values[:, :64] * 2, data.queries)
    assert other.n_tokens == 664
    assert index.n_tokens == 600
    assert torch.equal(index.attend(data.q, scaling=data.scaling).out, before)
    other.crop(256)
    assert other.n_tokens == 256
    assert other.segments[0] is index.segments[0]


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 511, 512, 599, 600])
def test_crop_keeps_whole_segments_and_returns_the_rest(n):
    data = made(600)
    index = of(data)
    sizes = [len(s) for s in index.segments]
    keys, values = index.crop(n)
    whole_segments = max(sum(sizes[:i]) for i in range(len(sizes) + 1) if sum(sizes[:i]) <= n)
    assert index.n_tokens == whole_segments
    assert torch.equal(keys, data.keys[:, whole_segments:n])
    assert torch.equal(values, data.values[:, whole_segments:n])


def test_the_index_adds_about_a_third_to_the_keys_and_values(trace):
    layer = trace[LAYERS[0]]
    index = index_of(layer.keys[:, :2048], layer.values[:, :2048], layer.queries[:, :2048])
    own = index.nbytes - layer.keys[:, :2048].nbytes * 2
    assert own <= 0.36 * layer.keys[:, :2048].nbytes * 2


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda i, q: i.attend(q, scaling=1.0, tolerance=-1.0), "tolerance"),
        (lambda i, q: i.attend(q, scaling=1.0, tolerance=float("nan")), "tolerance"),
        (lambda i, q: i.attend(q[:5], scaling=1.0), "6 heads"),
        (lambda i, q: i.attend(q[..., :63], scaling=1.0), "head_dim 64"),
        (lambda i, q: i.attend(q.int(), scaling=1.0), "float32"),
        (lambda i, q: i.attend(q, scaling=float("nan")), "scaling"),
        (lambda i, q: i.attend(q, scaling=1.0, softcap=0.0), "softcap"),
        (lambda i, q: i.attend(q, scaling=1.0, static_lse=torch.zeros(6)), "static_lse"),
        (lambda i, q: i.attend(q, scaling=1.0, mass=torch.zeros(2, 5)), "mass"),
        (lambda i, q: i.search(q, 0), "k must"),
        (lambda i, q: i.search(q, 301), "300"),
        (lambda i, q: i.crop(301), "300"),
        (lambda i, q: i.append(q[:2], q[:2, :1]), "one shape"),
        (lambda i, q: i.append(q[:2] * torch.nan, q[:2]), "NaN"),
        (lambda i, q: i.append(q[:2], q[:2] * torch.inf), "infinit|NaN"),
        (lambda i, q: i.append(q[:2] * 1e30, q[:2]), "too large"),
    ],
)
def test_bad_input_is_refused_in_a_sentence_that_names_it(call, words):
    data = made(300)
    index = of(data)
    with pytest.raises((ValueError, TypeError), match=words):
        call(index, data.q)
    assert index.n_tokens == 300
