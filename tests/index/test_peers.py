"""The plain peers of `sketch` against `flat` and against attention written out; an index of one's own."""

from __future__ import annotations

import pytest
import torch
from reference.exact import attention

import sakuin
from sakuin import kinds
from sakuin.index import FlatIndex, Static, build_index, register

H, G, N, D, SCALE = 2, 3, 203, 16, 0.25


@pytest.fixture
def arrays() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(4)
    return torch.randn(H, N, D), torch.randn(H, N, D), 2 * torch.randn(H * G, 2, D)


def attended(kind, arrays, k, **more):
    keys, values, q = arrays
    index = build_index(kind, keys, values, group_size=G, top_k=k, segment=64)
    return index, index.attend(q, scaling=SCALE, **more)


@pytest.mark.parametrize("kind", ["topk", "pages"])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_with_room_for_all_tokens_they_are_exact(arrays, kind, softcap):
    _, part = attended(kind, arrays, 1000, softcap=softcap)
    _, flat = attended("flat", arrays, 1, softcap=softcap)
    torch.testing.assert_close(part.out, flat.out, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(part.lse, flat.lse, atol=1e-5, rtol=1e-5)
    assert part.stats is not None
    torch.testing.assert_close(part.stats.coverage, torch.ones(H * G, 2))


def test_topk_attends_the_best_of_each_query_head_alone(arrays):
    keys, values, q = arrays
    _, part = attended("topk", arrays, 5)
    for head in range(H * G):
        for i in range(2):
            best = (keys[head // G] @ q[head, i]).topk(5).indices
            out, lse = attention(
                q[head : head + 1, i : i + 1],
                keys[head // G, best][None],
                values[head // G, best][None],
                SCALE,
            )
            torch.testing.assert_close(part.out[head, i], out[0, 0].float(), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(part.lse[head, i], lse[0, 0].float(), atol=1e-5, rtol=1e-4)


def test_pages_hold_the_page_of_a_key_that_stands_out(arrays):
    keys, values, q = arrays
    keys[0, 100] = 10 * q[0, 0]
    _, part = attended("pages", (keys, values, q), 16)
    torch.testing.assert_close(part.out[0, 0], values[0, 100], atol=1e-4, rtol=1e-4)


def test_streaming_sees_sink_and_recent_window_alone(arrays):
    keys, values, q = arrays
    index, part = attended("streaming", arrays, 1)
    assert part.out.abs().max() == 0
    assert part.lse.max() == -torch.inf
    static = Static(keys[:, :3], values[:, :3], keys[:, 3:9], values[:, 3:9])
    got = index.decode(q[:, :1], static, scaling=SCALE)
    want, _ = attention(q[:, :1], keys[:, :9], values[:, :9], SCALE)
    torch.testing.assert_close(got.out, want.float(), atol=1e-5, rtol=1e-4)
    assert got.stats is not None
    assert got.stats.touched_bytes == 0


def test_streaming_may_have_a_longer_window(arrays):
    keys, values, q = arrays
    index = build_index("streaming", keys, values, group_size=G, newest=40)
    part = index.attend(q[:, :1], scaling=SCALE)
    want, _ = attention(q[:, :1], keys[:, -40:], values[:, -40:], SCALE)
    torch.testing.assert_close(part.out, want.float(), atol=1e-5, rtol=1e-4)
    assert part.stats.touched_bytes == 2 * 40 * H * D * keys.element_size()


def test_larger_pages_have_fewer_bounds_to_read(arrays):
    keys, values, q = arrays
    read = []
    for size in (16, 64):
        index = build_index("pages", keys, values, group_size=G, page_size=size, top_k=64)
        stats = index.attend(q[:, :1], scaling=SCALE).stats
        attended = float(stats.exact.sum()) * N * 2
        read.append(stats.touched_bytes / keys.element_size() / keys.shape[2] - attended)
    assert read == pytest.approx([2 * H * -(-N // 16), 2 * H * -(-N // 64)])


def test_a_decode_step_is_its_parts_and_its_mass_adds_up_to_one(arrays):
    keys, values, q = arrays
    index, _ = attended("topk", arrays, 7)
    static = Static(keys[:, :3], values[:, :3], keys[:, 3:9], values[:, 3:9])
    mass = torch.zeros(H, 3 + N + 6)
    got = index.decode(q[:, :1], static, scaling=SCALE, mass=mass)
    flat = build_index("flat", keys[:, :9], values[:, :9], group_size=G)
    beside = flat.attend(q[:, :1], scaling=SCALE)
    part = index.attend(q[:, :1], scaling=SCALE, static_lse=beside.lse)
    torch.testing.assert_close(got.out, sakuin.merge([beside, part]).out, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mass.sum(1), torch.full((H,), float(G)), atol=1e-4, rtol=1e-4)
    assert int((mass[:, 3 : 3 + N] > 0).sum()) <= H * G * 7


@pytest.mark.parametrize("kind", ["topk", "pages", "streaming"])
def test_a_fork_is_of_the_same_kind(arrays, kind):
    index, _ = attended(kind, arrays, 3)
    assert type(index.fork()) is type(index)


def test_top_k_must_be_at_least_one():
    with pytest.raises(ValueError, match="top_k must be a whole number of at least 1, got 0"):
        sakuin.RetrievalConfig(top_k=0)


def test_an_index_of_ones_own_is_one_class(arrays):
    with pytest.raises(ValueError, match="there is an index of kind 'flat' already"):
        register("flat")(FlatIndex)
    with pytest.raises(ValueError, match="index must be one of"):
        sakuin.RetrievalConfig(index="own")
    try:

        @register("own")
        class Own(FlatIndex):
            pass

        index, _ = attended("own", arrays, 1)
        assert isinstance(index, Own)
        assert sakuin.RetrievalConfig(index="own").index == "own"
    finally:
        kinds._classes.pop("own", None)
