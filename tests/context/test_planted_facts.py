"""A fact planted at 11 depths of a long document: wherever full attention answers, retrieval attention does,
and the evidence is the fact, in at most a tenth of the text."""

from __future__ import annotations

from typing import Any

import pytest

from sakuin import Context
from sakuin.backends.open import vocabulary_of
from sakuin.context.context import Answer

FACT = "One of the special magic numbers for the north pump is: 48213."
QUESTION = "What is the special magic number for the north pump mentioned in the text?"
SAID = "48213"
DEPTHS = [depth / 10 for depth in range(11)]


def planted(text: str, tokenizer: Any, tokens: int, depth: float) -> str:
    """About `tokens` tokens of `text` with the fact as a paragraph at `depth`."""
    ends = vocabulary_of(tokenizer).encode(text).ends
    assert len(ends) >= tokens
    paragraphs = text[: ends[tokens - 1]].split("\n\n")
    paragraphs.insert(round(depth * len(paragraphs)), FACT)
    return "\n\n".join(paragraphs)


def ask_both(model: Any, tokenizer: Any, text: str) -> tuple[Answer, Answer]:
    """The answers of full attention and of the default settings."""
    full, ours = (
        Context.from_text(model, tokenizer, text, config).ask(QUESTION, max_new_tokens=32)
        for config in ("full", None)
    )
    return full, ours


def check(text: str, full: Answer, ours: Answer) -> None:
    if SAID not in full.text:
        pytest.skip(f"full attention does not find it here: {full.text!r}")
    assert SAID in ours.text
    assert FACT in "".join(span.text for span in ours.evidence)
    assert sum(span.end - span.start for span in ours.evidence) <= len(text) / 10
    assert ours.stats["touched_share"] < 0.15


@pytest.mark.slow
@pytest.mark.parametrize("depth", DEPTHS)
def test_a_chat_model_finds_it_in_7500_tokens(smollm2: tuple[Any, Any], long_text: str, depth: float) -> None:
    text = planted(long_text, smollm2[1], 7400, depth)
    check(text, *ask_both(*smollm2, text))


@pytest.mark.slow
@pytest.mark.parametrize("depth", DEPTHS)
def test_a_base_model_finds_it_in_16000_tokens(
    gemma3: tuple[Any, Any], longer_text: str, depth: float
) -> None:
    text = planted(longer_text, gemma3[1], 16_000, depth)
    check(text, *ask_both(*gemma3, text))


@pytest.mark.slow
@pytest.mark.parametrize("depth", [0.2, 0.5, 0.8])
def test_a_base_model_finds_it_in_a_text_that_repeats_itself(gemma3: tuple[Any, Any], depth: float) -> None:
    """Keys that no query of the text looked for, among thousands that are all alike."""
    said = ["The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."] * 280
    said.insert(round(depth * len(said)), FACT)
    full, ours = ask_both(*gemma3, "\n".join(said))
    assert SAID in full.text
    assert SAID in ours.text


@pytest.mark.slow
def test_full_attention_finds_it_at_most_depths(smollm2: tuple[Any, Any], long_text: str) -> None:
    """So that the tests above say something: where full attention fails, they are skipped."""
    found = 0
    for depth in DEPTHS[1::3]:
        text = planted(long_text, smollm2[1], 7400, depth)
        answer = Context.from_text(*smollm2, text, "full").ask(QUESTION, max_new_tokens=32)
        found += SAID in answer.text
    assert found >= 2
