"""Real text that every machine has, and a fact planted in it.

Used by `sakuin.evaluate.traces`, the tests and the benchmarks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pydoc_data.topics import topics
from typing import Any

from sakuin.backends.open import vocabulary_of

FACT = "\n\nThe secret passkey of the archive is 71493. Remember it.\n\n"
QUESTION = "\n\nQuestion: What is the secret passkey of the archive?"
ANSWER_START = "\nAnswer: The secret passkey of the archive is"
ANSWER = " 71493"


def technical_english() -> str:
    """The language reference that comes with Python (PSF licence): about 110,000 tokens of technical
    English."""
    return "\n\n".join(topics[name] for name in sorted(topics))


@dataclass(frozen=True)
class PlantedText:
    """Tokens of a text with a fact planted in it, a question about it and the answer at the end.

    ids : all tokens, the answer included.
    fact : positions of the fact's tokens, the first and the one past the last.
    question_at : position of the question's first token: up to here it is running text.
    answer_at : position of the answer's first token. The tokens from just before it on are retrieval steps:
        each has to find the fact to predict what follows.
    """

    ids: tuple[int, ...]
    fact: tuple[int, int]
    question_at: int
    answer_at: int

    @classmethod
    def make(cls, tokenizer: Any, length: int, text: str | None = None, depth: float = 1 / 3) -> PlantedText:
        """`length` tokens of `text` (technical English if None), the fact at `depth` of it; a `ValueError`
        where the text is too short for that."""
        if not 0 <= depth <= 1:
            raise ValueError(f"depth must be from 0 to 1, got {depth!r}")
        vocabulary = vocabulary_of(tokenizer)
        start = vocabulary.beginning

        def tokens(piece: str) -> list[int]:
            return vocabulary.encode(piece).ids

        fact, question = tokens(FACT), tokens(QUESTION + ANSWER_START)
        answer = tokens(ANSWER)
        left = length - len(start) - len(fact) - len(question) - len(answer)
        if left < 1:
            raise ValueError(f"length must leave room for the fact, its question and answer, got {length}")
        running = tokens(technical_english() if text is None else text)[:left]
        if len(running) < left:
            raise ValueError(
                f"the text has {len(running)} tokens, {left} are needed for a trace of {length}; "
                "give a longer text or a smaller length"
            )
        at = int(depth * len(running))
        body = start + running[:at] + fact + running[at:]
        return cls(
            ids=tuple(body + question + answer),
            fact=(len(start) + at, len(start) + at + len(fact)),
            question_at=len(body),
            answer_at=len(body) + len(question),
        )
