"""Whether the passages that an answer looked up speak of what was asked, or were only copied.

A small model that finds no answer may repeat a sentence that has nothing to do with the question. It looked
that sentence up, so that alone is no support. So the question must lead there as well: the passages hold some
of its words, or else, for it may ask in other words or another language, heads look there while the model
reads it. The first costs nothing. The second takes a step for each of the question's tokens. Only an answer
that has support and shares hardly a word with its passages pays for it. Called by `sakuin.context.answer`
and the server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sakuin.backends.base import Backend
from sakuin.context.generate import Pass, Passes, prefilling
from sakuin.context.lookup import TIMES, Lookups
from sakuin.prompts.reading import Reading
from sakuin.prompts.template import Prompt
from sakuin.prompts.vocabulary import Encoded

LEADING = 3
"""So many of an answer's passages, the weightiest, are what it was taken from."""

WORDS = 0.2
"""Share of the question's words above which the passages speak of it."""

LOOKS = 0.1
"""What a token of the question looks up in the passages, in units of the model's scale, from which on they
speak of it."""

_LETTERS = 4
"""Words of fewer letters are mostly such as any sentence has."""
_STEM = 5
"""Words that begin with the same letters are the same: "leaves" and "leave"."""
_MOST = 32
"""Tokens of a question, its last, whose looks are counted."""

_WORD = re.compile(r"\w+")
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]{2,}")


@dataclass(frozen=True)
class Question:
    """A question that comes after a text.

    text : its words. ids : the tokens that follow those that were read before, the template's among them.
    own : which of them are its own.
    """

    text: str
    ids: list[int]
    own: range

    @classmethod
    def of(cls, prompt: Prompt, reading: Reading, text: str | None, asked: Encoded) -> Question | None:
        """The question that `asked` puts after `reading`; None where it is not told apart from the text."""
        if not text:
            return None
        rest, before = reading.waiting.rstrip(), len(prompt.before)
        if reading.lead and not rest:
            before -= len(prompt.before) - len(prompt.before.removeprefix("\n\n"))
        low, high = len(rest) + before, len(rest) + before + len(text)
        own = [
            i
            for i, (start, end) in enumerate(zip(asked.starts, asked.ends, strict=True))
            if start >= low - 1 and low < end <= high
        ]
        return cls(text, list(asked.ids), range(own[0], own[-1] + 1)) if own else None


def words_shared(question: str, passages: Iterable[str]) -> float:
    """Share of the question's words, 0 to 1, that the passages hold; 0 where it has none that count."""
    asked = _stems(question)
    held = {stem for passage in passages for stem in _stems(passage)}
    return len(asked & held) / len(asked) if asked else 0.0


def _stems(text: str) -> set[str]:
    """How the words of a text begin; pairs of characters where words are not parted by blanks."""
    text, found = text.casefold(), set[str]()
    for run in _UNSPACED.findall(text):
        found.update(run[i : i + 2] for i in range(len(run) - 1))
    found.update(word[:_STEM] for word in _WORD.findall(_UNSPACED.sub(" ", text)) if len(word) >= _LETTERS)
    return found


def tokens_within(reading: Reading, n: int, places: Sequence[tuple[int, int]]) -> Tensor:
    """Which of the first n tokens end in one of `places`, ranges of the reading's body, bool `(n,)`."""
    starts, ends = torch.tensor(reading.starts[:n]), torch.tensor(reading.ends[:n])
    last, within = torch.maximum(starts, ends - 1), torch.zeros(n, dtype=torch.bool)
    for low, high in places:
        within |= (last >= low) & (last < high) & (starts < ends)
    return within


def looks_at(
    backend: Backend, cache: Any, question: Question, within: Tensor, drawn: Tensor, scale: float
) -> Passes[float]:
    """What a token of the question looks up among the tokens `within`, bool `(n,)`, beyond what any question
    draws, fp32 `(n,)`: the mean, in units of `scale`.

    cache : holds the text before the question, and is used up; give a fork.
    """
    retrieval = backend.retrieval(cache)
    assert retrieval is not None
    retrieval.let_fail()
    lookups = Lookups(retrieval, len(within))
    own = question.own[-_MOST:]
    yield from prefilling(backend, cache, question.ids[: own[0]])
    retrieval.take_mass(len(within))
    total = 0.0
    for i in own:
        yield Pass(cache, question.ids[i : i + 1], decodes=True)
        lookups.note()
        at, values = lookups.steps[-1]
        total += float(((values - TIMES * drawn[at]).clamp_(min=0) * within[at]).sum())
    return total / (len(own) * scale)


def lessened(support: float, looks: float, little: float) -> float:
    """Support of an answer whose passages share no words with the question, by how much the question looks at
    them: as it is from `LOOKS` on, else below `little`."""
    return support if looks >= LOOKS else min(support, little * looks / LOOKS)
