"""Where an answer was looked up: passages, how much they support it, and marks of footnotes.

Called by `sakuin.server.asking.running`, in a thread that may wait.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from sakuin.context.answer import LookedUp
from sakuin.context.evidence import Span
from sakuin.context.support import LITTLE
from sakuin.prompts.reading import Reading
from sakuin.server.asking.wanted import Said

NOT_THERE = "The document does not seem to speak of this."
"""What is said in the place of an answer that is not supported, where that is asked for."""

_SENTENCE = re.compile(r"[^.!?。！？\n]*[.!?。！？\n]+[\"')\]]*|[^.!?。！？\n]+\Z")
_MOST_MARKS = 2
_LEAST_SHARE = 0.25
"""Of what a sentence of an answer looked up that a passage must have to be its footnote."""


@dataclass(frozen=True)
class Found:
    """passages : the weightiest first. support : from 0 to 1, None where the model cannot tell. marks : where
    in the answer's text which footnote stands, counted from 1, by its place."""

    passages: Sequence[Span]
    support: float | None
    marks: Sequence[tuple[int, int]] = field(default=())

    @property
    def is_supported(self) -> bool | None:
        """Whether the text seems to speak of what was asked."""
        return None if self.support is None else self.support >= LITTLE


def found_by(said: Said, reading: Reading, looked: LookedUp) -> Found:
    """Where a choice was looked up in `reading`."""
    return Found(looked.passages, looked.support, marks_of(said, reading, looked.passages))


def marks_of(said: Said, reading: Reading, passages: Sequence[Span]) -> list[tuple[int, int]]:
    """After which characters of the answer which passages are named: those that its sentence looked up."""
    if not passages:
        return []
    places = {id(document): at for at, document in zip(reading.places, reading.documents, strict=True)}
    named = {document.name: document for document in reading.documents}
    spans = []
    for span in passages:
        document = named[span.file]
        start = places[id(document)] - document.offset
        spans.append((start + span.start, start + span.end))
    starts = torch.tensor(reading.starts[: said.lookups.n])
    marks: list[tuple[int, int]] = []
    for sentence in _SENTENCE.finditer(said.text):
        if not sentence[0].strip():
            continue
        steps = [i for i, at in enumerate(said.at) if sentence.start() <= at < sentence.end()]
        shares = _shares(said, steps, starts, spans)
        end = sentence.start() + len(sentence[0].rstrip())
        best = sorted(range(len(spans)), key=lambda i: -shares[i])[:_MOST_MARKS]
        marks += [(end, i + 1) for i in sorted(best) if shares[i] >= _LEAST_SHARE]
    return marks


def _shares(
    said: Said, steps: Sequence[int], starts: torch.Tensor, spans: Sequence[tuple[int, int]]
) -> list[float]:
    """Of what `steps` looked up in any of `spans`, the share that lies in each."""
    sums = [0.0] * len(spans)
    for step in steps:
        if step >= len(said.lookups.steps):
            continue
        at, values = said.lookups.steps[step]
        where = starts[at]
        for i, (start, end) in enumerate(spans):
            sums[i] += float(values[(where >= start) & (where < end)].sum())
    total = sum(sums)
    return [each / total for each in sums] if total else sums


def with_marks(text: str, marks: Sequence[tuple[int, int]]) -> str:
    """The answer with its footnotes, `[1]`."""
    for at, number in sorted(marks, key=lambda mark: (-mark[0], -mark[1])):
        text = f"{text[:at]}[{number}]{text[at:]}"
    return text
