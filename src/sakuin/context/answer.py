"""One answer: the question goes in, tokens come out, and where they were looked up.

`answer` works on a cache of its own and leaves what it added in it, so that a chat can go on from there; who
wants the context unchanged gives it a fork. Called by `sakuin.context.context`.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from sakuin import arguments
from sakuin.backends.base import Backend
from sakuin.cache.drawn import Drawn
from sakuin.context import evidence, lookup, support
from sakuin.context.checks import reckoned
from sakuin.context.evidence import Span
from sakuin.context.generate import Sampling, Token, generate, prefill
from sakuin.context.lookup import Lookups
from sakuin.errors import SakuinError
from sakuin.prompts.reading import Reading
from sakuin.prompts.template import Prompt


@dataclass(frozen=True)
class Answer:
    """What the model said, and what it took.

    evidence : the passages that were looked up for the answer, the weightiest first; empty with full
        attention, which does not tell.
    support : from 0 to 1, how much was looked up in the text, beside what this model looks up where the
        answer is there. Below `sakuin.context.support.LITTLE` the text seems not to speak of what was asked.
        None with full attention, and of a model that does not find answers in a short text either.
    tokens, new_tokens : tokens of the whole prompt and of the answer.
    reused_tokens : tokens of the prompt that had been read before, in this process or by the one that wrote a
        snapshot; the others were prefilled for this question.
    prefill_s, decode_s : seconds for the question (the document was prefilled before) and for the answer.
    decode_ms_per_token : mean time of a decode step.
    stats : of the cache, as `WholeCache.stats` says; empty with full attention.
    finished : whether the answer ended by itself rather than at `max_new_tokens` or at the model's window.
    """

    text: str
    evidence: list[Span]
    tokens: int
    new_tokens: int
    prefill_s: float
    decode_s: float
    decode_ms_per_token: float
    stats: dict[str, Any] = field(repr=False)
    finished: bool = True
    reused_tokens: int = 0
    support: float | None = None


@dataclass(frozen=True)
class Asking:
    """How to answer: most tokens, how they are chosen, who is told as they come."""

    max_new_tokens: int
    sampling: Sampling
    stream: Callable[[str], None] | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_new_tokens", arguments.whole("max_new_tokens", self.max_new_tokens, 1))
        arguments.callback("stream", self.stream, "a piece of the answer")


def answer(
    backend: Backend,
    cache: Any,
    prompt: Prompt,
    reading: Reading,
    question: str | None,
    asking: Asking,
    drawn: Callable[[], Drawn | None],
    *,
    keep: bool = False,
) -> tuple[Answer, Reading]:
    """The answer, and the reading: with question and answer in it, all of which are in `cache` then, if
    `keep`; else as it was.

    question : None answers what stands at the reading's end. drawn : what any question draws from the text,
    asked for when the answer stands. A cache with full attention cannot tell where it looked.
    """
    retrieval = backend.retrieval(cache)
    rest = reading.waiting.rstrip()
    window, read = backend.shape.window, len(reading.ids)
    if window is not None:
        more = reckoned(backend.vocabulary, rest + (question or ""), max(window - read, 0))
        _left_of(window, read + (more or 0), about=True)
    asked = prompt.question(rest, question, reading.lead)
    total = len(reading.ids) + len(asked.ids)
    most = min(asking.max_new_tokens, _left_of(window, total))
    start = time.perf_counter()
    prefill(backend, cache, asked.ids[:-1])
    prefill_s = time.perf_counter() - start
    # The document's last tokens are prefilled with the question.
    n = len(reading.ids) + sum(end <= len(rest) for end in asked.ends)
    tokens: Iterable[Token] = generate(backend, cache, asked.ids[-1], most, asking.sampling)
    lookups = None if retrieval is None else Lookups(retrieval, n)
    if lookups is not None:
        tokens = lookups.watching(tokens)
    seconds: list[float] = []
    said, ended = _say(tokens, prompt, asking, seconds)
    asked_in = reading.with_tokens(
        asked.ids,
        [reading.at + min(at, len(rest)) for at in asked.starts],
        [reading.at + min(at, len(rest)) for at in asked.ends],
        len(reading.body),
    )
    found, supported = ([], None) if lookups is None else _looked_up(lookups, asked_in, drawn())
    result = Answer(
        text=said.text.strip(),
        evidence=found,
        support=supported,
        tokens=total,
        new_tokens=len(said.ids),
        prefill_s=prefill_s,
        decode_s=sum(seconds),
        decode_ms_per_token=1e3 * sum(seconds) / len(seconds),
        stats={} if retrieval is None else retrieval.stats(),
        finished=ended,
        reused_tokens=len(reading.ids),
    )
    if not keep:
        return result, reading
    kept, unread = _kept(prompt, said, ended)
    prefill(backend, cache, unread)
    at = [len(asked_in.body)] * len(kept)
    return result, asked_in.with_tokens(kept, at, at, len(asked_in.body), prompt.between)


def _kept(prompt: Prompt, said: _Said, ended: bool) -> tuple[list[int], list[int]]:
    """The answer's tokens that a conversation keeps, and the last of them that are not in the cache yet."""
    kept = said.ids
    if said.line_end or not ended:
        # The last token was chosen and not fed: of a line's end only what stands before it belongs here.
        last, kept = said.ids[-1:], said.ids[:-1]
        if said.line_end:
            last = prompt.encode(said.text[len(prompt.decode(kept).lstrip()) :]).ids if kept else []
        return [*kept, *last], last
    return kept, []


