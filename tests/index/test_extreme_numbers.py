"""Numbers of any size: what leaves float32 saturates, what is damaged is attended exactly, and k keys are
found in any case."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from reference.exact import attention, made, of
from torch import Tensor

import sakuin
from sakuin.index import _native

KINDS: list[dict[str, Any]] = [
    {"index": "sketch"},
    {"index": "sketch", "kv_dtype": "int8"},
    {"index": "flat"},
    {"index": "ivf"},
    {"index": "graph"},
    {"index": "topk"},
]
N, D, HEADS, GROUP = 700, 32, 2, 3
SIZES = [(1e10, 1e27), (1e13, 3e38), (1e-30, 1e-30), (1.0, 1e27)]


def built(scale: float, **settings: Any) -> tuple[Any, Tensor, Tensor]:
    data = made(N, d=D, heads=HEADS, group=GROUP)
    keys, kind = data.keys * scale, settings.pop("index")
    index = sakuin.build_index(
        kind, keys, data.values, queries=data.queries, group_size=GROUP, segment=256, **settings
    )
    return index, keys, data.q


def scores_of(q: Tensor, keys: Tensor) -> Tensor:
    largest = torch.finfo(torch.float32).max
    exact = q.double() @ keys.double().repeat_interleave(GROUP, 0).transpose(1, 2)
    return exact.clamp(-largest, largest)


@pytest.mark.parametrize("settings", KINDS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_search_finds_k_keys_and_its_scores_saturate(settings: dict[str, Any], size: tuple[float, float]):
    index, keys, q = built(size[0], **settings)
    q = (q.double() / q.abs().max() * size[1]).float().contiguous()
    k = 50
    scores, ids = index.search(q, k)
    assert torch.isfinite(scores).all()
    assert (scores[..., :-1] >= scores[..., 1:]).all()
    assert 0 <= int(ids.min()) <= int(ids.max()) < N
    assert all(len(set(row.tolist())) == k for row in ids.flatten(0, 1))
    if settings.get("kv_dtype") != "int8":
        found = scores_of(q, keys).gather(-1, ids).float()
        assert torch.allclose(scores, found, rtol=1e-3, atol=1e-30)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_a_query_that_holds_no_number_finds_k_keys_too(settings: dict[str, Any], bad: float):
    index, _, q = built(1.0, **settings)
    q = q.clone()
    q[0, 0, 3] = bad
    q[1, 0] = bad
    scores, ids = index.search(q, 20)
    assert not torch.isnan(scores).any()
    assert 0 <= int(ids.min()) <= int(ids.max()) < N
    assert all(len(set(row.tolist())) == 20 for row in ids.flatten(0, 1))
    assert index.attend(q, scaling=0.2).out.shape == q.shape


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sketch_attends_to_the_key_with_the_largest_score_however_large(size: tuple[float, float]):
    index, keys, q = built(size[0], index="sketch")
    q = (q.double() / q.abs().max() * size[1]).float().contiguous()
    part = index.attend(q, scaling=D**-0.5)
    values = torch.cat([values for _, values in index.blocks()], 1)
    keys = torch.cat([keys for keys, _ in index.blocks()], 1)
    held = q.double().clamp(-3e38, 3e38)
    expected, _ = attention(held, keys, values, D**-0.5)
    assert torch.isfinite(part.out).all()
    assert torch.isfinite(part.lse).all()
    one = (expected - part.out.double()).norm(dim=-1) / expected.norm(dim=-1)
    assert size[0] * size[1] > 1e38 or one.median() < 0.05  # scores beyond 1e38 are equals


DATA = made(N, d=D, heads=HEADS, group=GROUP)


@cache
def sound() -> Any:
    return of(DATA)


@pytest.fixture(scope="module", autouse=True)
def _leave_no_segment_behind():
    yield
    sound.cache_clear()


def damaged(name: str, number: float) -> list[Any]:
    """The segments of an index, the first with a number in one of its tensors that is none."""
    segments = sound().segments
    fields = {key: x.clone() for key, x in segments[0].fields.items()}
    flat = fields[name].view(-1)
    at = len(flat) // 3
    if flat.dtype == torch.uint16:
        flat[at] = torch.tensor(number).to(torch.bfloat16).view(torch.uint16)
    else:
        flat[at] = number
    return [_native.SketchSegment(fields), *segments[1:]]


NUMBERS = ["list_params", "value_params", "spread", "within", "tilt", "mean", "residue", "code_residue"]


@pytest.mark.parametrize("number", [torch.nan, torch.inf], ids=str)
@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("target", [0.0, 0.01], ids="target {}".format)
def test_where_the_error_is_no_number_the_head_is_attended_exactly(name: str, number: float, target: float):
    segments, data = damaged(name, number), DATA
    for cap in (0.0, 0.6):  # whole segments by their codes; rows that are found
        settings = _native.SketchSettings(
            rescore=4.0, coded=1.25, exact=30.0, reach=2.0, cap=cap, target_error=target
        )
        out, *_, error, _ = _native.sketch_attend(data.q, segments, data.scaling, 1, settings)
        expected, _ = attention(data.q, data.keys, data.values, data.scaling)
        assert torch.isfinite(out).all()
        assert ((error >= 0) & (error <= 1)).all()
        if name in ("list_params", "value_params") and not error.any():
            assert torch.allclose(out.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("name", [*NUMBERS, "basis", "sub_step", "code_step"])
def test_a_search_of_damaged_segments_finds_k_keys(name: str, number: float):
    segments, data = damaged(name, number), DATA
    scores = torch.empty(HEADS * GROUP, 2, 30)
    ids = torch.full(scores.shape, -1)
    for candidates in (30, 200):
        _native.sketch_search(
            data.q, segments, 1, candidates=candidates, refined=60, reach=2.0, scores=scores, ids=ids
        )
        assert 0 <= int(ids.min()) <= int(ids.max()) < N
        assert all(len(set(row.tolist())) == 30 for row in ids.flatten(0, 1))
        exact = scores_of(data.q, data.keys).gather(-1, ids).float()
        assert torch.allclose(scores, exact, rtol=1e-3, atol=1e-3)
