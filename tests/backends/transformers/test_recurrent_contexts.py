"""Contexts of models with recurrent states beside or between layers of full attention: stored and opened
again, they go on as the model does that read the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stored import CONFIG, MORE, QUESTION, TEXT
from tiny import BYTES, byte_tokenizer
from tiny_types import tiny_config, tiny_model

from sakuin import Context, RetrievalConfig

FLAT = RetrievalConfig(index="flat", sink=4, recent=16, segment=128)
TYPES = ("falcon_h1", "zamba", "lfm2", "qwen3_next")
MORE_TYPES = (
    "zamba2",
    "bamba",
    "jamba",
    "granitemoehybrid",
    "nemotron_h",
    "olmo_hybrid",
    "qwen3_5_text",
    "zaya",
)


def model_of(model_type: str) -> tuple[Any, Any]:
    sizes = {"vocab_size": BYTES, "max_position_embeddings": 4096}
    return tiny_model(tiny_config(model_type, **sizes), "sakuin"), byte_tokenizer()


def said(context: Context) -> tuple[str, list[Any]]:
    answer = context.ask(QUESTION, max_new_tokens=8)
    return answer.text, answer.evidence


@pytest.mark.parametrize(
    "model_type", [*TYPES, *(pytest.param(each, marks=pytest.mark.slow) for each in MORE_TYPES)]
)
def test_a_context_is_stored_and_opened_again(model_type: str, tmp_path: Path) -> None:
    model, tokenizer = model_of(model_type)
    for config in (FLAT, CONFIG):
        context = Context.from_text(model, tokenizer, TEXT[:900], config)
        expected = said(context)
        context.save(tmp_path / config.index)
        opened = Context.load(tmp_path / config.index, model, tokenizer)
        assert opened.tokens == context.tokens
        assert said(opened) == expected
        assert said(context) == expected  # the one that was stored goes on too
        context.append(MORE[:150])
        opened.append(MORE[:150])
        assert said(opened) == said(context)
        opened.save(tmp_path / "longer")
        assert said(Context.load(tmp_path / "longer", model, tokenizer)) == said(context)
