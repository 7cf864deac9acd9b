"""What a context takes of memory, before it is taken."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Gemma3TextConfig, LlamaConfig

from sakuin import RetrievalConfig
from sakuin.backends.transformers.shape import count_weights, shape_of
from sakuin.capacity.need import check, estimate, tokens_that_fit
from sakuin.errors import SakuinError
from sakuin.index import build_index
from sakuin.machine.memory import Available
from sakuin.quantities import size_of

GIB = 1 << 30
LLAMA = LlamaConfig(
    hidden_size=512,
    intermediate_size=1024,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=2,
    vocab_size=1000,
)
SHAPE, WEIGHTS = shape_of(LLAMA), 4 * count_weights(LLAMA)


def test_weights_are_counted_without_allocating_them() -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(LLAMA)
    assert count_weights(LLAMA) == sum(p.numel() for p in model.parameters())


def test_keys_and_values_follow_from_the_configuration() -> None:
    few, many = (
        estimate(SHAPE, n, torch.bfloat16, RetrievalConfig(index="flat"), weights=0) for n in (10_000, 20_000)
    )
    assert many.kv - few.kv == 4 * 10_000 * 2 * 2 * 64 * 2
    assert few.index == 0
    wide = [
        estimate(SHAPE, n, torch.bfloat16, RetrievalConfig(index="flat", kv_dtype="fp32"), weights=0).kv
        for n in (10_000, 20_000)
    ]
    assert wide[1] - wide[0] == 2 * (many.kv - few.kv)


def test_a_sliding_layer_takes_its_window_only() -> None:
    config = Gemma3TextConfig(
        num_hidden_layers=2,
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=512,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        hidden_size=640,
        intermediate_size=2048,
        vocab_size=1000,
    )
    settings = RetrievalConfig(index="flat", sink=0, recent=64, segment=64)
    need = estimate(shape_of(config), 10_000, torch.float32, settings, weights=0)
    assert need.kv == (10_000 + 2 * (64 + 64) + 512) * 2 * 256 * 4


def test_the_longest_context_that_fits_fits_and_one_more_does_not() -> None:
    have = GIB
    for retrieval in (None, RetrievalConfig()):
        n = tokens_that_fit(SHAPE, torch.float32, retrieval, have, WEIGHTS)
        assert estimate(SHAPE, n, torch.float32, retrieval, weights=WEIGHTS).total <= have
        assert estimate(SHAPE, n + 1, torch.float32, retrieval, weights=WEIGHTS).total > have


def test_too_little_memory_is_said_in_figures() -> None:
    need = estimate(SHAPE, 1_000_000, torch.float32, RetrievalConfig(), weights=WEIGHTS)
    with pytest.raises(SakuinError) as error:
        check(need, "this", Available(GIB, "are left of this container's limit of 2 GB"))
    assert size_of(need.total) in str(error.value)
    assert "1.07 GB are left of this container's limit" in str(error.value)
    check(need, "this", Available(need.total, "are free"))


@pytest.mark.parametrize("changes", [{}, {"kv_dtype": "int8"}, {"kv_dtype": "fp32"}, {"segment": 256}])
@pytest.mark.parametrize("kind", ["sketch", "flat", "ivf", "graph"])
def test_an_index_holds_what_the_estimate_says(kind: str, changes: dict[str, Any]) -> None:
    if "int8" in changes.values() and kind in ("ivf", "graph"):
        pytest.skip("not kept so")
    make = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(2, 5000, 64, generator=make).bfloat16() for _ in range(2))
    index = build_index(kind, keys, values, queries=torch.randn(8, 1250, 64, generator=make), **changes)
    need = estimate(SHAPE, 5000, torch.bfloat16, index.config, weights=0)
    # Less by a little: a short last segment of sketch shares its predecessor's basis.
    assert index.nbytes - index.kv_bytes == pytest.approx(need.index / 4, rel=0.02)
    buffers = 2 * 2 * 64 * 2 * min(5000, 128 + 2 * (512 + index.config.segment_tokens(64)))
    assert index.kv_bytes == pytest.approx(need.kv / 4 - buffers, rel=0.001)


@pytest.mark.parametrize("kind", ["sketch", "flat", "ivf"])
def test_what_lies_on_disk_is_not_counted(kind: str) -> None:
    n = 100_000
    inside, outside = (
        estimate(SHAPE, n, torch.bfloat16, RetrievalConfig(index=kind, offload=place), weights=0)
        for place in ("memory", "disk")
    )
    assert inside.kv - outside.kv == 4 * n * 2 * 2 * 64 * 2
    # Of a sketch index codes lie there too: of keys 3 and of values 4 bits a dimension and a scale.
    codes = 4 * n * 2 * (24 + 32 + 4) if kind == "sketch" else 0
    assert inside.index - outside.index == codes
