"""The `sketch` index as it grows, is cropped and forked; and what it refuses."""

from __future__ import annotations

import pytest
import torch
from reference.exact import made, of
from torch import Tensor

import sakuin
from sakuin.index import SketchIndex


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
