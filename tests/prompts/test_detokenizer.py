"""Tokens one after another say what all of them say together."""

from __future__ import annotations

from typing import Any

import pytest

from sakuin.backends.open import backend_of
from sakuin.prompts.detokenizer import Detokenizer

TEXTS = (
    " Hello wörld, 索引は本の索引です 👩‍👩‍👧‍👦  two  blanks\n\n x=1;\tß",
    "def f(x):\n    return [x] * 3  # '' \"\"",
    "a",
    " ",
    "é" * 5,
)


@pytest.mark.parametrize("text", TEXTS)
def test_one_after_another_they_say_the_same(either: tuple[Any, Any], text: str) -> None:
    vocabulary = backend_of(*either).vocabulary
    ids = vocabulary.encode(text).ids
    words = Detokenizer(vocabulary.decode)
    said = [""]
    for token in ids:
        words.add(token)
        assert words.text.startswith(said[-1])
        assert "\N{REPLACEMENT CHARACTER}" not in words.text
        said.append(words.text)
    words.finish()
    assert words.text == vocabulary.decode(ids)
    assert words.ids == ids


def test_half_a_character_at_the_end_is_shown_as_one_that_cannot_be(either: tuple[Any, Any]) -> None:
    vocabulary = backend_of(*either).vocabulary
    ids = vocabulary.encode("👩‍👩‍👧‍👦").ids
    words = Detokenizer(vocabulary.decode)
    words.add(ids[0])
    assert words.text == ""
    words.finish()
    assert words.text == "\N{REPLACEMENT CHARACTER}"


def test_what_goes_on_from_others_keeps_its_blank(gemma3: tuple[Any, Any]) -> None:
    vocabulary = backend_of(*gemma3).vocabulary
    ids = vocabulary.encode("The fox sleeps").ids
    words = Detokenizer(vocabulary.decode, ids[:1])
    for token in ids[1:]:
        words.add(token)
    words.finish()
    assert words.text == " fox sleeps"
