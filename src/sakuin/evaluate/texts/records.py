"""Texts with records in their prose, and what is to be extracted from them: every record, as JSON.

Retrieval methods that find a needle can still lose some of many. Called by `domains`,
`passages` and `sakuin.evaluate.answers.extraction`.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from sakuin.evaluate.texts.generated import words
from sakuin.evaluate.texts.planted import technical_english

_APART = 1200
"""Characters of other text between two records."""
ASKED = "\n\nEvery order in the text above as JSON, one a line, in the order of the text:\n"
SOME = "\n\nThe orders {numbers} in the text above as JSON, one a line:\n"


@dataclass(frozen=True)
class Records:
    """A text and its records: `ends[i]` is where the sentence of `records[i]` ends in it."""

    text: str
    records: list[dict[str, Any]]
    ends: list[int]

    @classmethod
    def make(cls, characters: int, seed: int = 0) -> Records:
        """A text of at least so many characters: technical English with an order every 1200."""
        rng = random.Random(seed)
        prose = technical_english()
        parts, records, ends, held, at = [], [], [], 0, seed * 61803 % (len(prose) // 2)
        for number in rng.sample(range(10_000, 99_999), characters // _APART + 2):
            record = {
                "order": number,
                "name": rng.choice(words("people")),
                "depot": rng.choice(words("cities")),
                "item": rng.choice(words("goods")) + "s",
                "quantity": rng.randrange(2, 900),
            }
            cut = prose.find("\n", at + _APART)
            if cut < 0:
                at, cut = 0, prose.find("\n", _APART)
            told = ", ".join(f"{key} {value}" for key, value in record.items() if key != "order")
            parts.append(f"\n\nOrder {record['order']}: {told}.\n\n")
            held += len(parts[-1])
            records.append(record)
            ends.append(held)
            parts.append(prose[at:cut])
            held += cut - at
            at = cut
        return cls("".join(parts), records, ends)


def as_lines(records: list[dict[str, Any]]) -> str:
    """JSON, one record a line, each line ended."""
    return "".join(json.dumps(record) + "\n" for record in records)


def value_spans(records: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Where in `as_lines` the values stand that only the text tells: all but the orders' numbers, without
    quotation marks."""
    spans, at = [], 0
    for record in records:
        line = json.dumps(record)
        begin = 0
        for name, value in record.items():
            begin = line.index(f'"{name}": ', begin) + len(name) + 4
            first, end = begin, begin + len(json.dumps(value))
            if isinstance(value, str):
                first, end = first + 1, end - 1
            if name != "order":
                spans.append((at + first, at + end))
        at += len(line) + 1
    return spans


def parsed(text: str) -> list[dict[str, Any]]:
    """The records in what a model wrote: every line that is a JSON object; others are passed over."""
    found = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found.append(record)
    return found
