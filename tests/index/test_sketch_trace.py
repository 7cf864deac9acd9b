"""The `sketch` index on keys and queries of a real model: as good as it should be, counted honestly, and the
same for every instruction set and number of threads."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from reference.exact import FINE, attention, index_of, made, of, relative
from reference.trace import ASKED, LAYERS, Layer, real_trace
from torch import Tensor

import sakuin
from sakuin.attention.partial import CODED, EXACT, RESCORED
from sakuin.index import SketchIndex, _native

SETTINGS = _native.SketchSettings(rescore=4.0, coded=1.25, exact=30.0, reach=2.0, cap=0.3)


@pytest.fixture(scope="module")
def trace(smollm2_by_transformers: tuple[Any, Any]) -> dict[int, Layer]:
    return real_trace(*smollm2_by_transformers)


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def of_trace(layer: Layer, **knobs: Any) -> SketchIndex:
    return index_of(layer.keys, layer.values, layer.queries, **{"segment": 1024, **knobs})


def whole(out: Tensor, lse: Tensor, static_lse: Tensor) -> Tensor:
    """What a part contributes to the whole output."""
    return out.double() * (lse.double() - torch.logaddexp(lse.double(), static_lse.double())).exp()[..., None]


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


@pytest.mark.parametrize("layer_id", LAYERS)
def test_a_finer_tolerance_is_nearer_to_the_truth_down_to_exact(trace, layer_id):
    layer = trace[layer_id]
    truth, _ = attention(layer.asked, layer.keys, layer.values, layer.scaling)
    index = of_trace(layer)
    errors, touched = [], []
    for tolerance in (4.0, 1.0, 0.25, 0.05, 0.01, 0.001, 0.0):
        part = index.attend(layer.asked, scaling=layer.scaling, tolerance=tolerance)
        errors.append(float(relative(part.out, truth).mean()))
        touched.append(part.stats.touched_share)
    assert all(finer < coarser for coarser, finer in pairwise(errors)), errors
    # The last reads everything and no more, without a scan before.
    assert all(finer >= coarser for coarser, finer in pairwise(touched[:-1])), touched
    assert touched[-1] == 1.0


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
        "sketch", "basis", "mean", "residue", "sub_coordinate", "sub_step", "list_codes", "list_params",
        "within", "tilt", "code_residue", "spread"
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


def test_every_instruction_set_agrees(trace):
    layer = trace[LAYERS[2]]
    for data in (
        (layer.asked[:, :4].contiguous(), of_trace(layer), layer.scaling),
        *((d.q, of(d), d.scaling) for d in (made(500, d=40, group=5), made(130, d=8, group=16))),
    ):
        q, index, scaling = data
        for softcap in (None, 8.0):
            results = [
                _native.sketch_attend(
                    q, index.segments, scaling, 1, SETTINGS, softcap=softcap, trace=True, isa=isa
                )
                for isa in _native.isas()
            ]
            for other in results[1:]:
                # A token at a threshold may fall on either side of it: a few, and the output hardly moves.
                assert float((other[-2] != results[0][-2]).float().mean()) < 0.01
                assert float(relative(other[0], results[0][0].double()).max()) < 0.01
                assert torch.allclose(other[1], results[0][1], atol=5e-3)
                # A weight is an exponential: scores agree to a thousandth of the largest, some 30 bits.
                alike = (other[-2] == results[0][-2]) & (results[0][-1] > 1e-30)
                assert torch.allclose(other[-1][alike], results[0][-1][alike], rtol=0.03)


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


def test_the_index_adds_about_a_third_to_the_keys_and_values(trace):
    layer = trace[LAYERS[0]]
    index = index_of(layer.keys[:, :2048], layer.values[:, :2048], layer.queries[:, :2048])
    own = index.nbytes - layer.keys[:, :2048].nbytes * 2
    assert own <= 0.36 * layer.keys[:, :2048].nbytes * 2
