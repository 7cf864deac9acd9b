"""Search by the `sketch` index: as good as promised on keys and queries of a real model, exact in its scores,
and right for every shape."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from damaged import flip_bits
from hypothesis import given
from hypothesis import strategies as st
from reference.exact import Data, index_of, made, of
from reference.trace import Layer as SmallLayer
from reference.trace import real_trace
from test_native_fuzz import ANYTHING, REFUSALS, tensors, told
from test_native_fuzz_sketch import FUZZ, GROUP, HEADS, NUMBERS, N, Q, sound
from torch import Tensor

import sakuin
from sakuin.evaluate import Searcher, Trace, capture, compare_search, longer
from sakuin.index import SketchIndex, _native


@pytest.fixture(scope="module")
def small(smollm2_by_transformers: tuple[Any, Any]) -> dict[int, SmallLayer]:
    return real_trace(*smollm2_by_transformers)


@pytest.fixture(scope="module")
def trace(smollm2: tuple[Any, Any]) -> Trace:
    return capture(*smollm2, 2600, (3, 12, 26), sink=64, recent=128)


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def products(q: Tensor, keys: Tensor) -> Tensor:
    return q.double() @ keys.double().repeat_interleave(len(q) // len(keys), 0).transpose(1, 2)


def sound_answer(scores: Tensor, ids: Tensor, truth: Tensor, k: int) -> None:
    """Unique tokens by falling score, and each score is the token's inner product."""
    assert scores.dtype == torch.float32
    assert ids.dtype == torch.int64
    assert scores.shape == ids.shape == (*truth.shape[:2], k)
    assert (scores.diff(dim=-1) <= 0).all()
    assert 0 <= int(ids.min()) <= int(ids.max()) < truth.shape[2]
    assert (ids.sort(-1).values.diff(dim=-1) > 0).all()
    size = truth.abs().max()
    assert float((scores - truth.gather(-1, ids)).abs().max()) <= 1e-5 * float(size) + 1e-6


def recall(ids: Tensor, truth: Tensor) -> float:
    best = truth.topk(ids.shape[-1], -1).indices
    found = torch.zeros_like(truth, dtype=torch.bool).scatter_(-1, best, True).gather(-1, ids)
    return found.float().mean().item()


def searched(index: SketchIndex, q: Tensor, k: int, isa: str = "", n_threads: int = 1, **limits: Any) -> Any:
    """The native search itself, so that instruction sets and threads can be told."""
    scores, ids = torch.empty(*q.shape[:2], k), torch.empty(*q.shape[:2], k, dtype=torch.int64)
    given = {"candidates": 4 * k, "refined": 2 * k, "reach": 2.0, **limits}
    _native.sketch_search(q, index.segments, n_threads, **given, scores=scores, ids=ids, isa=isa)
    return scores, ids


# --- as good as promised ----------------------------------------------------------------------------------


def test_97_of_100_keys_are_found_in_running_text_and_in_retrieval(small, trace):
    for k in (10, 100):
        found = []
        for layer in small.values():
            index = index_of(layer.keys, layer.values, layer.queries)
            scores, ids = index.search(layer.asked, k)
            truth = products(layer.asked, layer.keys)
            sound_answer(scores, ids, truth, k)
            found.append(recall(ids, truth))
        assert sum(found) / len(found) >= 0.97
    (row,) = compare_search(trace, [Searcher("sketch")], ())
    assert min(row.running, row.retrieval) >= 0.97


def test_97_of_100_keys_are_found_where_a_trace_is_resampled(trace):
    layers = {number: layer.head(number % 3) for number, layer in trace.layers.items()}
    (row,) = compare_search(longer(Trace(layers, {}), 32768), [Searcher("sketch")], ())
    assert min(row.running, row.retrieval) >= 0.97


def test_more_candidates_find_more_and_all_of_them_nearly_everything(trace):
    one = {26: trace.layers[26]}
    settings = [Searcher("sketch", options={"candidates": c}) for c in (1, 0.2, 1.0, 10**9)]
    recalls = [row.running for row in compare_search(longer(Trace(one, {}), 8192), settings, ())]
    assert recalls[0] < recalls[1] < recalls[2] == recalls[3]
    assert recalls[2] > 0.99


