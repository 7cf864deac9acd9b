"""What an answer looks up: the attention that tokens of the text receive while it is decoded, less what any
question draws.

Most attention is spread over thousands of tokens and says nothing. Heads that look something up put it on a
few. So a token counts where a head, in one step and layer, puts more than `ABOVE` of its attention on it. But
some heads look at the same tokens whatever is asked, most often at the text's beginning. What a neutral
question draws shows them, and is taken off. Called by `sakuin.context.answer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sakuin.backends.base import Backend
from sakuin.cache.drawn import Drawn, digest
from sakuin.context.generate import Decoding, Pass, Passes, prefilling
from sakuin.prompts.reading import Reading
from sakuin.prompts.template import Prompt

ABOVE = 0.1
"""Share of a KV head's attention in one step and layer above which a token counts as looked up."""

TIMES = 2.0
"""So many times what a neutral question draws is taken off: questions differ in it."""

WITHIN = 12
"""Steps: support is that of the best so many steps in a row, since a long answer looks up here and there."""

NEUTRAL = "What is this text about?"
NEUTRAL_STEPS = 8
"""Tokens of its answer. With more of them the answer itself begins to quote the text."""


class Lookups:
    """What each step of an answer looks up among the first n tokens."""

    def __init__(self, retrieval: Any, n: int) -> None:
        self.n = n
        self.steps: list[tuple[Tensor, Tensor]] = []
        self._retrieval = retrieval
        retrieval.track_mass(True, above=ABOVE)

    def note(self) -> None:
        """A step was decoded: note what it looked up."""
        self.steps.append(self._retrieval.take_mass(self.n))

    def mean(self) -> Tensor:
        """Of all steps, fp32 `(n,)`."""
        return _sum(self.steps, self.n) / max(len(self.steps), 1)

    def beyond(self, drawn: Tensor) -> Tensor:
        """The mean beyond what `drawn`, `(n,)`, says is drawn by any question, `(n,)`."""
        return (self.mean() - TIMES * drawn).clamp_(min=0)

    def most(self, drawn: Tensor) -> float:
        """The most that is looked up, in a step, by `WITHIN` steps in a row, beyond `drawn`."""
        if len(self.steps) <= WITHIN:
            return float(self.beyond(drawn).sum())
        least, best = TIMES * drawn, 0.0
        window = _sum(self.steps[:WITHIN], self.n)
        for i in range(WITHIN, len(self.steps) + 1):
            best = max(best, float((window / WITHIN - least).clamp_(min=0).sum()))
            if i < len(self.steps):
                for sign, (at, values) in ((1, self.steps[i]), (-1, self.steps[i - WITHIN])):
                    window[at] += sign * values
        return best


def _sum(steps: Sequence[tuple[Tensor, Tensor]], n: int) -> Tensor:
    total = torch.zeros(n)
    for at, values in steps:
        total[at] += values
    return total


def neutral(backend: Backend, cache: Any, prompt: Prompt, reading: Reading) -> Passes[Tensor | None]:
    """What a neutral question draws in a step from each token of the text, fp32 `(n,)`; None where there is
    no room for it.

    cache : holds the reading, and is used up; give a fork.
    """
    rest, read = reading.waiting.rstrip(), len(reading.ids)
    asked = prompt.question(rest, NEUTRAL, reading.lead)
    window = backend.shape.window
    if window is not None and read + len(asked.ids) + NEUTRAL_STEPS > window:
        return None
    yield from prefilling(backend, cache, asked.ids[:-1])
    lookups = Lookups(backend.retrieval(cache), read + sum(end <= len(rest) for end in asked.ends))
    decoding, ends = Decoding(backend, asked.ids[-1]), prompt.vocabulary.end_tokens
    for _ in range(NEUTRAL_STEPS):
        logits = yield Pass(cache, decoding.newest, decodes=True)
        lookups.note()
        if decoding.choose(logits) in ends:
            break
    return lookups.mean()


def packed(mass: Tensor, text: str) -> Drawn:
    """`mass`, `(n,)`, of the tokens of `text`, as it is kept."""
    at = mass.nonzero()[:, 0]
    return Drawn(digest(text), at.tolist(), mass[at].tolist())


def unpacked(drawn: Drawn, n: int) -> Tensor:
    """What it says of the first n tokens, fp32 `(n,)`."""
    mass = torch.zeros(n)
    kept = [(at, value) for at, value in zip(drawn.positions, drawn.values, strict=True) if at < n]
    if kept:
        at, values = zip(*kept, strict=True)
        mass[torch.tensor(at)] = torch.tensor(values)
    return mass