def _left_of(window: int | None, total: int, about: bool = False) -> int:
    """Tokens that an answer may have after a prompt of `total`."""
    if window is None:
        return total + (1 << 30)
    if total >= window:
        raise SakuinError(
            f"document and question are {'about ' * about}{total:,} tokens long and this model reads at most "
            f"{window:,}; ask a shorter question or shorten the document."
        )
    return window - total


def _say(tokens: Iterable[Token], prompt: Prompt, asking: Asking, seconds: list[float]) -> tuple[_Said, bool]:
    said = _Said(prompt, asking.stream)
    ends = prompt.vocabulary.end_tokens
    ended = False
    for token in tokens:
        seconds.append(token.seconds)
        ended = token.id in ends or said.add(token.id)
        if ended:
            break
    said.finish()
    return said, ended


def _looked_up(lookups: Lookups, reading: Reading, drawn: Drawn | None) -> tuple[list[Span], float | None]:
    """Passages, and how much of the answer they support."""
    n = lookups.n
    always = torch.zeros(n) if drawn is None else lookup.unpacked(drawn, n)
    always[~_in_documents(reading, n)] = torch.inf  # titles and the template's own tokens say nothing
    breaks = {0} | {
        place + at
        for place, document in zip(reading.places, reading.documents, strict=True)
        for at in (0, *document.breaks())
    }
    found = evidence.passages(
        lookups.beyond(always), reading.starts[:n], reading.ends[:n], reading.body, sorted(breaks)
    )
    supported = None if drawn is None else support.of(lookups.most(always), drawn.scale)
    return [_span(reading, start, end, weight) for start, end, weight in found], supported


def _in_documents(reading: Reading, n: int) -> torch.Tensor:
    """Which of the first n tokens stand for characters of a document, bool `(n,)`."""
    starts, ends = torch.tensor(reading.starts[:n]), torch.tensor(reading.ends[:n])
    inside = torch.zeros(n, dtype=torch.bool)
    for place, document in zip(reading.places, reading.documents, strict=True):
        inside |= (starts < place + len(document.text)) & (ends > place) & (starts < ends)
    return inside


def _span(reading: Reading, start: int, end: int, weight: float) -> Span:
    which = bisect_right(reading.places, start) - 1
    document, place = reading.documents[which], reading.places[which]
    start, end = start - place, min(end - place, len(document.text))
    mark = document.mark(start)
    return Span(
        start=document.offset + start,
        end=document.offset + end,
        weight=weight,
        file=document.name,
        line_start=document.line(start),
        line_end=document.line(max(end - 1, start)),
        text=document.text[start:end],
        page=mark.page,
        heading=mark.heading,
    )


class _Said:
    """An answer as it grows: tokens to text, handed on piece by piece, never half a character."""

    def __init__(self, prompt: Prompt, stream: Callable[[str], None] | None) -> None:
        self.ids: list[int] = []
        self.text = ""
        self.line_end = False
        self._prompt, self._stream = prompt, stream
        self._streamed = 0

    def add(self, token: int) -> bool:
        """Take a token; True where it ends the answer's only line."""
        self.ids.append(token)
        self.text = self._prompt.decode(self.ids).lstrip()
        line, newline, _ = self.text.partition("\n")
        if newline and self._prompt.one_line:
            self.text, self.line_end = line, True
            return True
        # Half a character waits for its other half, and blanks at the end wait: if the answer ends there,
        # they are no part of it.
        if not self.text.endswith("\N{REPLACEMENT CHARACTER}"):
            self.finish()
        return False

    def finish(self) -> None:
        """Hand on what has not been."""
        until = len(self.text.rstrip())
        if self._stream and until > self._streamed:
            self._stream(self.text[self._streamed : until])
        self._streamed = max(self._streamed, until)