# --- every shape ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("d", [8, 24, 64, 80, 128, 256])
def test_every_head_dim_and_dtype(d, dtype):
    data = made(900, d=d, dtype=dtype)
    truth = products(data.q, data.keys)
    scores, ids = of(data).search(data.q, 20)
    sound_answer(scores, ids, truth, 20)
    assert recall(ids, truth) > 0.9


@pytest.mark.parametrize("group", range(1, 17))
def test_every_group_size_and_number_of_positions(group):
    data = made(300, d=24, group=group, t=1 + group % 4)
    index, truth = of(data), products(data.q, data.keys)
    scores, ids = index.search(data.q, 9)
    sound_answer(scores, ids, truth, 9)
    assert recall(ids, truth) > 0.95
    for t in range(data.q.shape[1]):
        alone = index.search(data.q[:, t : t + 1], 9)
        assert torch.equal(alone[0][:, 0], scores[:, t])
        assert torch.equal(alone[1][:, 0], ids[:, t])


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 63, 64, 65, 129, 1000])
def test_every_k(n):
    data = made(n, d=16)
    index, truth = of(data), products(data.q, data.keys)
    for k in {1, min(n, 40), n}:
        scores, ids = index.search(data.q, k)
        sound_answer(scores, ids, truth, k)
    assert (ids.sort(-1).values == torch.arange(n)).all() if k == n else True
    assert torch.allclose(index.search(data.q, n)[0].double(), truth.topk(n, -1).values, atol=1e-3)


def test_segments_of_many_sizes_are_one_index():
    data = made(1700)
    index, at = SketchIndex(2, 64, 3, sakuin.RetrievalConfig(segment=1024)), 0
    for n in (1024, 300, 200, 100, 50, 20, 5, 1):
        index.append(data.keys[:, at : at + n], data.values[:, at : at + n], None)
        at += n
    assert len(index.segments) == 8
    truth = products(data.q, data.keys)
    scores, ids = index.search(data.q, 50)
    sound_answer(scores, ids, truth, 50)
    assert recall(ids, truth) > 0.95


def test_appended_pieces_are_found_by_their_position():
    data = made(1200)
    index = SketchIndex(2, 64, 3, sakuin.RetrievalConfig(segment=512))
    for at in range(0, 1200, 48):
        index.append(data.keys[:, at : at + 48], data.values[:, at : at + 48], data.queries[:, :16])
    truth = products(data.q, data.keys)
    scores, ids = index.search(data.q, 30)
    sound_answer(scores, ids, truth, 30)
    assert recall(ids, truth) > 0.9


def test_a_long_index_samples_some_of_its_lists():
    data = made(200_000, d=8, heads=1, group=2)
    truth = products(data.q, data.keys)
    scores, ids = of(data, segment=4096).search(data.q, 50)
    sound_answer(scores, ids, truth, 50)
    assert recall(ids, truth) > 0.9


@pytest.mark.parametrize("candidates", [1, 7, 0.001, 0.5, 1.0])
def test_k_keys_come_back_however_few_candidates_are_asked_for(candidates):
    data = made(3000, heads=1, group=1, t=8)
    truth = products(data.q, data.keys)
    for k in (1, 60, 2900):
        sound_answer(*of(data).search(data.q, k, candidates=candidates), truth, k)


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("group", [1, 3, 7, 16])
@pytest.mark.parametrize("d", [40, 64, 256])
def test_every_instruction_set_finds_the_same(isa, group, d):
    data = made(700, d=d, group=group)
    index, truth = of(data), products(data.q, data.keys)
    scores, ids = searched(index, data.q.contiguous(), 25, isa)
    sound_answer(scores, ids, truth, 25)
    usual = searched(index, data.q.contiguous(), 25)[1]
    same = [
        len(set(a.tolist()) & set(b.tolist()))
        for a, b in zip(ids.view(-1, 25), usual.view(-1, 25), strict=True)
    ]
    assert sum(same) >= 0.99 * ids.numel()


def test_the_number_of_threads_changes_nothing(small):
    layer = small[12]
    index = index_of(layer.keys, layer.values, layer.queries, segment=256)
    first = searched(index, layer.asked, 100)
    for n in (2, 3, 5):
        again = searched(index, layer.asked, 100, n_threads=n)
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])


def test_of_equal_keys_the_older_come_first():
    data = made(400, d=16)
    data.keys[:] = data.keys[:, :1].clone()
    assert (of(data, segment=512).search(data.q, 30)[1] == torch.arange(30)).all()


