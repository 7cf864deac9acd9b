"""Hypothesis against the native entry points of `graph`: odd arrays are refused or answered.

A crash would end the whole test run, so that it cannot be overlooked.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference.exact import made
from test_native_fuzz import ANYTHING, FLOATS, REFUSALS, tensors, told
from torch import Tensor

from sakuin.index import _native

FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
N, D, HEADS, GROUP, RUNS = 150, 24, 2, 3, 3

DATA = made(N, d=D, heads=HEADS, group=GROUP)
Q = DATA.q.contiguous()
COORDINATES = (DATA.keys[:, :, :16] * 500).to(torch.int16)
QUERIES = DATA.queries.view(HEADS, -1, D)[:, :40].contiguous()
MEANS = torch.stack([x.mean(1) for x in DATA.keys.split(64, 1)], 1)
NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, torch.nan, torch.inf, -torch.inf, 1e30, -1e30]), st.floats(width=32)
)
COUNTS = st.one_of(st.integers(-3, 200), st.sampled_from([-(2**63), 2**31, 2**62, 2**63 - 1]))


@cache
def sound() -> _native.Graph:
    """A graph in order."""
    return _native.Graph(HEADS, D, 8).append(DATA.keys, COORDINATES, QUERIES, 2)


@pytest.fixture(scope="module", autouse=True)
def _leave_no_graph_behind():
    yield
    sound.cache_clear()


def walked(graph: _native.Graph, keys: Tensor) -> None:
    """What comes back leads to keys that are there."""
    if len(graph) == 0:
        return
    k = min(5, len(graph))
    _, ids, scanned, _ = graph.search(Q, keys, k, ef=9, n_threads=2)
    assert 0 <= int(ids.min()) <= int(ids.max()) < len(graph)
    assert k <= int(scanned.min()) <= int(scanned.max()) <= len(graph)


def one_wrong(data: Any, right: dict[str, Any]) -> dict[str, Any]:
    """The arguments with one replaced: by anything, by a tensor of its shape in some layout, or by one with
    odd numbers."""
    name = data.draw(st.sampled_from(sorted(right)))
    x = right[name]
    if isinstance(x, Tensor) and x.is_floating_point() and data.draw(st.booleans()):
        if data.draw(st.booleans()):
            return {**right, name: data.draw(tensors(tuple(x.shape), FLOATS))}
        x = x.clone()
        for _ in range(data.draw(st.integers(1, 4))):
            x.view(-1)[data.draw(st.integers(0, x.numel() - 1))] = data.draw(NUMBERS)
        return {**right, name: x}
    if isinstance(x, int) and not isinstance(x, bool):
        return {**right, name: data.draw(COUNTS)}
    return {**right, name: data.draw(ANYTHING)}


@FUZZ
@given(COUNTS, COUNTS, COUNTS)
def test_a_graph_of_any_size_is_made_or_refused(heads, head_dim, degree):
    try:
        graph = _native.Graph(heads, head_dim, degree)
    except REFUSALS as refusal:
        told(refusal)
    else:
        assert len(graph) == graph.nbytes == 0
        assert 8 <= head_dim <= 256
        assert 4 <= degree <= 128


@FUZZ
@given(st.data())
def test_append_with_one_wrong_argument_links_or_refuses(data):
    more = made(N + 30, d=D, heads=HEADS, group=GROUP, seed=1).keys
    right: dict[str, Any] = {
        "keys": more,
        "coordinates": (more[:, :, :16] * 500).to(torch.int16),
        "queries": QUERIES,
        "n_threads": 2,
        "isa": "",
    }
    arguments = one_wrong(data, right)
    try:
        graph = sound().append(**arguments)
    except REFUSALS as refusal:
        told(refusal)
    else:
        assert len(graph) == arguments["keys"].shape[1]
        walked(graph, arguments["keys"])
    assert len(sound()) == N


@FUZZ
@given(st.data())
def test_coordinates_of_any_numbers_are_linked(data):
    coordinates = COORDINATES.clone()
    for _ in range(data.draw(st.integers(1, 20))):
        coordinates.view(-1)[data.draw(st.integers(0, coordinates.numel() - 1))] = data.draw(
            st.integers(-(2**15), 2**15 - 1)
        )
    walked(_native.Graph(HEADS, D, 8).append(DATA.keys, coordinates, QUERIES, 2), DATA.keys)


@pytest.mark.parametrize(
    "coordinates",
    [
        COORDINATES.to(torch.int32),
        COORDINATES.float(),
        COORDINATES[:, :-1],
        COORDINATES[:1],
        COORDINATES[:, :, :15],
        COORDINATES.repeat_interleave(2, 2)[:, :, ::2],
        COORDINATES.repeat_interleave(2, 1)[:, ::2],
        COORDINATES[0],
        None,
    ],
)
def test_coordinates_of_another_shape_dtype_or_layout_are_refused(coordinates):
    with pytest.raises(REFUSALS):
        _native.Graph(HEADS, D, 8).append(DATA.keys, coordinates, QUERIES, 2)


@FUZZ
@given(st.data())
def test_search_with_one_wrong_argument_answers_or_refuses(data):
    arguments = one_wrong(data, {"q": Q, "keys": DATA.keys, "k": 5, "ef": 9, "n_threads": 2, "isa": ""})
    try:
        scores, ids, *_ = sound().search(**arguments)
    except REFUSALS as refusal:
        told(refusal)
    else:
        assert scores.shape == ids.shape
        assert 0 <= int(ids.min()) <= int(ids.max()) < N


@FUZZ
@given(st.data())
def test_attend_with_one_wrong_argument_answers_or_refuses(data):
    right: dict[str, Any] = {
        "q": Q,
        "keys": DATA.keys,
        "values": DATA.values,
        "mean_keys": MEANS,
        "mean_values": MEANS,
        "scaling": 0.2,
        "budget": 9,
        "ef": 20,
        "estimate_rest": True,
        "n_threads": 2,
        "static_lse": torch.zeros(HEADS * GROUP, 2),
        "softcap": 5.0,
        "mass": torch.zeros(HEADS, N),
        "isa": "",
    }
    try:
        out, lse, coverage, exact, touched = sound().attend(**one_wrong(data, right))
    except REFUSALS as refusal:
        told(refusal)
    else:
        assert out.shape == (*lse.shape, D)
        assert coverage.shape == lse.shape
        assert exact.shape == (HEADS, lse.shape[1])
        assert touched >= 0


@FUZZ
@given(COUNTS)
def test_crop_to_anything_crops_or_refuses(n):
    try:
        graph = sound().crop(n)
    except REFUSALS as refusal:
        told(refusal)
    else:
        assert len(graph) == n
        walked(graph, DATA.keys[:, :n])


@FUZZ
@given(COUNTS)
def test_links_of_any_head_are_shown_or_refused(head):
    try:
        links, entry = sound().links(head)
    except REFUSALS as refusal:
        told(refusal)
    else:
        assert links.shape == (N, 8)
        assert 0 <= entry < N


def test_what_a_graph_returns_outlives_it():
    graph = _native.Graph(HEADS, D, 8).append(DATA.keys, COORDINATES, None, 1)
    ids = graph.search(Q, DATA.keys, 5, ef=9, n_threads=1)[1]
    before = ids.clone()
    del graph
    assert torch.equal(ids, before)
