"""A layer's cache by itself: no model library is needed to feed it, fork it and go back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sakuin.attention.softmax import Softmax
from sakuin.cache.layer import Arrival
from sakuin.cache.whole import WholeCache
from sakuin.config import RetrievalConfig

HEADS, KV_HEADS, DIM, N = 4, 2, 16, 400
FLAT = RetrievalConfig(index="flat", sink=4, recent=32, segment=64)
SOFTMAX = Softmax(0.3)


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one sequence, with a batch of one."""
    torch.manual_seed(0)
    return torch.randn(1, HEADS, N, DIM), torch.randn(1, KV_HEADS, N, DIM), torch.randn(1, KV_HEADS, N, DIM)


def fed(whole: WholeCache, data: tuple[Tensor, Tensor, Tensor], ends: list[int]) -> Tensor:
    """The attention of the positions from where the cache is up to each of `ends`, a pass each."""
    layer, outs = whole.layers[0], []
    for end in ends:
        q, k, v = (x[:, :, layer.length : end] for x in data)
        outs.append(layer.attend(layer.announce(q.shape[2]), q, k, v, SOFTMAX))
    return torch.cat(outs, 2)


def expected(data: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    q, k, v = data
    return torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, scale=SOFTMAX.scaling, enable_gqa=True
    )


def test_chunks_and_single_tokens_attend_as_sdpa_does(data: tuple[Tensor, Tensor, Tensor]) -> None:
    whole = WholeCache([0], FLAT)
    got = fed(whole, data, [150, 300, *range(301, N + 1)])
    assert (got - expected(data)).abs().max() < 1e-4
    assert next(whole.rows()).index.n_tokens > 200
    assert whole.stats()["steps"] == N - 300


def test_a_fork_and_a_crop_leave_the_other_as_it_was(data: tuple[Tensor, Tensor, Tensor]) -> None:
    whole = WholeCache([0], FLAT)
    fed(whole, data, [300])
    fork = whole.fork()
    fork.layers[0].crop(250)
    assert (whole.layers[0].length, fork.layers[0].length) == (300, 250)
    for cache in (whole, fork):
        start = cache.layers[0].length
        got = fed(cache, data, list(range(start + 1, N + 1)))
        assert (got - expected(data)[:, :, start:]).abs().max() < 1e-4


def test_keys_that_two_layers_share_are_stored_once(data: tuple[Tensor, Tensor, Tensor]) -> None:
    layer = WholeCache([0], FLAT).layers[0]
    q, k, v = (x[:, :, :100] for x in data)
    arrival = layer.announce(100)
    first, again = (layer.attend(arrival, q, k, v, SOFTMAX) for _ in range(2))
    assert torch.equal(first, again)
    assert layer.rows[0].n_tokens == 100
    assert isinstance(arrival, Arrival)