@pytest.mark.parametrize("kind", ["norm 1e4", "zero", "outlier channel", "query zero", "overflow"])
def test_odd_numbers(kind):
    data: Data = made(600, d=32)
    if kind == "norm 1e4":
        data.keys *= 1e4 / data.keys.norm(dim=-1, keepdim=True)
    elif kind == "zero":
        data.keys[:] = 0
    elif kind == "outlier channel":
        data.keys[:, :, 3] += 500.0
    elif kind == "query zero":
        data.q[:] = 0
    index = of(data)
    if kind == "overflow":
        data.q *= 1e37
    scores, ids = index.search(data.q, 40)
    assert not torch.isnan(scores).any()
    if kind != "overflow":
        sound_answer(scores, ids, products(data.q, data.keys), 40)
    if kind == "outlier channel":
        assert recall(ids, products(data.q, data.keys)) > 0.9


def test_any_layout_and_dtype_of_the_query():
    data = made(400)
    index, k = of(data), 10
    want = index.search(data.q, k)
    strided = data.q.repeat_interleave(2, -1)[..., ::2]
    for q in (strided, data.q.transpose(0, 1).contiguous().transpose(0, 1)):
        got = index.search(q, k)
        assert torch.equal(got[0], want[0])
        assert torch.equal(got[1], want[1])
    for dtype in (torch.bfloat16, torch.float16):
        q = data.q.to(dtype)
        sound_answer(*index.search(q, k), products(q, data.keys), k)
    assert index.search(data.q[:, :0], k)[1].shape == (6, 0, k)


@pytest.mark.parametrize("bad", [0, -1, 0.0, 1.5, True, "many", math.nan])
def test_what_is_no_number_of_candidates_is_refused(bad):
    with pytest.raises(ValueError, match=r"candidates must be a count \(.*\) or a share"):
        of(made(100)).search(made(100).q, 5, candidates=bad)


# --- the binding ------------------------------------------------------------------------------------------


@FUZZ
@given(st.data())
def test_native_search_with_one_wrong_argument_answers_or_refuses(data):
    k = data.draw(st.integers(0, 2 * N + 1))
    right: dict[str, Any] = {
        "q": Q,
        "segments": [sound(), sound()],
        "n_threads": 2,
        "candidates": data.draw(st.integers(-5, 3 * N)),
        "refined": data.draw(st.integers(-5, 3 * N)),
        "reach": 2.0,
        "scores": torch.empty(*Q.shape[:2], k),
        "ids": torch.empty(*Q.shape[:2], k, dtype=torch.int64),
        "isa": data.draw(st.sampled_from(["", *_native.isas()])),
    }
    name = data.draw(st.sampled_from(sorted(right)))
    if name == "q" and data.draw(st.booleans()):
        right["q"] = Q.clone()
        right["q"].view(-1)[data.draw(st.integers(0, Q.numel() - 1))] = data.draw(NUMBERS)
    elif name in ("candidates", "refined"):
        right[name] = data.draw(st.integers(-(2**63), 2**63 - 1))
    elif name == "reach":
        right[name] = data.draw(NUMBERS)
    else:
        right[name] = data.draw(st.one_of(ANYTHING, tensors((HEADS * GROUP, 2, max(k, 1)))))
    try:
        _native.sketch_search(**right)
    except REFUSALS as refusal:
        told(refusal)
    else:
        ids = right["ids"]
        assert ((ids >= 0) & (ids < 2 * N)).all()
        assert (ids.sort(-1).values.diff(dim=-1) > 0).all()


@FUZZ
@given(st.data())
def test_native_search_of_a_damaged_segment_stays_inside_its_arrays(data):
    damaged = {name: tensor.clone() for name, tensor in sound().fields.items()}
    flip_bits(data, damaged)
    try:
        segment = _native.SketchSegment(damaged)
    except REFUSALS as refusal:
        told(refusal)
        return
    k = data.draw(st.integers(1, N))
    scores, ids = torch.empty(*Q.shape[:2], k), torch.empty(*Q.shape[:2], k, dtype=torch.int64)
    few = data.draw(st.integers(1, N))
    isa = data.draw(st.sampled_from(_native.isas()))
    _native.sketch_search(
        Q, [segment], 1, candidates=few, refined=few, reach=2.0, scores=scores, ids=ids, isa=isa
    )
    assert ((ids >= 0) & (ids < N)).all()
    assert not torch.isnan(scores).any()
