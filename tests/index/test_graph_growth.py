"""The `graph` index as it grows, is forked and cropped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference.exact import attention, made
from reference.graph import best, check_reached, graph, links, of, recall
from reference.trace import LAYERS, Layer, real_trace

from sakuin.index.graph import RUN
from sakuin.index.growing_rows import GrowingRows


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trace(smollm2_by_transformers: tuple[Any, Any]) -> dict[int, Layer]:
    return real_trace(*smollm2_by_transformers)


def test_appended_keys_are_linked_and_found():
    data = made(1200)
    index = graph(data.keys[:, :800], data.values[:, :800], data.queries[:, :200])
    torch.manual_seed(1)
    keys, q = data.keys[:, 800:].clone(), data.q.clone()
    keys[:, 300] = q.view(2, 3, 2, 64)[:, 0, 0] * 3  # answers like none before
    for at in range(0, 400, 50):
        index.append(
            keys[:, at : at + 50],
            data.values[:, 800 + at : 850 + at],
            data.queries[:, 200 + at // 2 : 225 + at // 2],
        )
    check_reached(index)
    assert index.n_tokens == 1200
    assert (index.search(q, 1)[1].view(2, 3, 2)[:, 0, 0] == 1100).all()
    true = best(q, torch.cat([data.keys[:, :800], keys], 1), 40)
    assert recall(index.walk(q, 40, 200)[1], true) > 0.9


def test_growth_in_small_steps_finds_as_much_as_one_build(trace):
    layer = trace[LAYERS[-1]]
    n, m = layer.keys.shape[1], 4
    true = best(layer.asked, layer.keys, 100)
    at_once = graph(layer.keys, layer.values, layer.queries[:, ::m])
    grown = graph(layer.keys[:, :1024], layer.values[:, :1024], layer.queries[:, :1024:m])
    for at in range(1024, n, 256):
        part = slice(at, min(at + 256, n))
        grown.append(layer.keys[:, part], layer.values[:, part], layer.queries[:, part][:, ::m])
    check_reached(grown)
    found = [recall(index.walk(layer.asked, 100, 200)[1], true) for index in (at_once, grown)]
    assert found[1] > found[0] - 0.03


def test_appending_nothing_changes_nothing():
    data = made(200)
    index = of(data)
    before = links(index)
    index.append(data.keys[:, :0], data.values[:, :0], data.q)
    index.append(data.keys[:, :0], data.values[:, :0])
    assert index.n_tokens == 200
    assert all(torch.equal(a, b) and x == y for (a, x), (b, y) in zip(before, links(index), strict=True))


def test_forks_share_memory_and_go_their_own_ways():
    data = made(900)
    index = graph(data.keys[:, :500], data.values[:, :500], data.queries)
    index.append(data.keys[:, 500:600], data.values[:, 500:600])  # from here on there is room behind
    want = index.attend(data.q, scaling=data.scaling)
    before = links(index)
    left, right = index.fork(), index.fork()
    left.append(data.keys[:, 600:700], data.values[:, 600:700])
    right.append(data.keys[:, 700:900], data.values[:, 700:900], data.queries)
    assert [x.n_tokens for x in (index, left, right)] == [600, 700, 800]
    got = index.attend(data.q, scaling=data.scaling)
    assert torch.equal(got.out, want.out)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(before, links(index), strict=True))
    ((first, _),) = index.blocks()
    ((shared, _),) = left.blocks()
    ((own, _),) = right.blocks()
    assert shared.data_ptr() == first.data_ptr()
    assert own.data_ptr() != first.data_ptr()
    assert torch.equal(shared[:, 600:], data.keys[:, 600:700])
    assert torch.equal(own, torch.cat([data.keys[:, :600], data.keys[:, 700:900]], 1))
    assert index.nbytes < left.nbytes < right.nbytes
    for fork in (left, right):
        check_reached(fork)


def test_crop_keeps_any_number_of_tokens():
    data = made(700)
    index = of(data)
    whole = index.fork()
    for n in (699, 320, 64, 1, 0):
        keys, values = index.crop(n)
        assert keys.shape == values.shape == (2, 0, 64)
        assert keys.dtype == data.keys.dtype
        assert index.n_tokens == n
        if n:
            check_reached(index)
            want, lse = attention(data.q, data.keys[:, :n], data.values[:, :n], data.scaling)
            part = index.attend(data.q, scaling=data.scaling, tolerance=0.0)
            torch.testing.assert_close(part.out, want.float(), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(part.lse, lse.float(), atol=1e-4, rtol=1e-4)
            assert torch.isfinite(index.attend(data.q, scaling=data.scaling).out).all()
    assert whole.n_tokens == 700
    index.append(data.keys, data.values, data.queries)
    check_reached(index)
    ((again, _),) = whole.blocks()
    assert torch.equal(again, data.keys)
    with pytest.raises(ValueError, match="crop takes 0 to the index's 700 tokens, got 701"):
        index.crop(701)


def test_a_cropped_and_regrown_index_has_the_means_of_its_own_tokens():
    data = made(400)
    index = of(data, budget=5)
    index.crop(200)
    index.append(data.keys[:, 300:], data.values[:, 300:])
    keys = torch.cat([data.keys[:, :200], data.keys[:, 300:]], 1)
    torch.testing.assert_close(index._means[0], torch.stack([x.mean(1) for x in keys.split(RUN, 1)], 1))


def test_growing_rows_are_written_once():
    rows = GrowingRows(1, 2, torch.float32).extended(0, torch.ones(1, 3, 2))
    more = rows.extended(3, torch.full((1, 2, 2), 2.0))
    again = more.extended(5, torch.full((1, 1, 2), 3.0))
    other = more.extended(5, torch.full((1, 1, 2), 4.0))
    assert again is more
    assert other is not more
    assert again.first(6)[0, :, 0].tolist() == [1, 1, 1, 2, 2, 3]
    assert other.first(6)[0, :, 0].tolist() == [1, 1, 1, 2, 2, 4]
    assert rows.first(3)[0, :, 0].tolist() == [1, 1, 1]
