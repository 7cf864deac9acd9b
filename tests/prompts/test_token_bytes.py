"""What each token writes, by both backends and both kinds of vocabularies."""

from __future__ import annotations

from typing import Any

import pytest

from sakuin.context.checks import ready_backend

TEXTS = [
    "Plain words, and some more.",
    'Hello wörld 日本語 🎉👩‍👩‍👧\n\n  a   b\t{"a": 1}',
    "<|im_start|>system <b> <0x41> \x00\x7f é\u0301",
]


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_of_tokens_give_the_text_back(either: tuple[Any, Any], text: str) -> None:
    vocabulary = ready_backend(*either).vocabulary
    pieces = vocabulary.token_bytes()
    assert b"".join(pieces[token] or b"?" for token in vocabulary.encode(text).ids).decode() == text


def test_special_tokens_and_ends_have_no_bytes(either: tuple[Any, Any]) -> None:
    vocabulary = ready_backend(*either).vocabulary
    pieces = vocabulary.token_bytes()
    assert all(pieces[token] is None for token in vocabulary.end_tokens)
    assert [pieces[token] for token in vocabulary.special("<|im_start|>")] == [None]
    for token in range(0, len(pieces), 97):
        piece = pieces[token]
        assert vocabulary.decode([token]) == (piece or b"").decode("utf-8", "replace")


def test_both_backends_tell_the_same_bytes(
    smollm2: tuple[Any, Any], smollm2_by_transformers: tuple[Any, Any]
) -> None:
    one, other = (ready_backend(*each).vocabulary for each in (smollm2, smollm2_by_transformers))
    assert one.token_bytes() == other.token_bytes()


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_of_tokens_of_a_vocabulary_of_pieces(gemma3: tuple[Any, Any], text: str) -> None:
    from sakuin import load

    for vocabulary in (ready_backend(*gemma3).vocabulary, ready_backend(*load_gemma(load)).vocabulary):
        pieces = vocabulary.token_bytes()
        assert b"".join(pieces[token] or b"?" for token in vocabulary.encode(text).ids).decode() == text
        assert all(pieces[token] is None for token in vocabulary.end_tokens)


def load_gemma(load: Any, kept: dict[str, Any] = {}) -> Any:  # noqa: B006
    """Gemma by transformers, once."""
    if not kept:
        kept["it"] = load("gemma3-270m", backend="transformers", device="cpu")
    return kept["it"]
