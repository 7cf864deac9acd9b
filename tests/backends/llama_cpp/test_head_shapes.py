"""Heads of 512 numbers, and 32 query heads on one KV head, in llama.cpp; what no index takes is refused
before the model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_gguf
import torch
from gguf import MODEL_ARCH
from llama_alone import divergence
from tiny_recipe import Recipe

import sakuin
from sakuin.backends.llama_cpp import locate
from sakuin.config import RetrievalConfig
from sakuin.context.generate import prefill
from sakuin.errors import SakuinError

pytestmark = pytest.mark.skipif(not locate.available(), reason="there is no llama.cpp here")

READ, SAID = 400, 30
COMMON: dict[str, Any] = {"sink": 16, "recent": 64}


@pytest.mark.parametrize(
    ("name", "shape"),
    [("wide heads", (512, 512, 2)), ("one KV head", (32, 32, 32))],
)
def test_heads_of_other_shapes_attend_as_in_transformers(
    name: str, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    made = tiny_gguf.write(name, tmp_path)
    model, _ = sakuin.load(made.gguf, dtype="fp32", backend="llama.cpp")
    heads = model.shape.heads
    assert (heads.head_dim, heads.value_dim, heads.group_size) == shape
    ids = made.tokens(READ + SAID)
    with torch.no_grad():
        expected = made.model(ids).logits[0, READ:]
    tokens = ids[0].tolist()
    for config, limit in (
        (None, 2e-6),
        (RetrievalConfig(index="flat", **COMMON), 2e-6),
        (RetrievalConfig(index="sketch", tolerance=0.0, **COMMON), 2e-6),
        (RetrievalConfig(index="sketch", tolerance=1e-4, **COMMON), 1e-3),
    ):
        cache = model.new_cache(config)
        prefill(model, cache, tokens[:READ])
        got = torch.stack([model.forward(cache, [token]) for token in tokens[READ:]])
        assert divergence(expected, got).max() < limit, config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_dim": 584}, "head_dim must be a multiple of 8 from 8 to 576, got 584"),
        ({"head_dim": 20}, "head_dim must be a multiple of 8 from 8 to 576, got 20"),
        ({"num_attention_heads": 130}, "a query group must have 1 to 128 query heads, got 130"),
    ],
)
def test_heads_that_no_index_takes_are_refused_at_the_start(
    changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"num_hidden_layers": 1, "num_key_value_heads": 1, "head_dim": 8, **changes}
    monkeypatch.setitem(tiny_gguf.RECIPES, "odd", Recipe("qwen3", MODEL_ARCH.QWEN3, settings))
    made = tiny_gguf.write("odd", tmp_path)
    with pytest.raises(SakuinError, match=message):
        sakuin.load(made.gguf, dtype="fp32", backend="llama.cpp")
