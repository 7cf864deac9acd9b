"""The `ivf` index as it grows, is cropped and forked; and what it refuses."""

from __future__ import annotations

import pytest
import torch
from reference.exact import attention, made, relative
from test_ivf import of

import sakuin
from sakuin.index import IvfIndex, build_index
from sakuin.index import ivf as ivf_module
from sakuin.index.chain import in_order


@pytest.mark.parametrize("step", [1, 7, 64, 100])
def test_tokens_survive_growth_in_order(step, monkeypatch):
    monkeypatch.setattr(ivf_module, "LARGEST", 128)
    data = made(400, d=8)
    index = IvfIndex(2, 8, 3, sakuin.RetrievalConfig(segment=64))
    for at in range(0, 400, step):
        index.append(data.keys[:, at : at + step], data.values[:, at : at + step])
    assert max(len(s) for s in index.segments) <= 128
    assert len(index.segments) <= 5
    pieces = [in_order(segment.fields) for segment in index.segments]
    assert torch.equal(torch.cat([k for k, _ in pieces], 1), data.keys)
    assert torch.equal(torch.cat([v for _, v in pieces], 1), data.values)
    assert index.n_tokens == sum(k.shape[1] for k, _ in index.blocks()) == 400
    assert (
        index.search(data.keys[:, 5:6].repeat_interleave(3, 0), 400)[1]
        .sort(-1)
        .values.equal(torch.arange(400).expand(6, 1, 400))
    )


def test_an_index_that_grew_is_as_good_as_one_built_at_once():
    data = made(6000, t=8)
    truth, _ = attention(data.q, data.keys, data.values, data.scaling)
    best = build_index("flat", data.keys, data.values, group_size=3).search(data.q, 100)[1]
    grown = IvfIndex(2, 64, 3, sakuin.RetrievalConfig(budget=0.05))
    for at in range(0, 6000, 512):
        grown.append(data.keys[:, at : at + 512], data.values[:, at : at + 512])
    once = IvfIndex(2, 64, 3, sakuin.RetrievalConfig(budget=0.05))
    once.append(data.keys, data.values)
    assert len(once.segments) == 1
    assert grown.n_tokens == once.n_tokens
    recall, error = [], []
    for index in (grown, once):
        found = index.search(data.q, 100)[1]
        recall.append(float((found[..., None] == best[..., None, :]).any(-1).float().mean()))
        error.append(float(relative(index.attend(data.q, scaling=data.scaling).out, truth).mean()))
    assert recall[0] > recall[1] - 0.08
    assert error[0] < error[1] * 1.15
    assert recall[1] > 0.6


def test_a_fork_shares_segments_and_goes_its_own_way(monkeypatch):
    monkeypatch.setattr(ivf_module, "LARGEST", 256)
    data = made(600)
    index = of(data, segment=256)
    other = index.fork()
    assert all(a is b for a, b in zip(index.segments, other.segments, strict=True))
    before = index.attend(data.q, scaling=data.scaling).out
    other.append(data.keys[:, :64] * 2, data.values[:, :64] * 2)
    index.append(data.keys[:, :5], data.values[:, :5])
    assert other.n_tokens == 664
    assert index.n_tokens == 605
    assert index.crop(605)[0].shape[1] == 0
    assert other.segments[1] is index.segments[1]
    assert other.segments[2] is not index.segments[2]
    other.crop(512)
    index.crop(512)
    index.append(data.keys[:, 512:], data.values[:, 512:])
    assert torch.equal(index.attend(data.q, scaling=data.scaling).out, before)


def test_a_few_tokens_more_go_into_the_lists_there_are_and_into_new_ones():
    data = made(1200)
    index = of(data)
    (old,) = index.segments
    index.append(data.keys[:, :50] + 0.01, data.values[:, :50] * 2)
    (new,) = index.segments
    assert (len(new), new.lists) == (1250, old.lists + 2)
    for head in range(2):
        before, after = old.fields["start"][head].diff(), new.fields["start"][head].diff()
        assert (after[: old.lists] >= before).all()
        assert int((after[: old.lists] - before).sum() + after[old.lists :].sum()) == 50
        kept = after[: old.lists] == before
        assert 0 < int(kept.sum()) < old.lists
        assert torch.equal(
            new.fields["centroid"][head, : old.lists][kept].view(torch.bfloat16),
            old.fields["centroid"][head][kept].view(torch.bfloat16),
        )
    keys, values = in_order(new.fields)
    assert torch.equal(keys[:, :1200], data.keys)
    assert torch.equal(values[:, 1200:], data.values[:, :50] * 2)
    truth, _ = attention(data.q, keys, values, data.scaling)
    exact = index.attend(data.q, scaling=data.scaling, tolerance=0)
    assert float(relative(exact.out, truth).max()) < 5e-4
    index.append(data.keys, data.values)
    assert len(index.segments) == 1
    assert index.segments[0].lists == -(-2450 // 32)  # found anew


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 511, 512, 599, 600])
def test_crop_keeps_whole_segments_and_returns_the_rest(n, monkeypatch):
    monkeypatch.setattr(ivf_module, "LARGEST", 256)
    data = made(600)
    index = of(data, segment=256)
    sizes = [len(s) for s in index.segments]
    keys, values = index.crop(n)
    whole_segments = max(sum(sizes[:i]) for i in range(len(sizes) + 1) if sum(sizes[:i]) <= n)
    assert index.n_tokens == whole_segments
    assert torch.equal(keys, data.keys[:, whole_segments:n])
    assert torch.equal(values, data.values[:, whole_segments:n])


def test_appending_nothing_changes_nothing_and_an_empty_index_attends_nothing():
    data = made(200)
    index = of(data)
    before = index.segments
    index.append(data.keys[:, :0], data.values[:, :0], data.q)
    assert index.segments == before
    empty = IvfIndex(2, 16, 3, sakuin.RetrievalConfig())
    part = empty.attend(torch.randn(6, 2, 16), scaling=1.0)
    assert (part.out == 0).all()
    assert (part.lse == -torch.inf).all()
    assert part.stats.touched_bytes == 0
    assert empty.crop(0)[0].shape == (2, 0, 16)
    with pytest.raises(ValueError, match="k must be"):
        empty.search(torch.randn(6, 2, 16), 1)


def test_memory_is_counted_and_threads_change_nothing():
    data = made(3000, dtype=torch.bfloat16)
    index = of(data)
    kept = sum(k.nbytes + v.nbytes for k, v in index.blocks())
    assert kept == data.keys.nbytes + data.values.nbytes
    assert kept < index.nbytes < 1.12 * kept
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            index = of(data)
            results.append(
                (index.segments[0].fields["order"], index.attend(data.q, scaling=data.scaling).out)
            )
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-5, rtol=1e-4)


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("budget", 0), ("budget", 0.0), ("budget", 1.5), ("budget", -3), ("budget", True), ("budget", None),
        ("budget", float("nan")), ("nprobe", 0), ("nprobe", 2.0), ("nprobe", "all"), ("list_size", 0),
        ("list_size", 1.5), ("estimate_rest", 1), ("estimate_rest", None),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(ValueError, match=setting):
        sakuin.RetrievalConfig(**{setting: value})
