"""Data and scoring of sakuin's own tasks for lm-eval: long texts that every machine has, with facts planted.

Loaded by lm-eval from the YAML files beside it, which name its functions. The same on every machine with the
same Python, whose language reference is the text.
"""

from __future__ import annotations

import random
from typing import Any

import datasets

from sakuin.evaluate.texts.planted import technical_english

CHARACTERS = 16_000
"""Length of a text where the task's metadata does not say: about 4,000 tokens."""
TEXTS = 10
FACTS = 8
_THINGS = (
    "north pump",
    "boiler",
    "east gate",
    "archive",
    "server room",
    "loading dock",
    "greenhouse",
    "water tower",
    "museum shop",
    "chapel",
    "signal box",
    "wine cellar",
)


def facts(characters: int = CHARACTERS, texts: int = TEXTS, **_: Any) -> dict[str, Any]:
    """Texts with eight access codes in each, one of them asked for: its code, and the other seven as wrong
    choices."""
    rows = []
    for number in range(texts):
        draw = random.Random(number)
        things = draw.sample(_THINGS, FACTS)
        codes = [str(code) for code in draw.sample(range(10_000, 100_000), FACTS)]
        lines = _text(characters, number).split("\n")
        places = sorted(draw.sample(range(1, len(lines)), FACTS), reverse=True)
        for place, thing, code in zip(places, things, codes, strict=True):
            lines.insert(place, f"\nThe access code of the {thing} is {code}.\n")
        asked = draw.randrange(FACTS)
        rows.append(
            {
                "text": "\n".join(lines),
                "thing": things[asked],
                "choices": codes,
                "answer": asked,
                "code": codes[asked],
            }
        )
    return {"test": datasets.Dataset.from_list(rows)}


def english(characters: int = CHARACTERS, texts: int = TEXTS, **_: Any) -> dict[str, Any]:
    """Technical English as it stands."""
    rows = [{"text": _text(characters, number)} for number in range(texts)]
    return {"test": datasets.Dataset.from_list(rows)}


def perplexity(doc: dict[str, Any], results: tuple[float]) -> dict[str, tuple[float, int]]:
    """The log-likelihood of a text with its words and bytes, as lm-eval's perplexities take it."""
    (found,) = results
    text = doc["text"]
    size = len(text.encode())
    return {
        "word_perplexity": (found, len(text.split())),
        "byte_perplexity": (found, size),
        "bits_per_byte": (found, size),
    }


def _text(characters: int, number: int) -> str:
    """A piece of the language reference that begins with a paragraph, another for each number."""
    whole = technical_english()
    if not 2_000 <= characters <= len(whole) // 2:
        raise ValueError(
            f"characters must be from 2000 to {len(whole) // 2} for sakuin's tasks, got {characters}"
        )
    start = random.Random(f"text {number}").randrange(len(whole) - characters)
    start = whole.rfind("\n\n", 0, start) + 2 if start else 0
    return whole[start : start + characters]
