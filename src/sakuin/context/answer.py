"""One answer: the question goes in, tokens come out, and where they were looked up.

`answering` works on a cache of its own and leaves what it added in it, so that a chat can go on from there;
who wants the context unchanged gives it a fork. It says which passes it wants, and others run them. Called
by `sakuin.context.context`.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from sakuin import arguments
from sakuin.backends.base import Backend
from sakuin.cache.drawn import Drawn
from sakuin.context import evidence, lookup, support
from sakuin.context.checks import reckoned
from sakuin.context.evidence import Span
from sakuin.context.generate import Decoding, Pass, Passes, prefilling
from sakuin.context.lookup import Lookups
from sakuin.context.sampling import Sampling
from sakuin.context.saying import WHOLE, Ended, Saying, stop_strings
from sakuin.context.spoken_of import (
    LEADING,
    WORDS,
    Question,
    lessened,
    looks_at,
    tokens_within,
    words_shared,
)
from sakuin.errors import SakuinError
from sakuin.prompts.reading import Reading
from sakuin.prompts.template import Prompt
from sakuin.prompts.vocabulary import Encoded


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
    ended : why the answer ended. "stop": by itself; "stop string": before one of `stop`; "length": at
        `max_new_tokens`; "window": the model reads no more; "loop": it repeated itself, and the repetition is
        cut to once (new_tokens counts what was cut too); "interrupted": `cancelled` said so.
    finished : whether that is "stop" or "stop string".
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
    ended: Ended = "stop"


@dataclass(frozen=True)
class Asking:
    """How to answer: most tokens, how they are chosen, who is told as they come, and what ends the answer
    before the model does."""

    max_new_tokens: int
    sampling: Sampling
    stream: Callable[[str], None] | None
    stop: str | Sequence[str] = ()
    end_loops: bool = True
    cancelled: Callable[[], bool] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_new_tokens", arguments.whole("max_new_tokens", self.max_new_tokens, 1))
        stop_strings(self.stop)
        arguments.flag("end_loops", self.end_loops)
        arguments.callback("stream", self.stream, "a piece of the answer")
        arguments.callback("cancelled", self.cancelled, "nothing")

    @property
    def is_cancelled(self) -> bool:
        return self.cancelled is not None and self.cancelled()

    @property
    def stops(self) -> tuple[str, ...]:
        return stop_strings(self.stop)


def answering(
    backend: Backend,
    cache: Any,
    prompt: Prompt,
    reading: Reading,
    question: str | None,
    asking: Asking,
    drawn: Callable[[], Passes[Drawn | None]],
    *,
    again: Callable[[], Any] | None = None,
) -> Passes[tuple[Answer, Reading, Any]]:
    """The answer, the reading and its cache: with question and answer in both if `again` is given, else
    `reading` and whatever is in `cache` then. Where nothing was said when it was cancelled, the reading is as
    it was.

    question : None answers what stands at the reading's end. drawn : what any question draws from the text,
    asked for when the answer stands. A cache with full attention cannot tell where it looked. again : makes
    another cache as `cache` is now, for an answer that is cut after its tokens were read.
    """
    retrieval, rest, read = backend.retrieval(cache), reading.waiting.rstrip(), len(reading.ids)
    if (window := backend.shape.window) is not None:
        more = reckoned(backend.vocabulary, rest + (question or ""), max(window - read, 0))
        _left_of(window, read + (more or 0), about=True)
    asked = prompt.question(rest, question, reading.lead)
    left = _left_of(window, total := read + len(asked.ids))
    apart = None if retrieval is None else Question.of(prompt, reading, question, asked)
    before = None if apart is None else backend.fork(cache)
    # The document's last tokens are prefilled with the question.
    n = len(reading.ids) + sum(end <= len(rest) for end in asked.ends)
    saying = Saying(prompt, asking.stream, asking.stops, asking.end_loops)
    prefill_s, seconds, lookups = yield from _speak(
        backend, cache, reading.ids, asked.ids, asking, left, saying, n
    )
    saying.finish(_why(asking, left, len(saying.ids)))
    asked_in = with_question(reading, asked, len(rest))
    # Who has interrupted an answer does not wait for what makes its passages better.
    measured = None if lookups is None or saying.ended == "interrupted" else (yield from drawn())
    scale = 0.0 if measured is None else (yield from support.scale_of(backend, prompt))
    looked = None if lookups is None else looked_up(lookups, asked_in, measured, scale)
    if apart is not None and looked is not None and looked.is_in_question(apart):
        looked = yield from looked.asked_for(backend, before, apart)
    result = Answer(
        text=saying.text.strip(),
        evidence=[] if looked is None else looked.passages,
        support=None if looked is None else looked.support,
        tokens=total,
        new_tokens=len(saying.ids),
        prefill_s=prefill_s,
        decode_s=sum(seconds),
        decode_ms_per_token=1e3 * sum(seconds) / max(len(seconds), 1),
        stats={} if retrieval is None else retrieval.stats(),
        finished=saying.ended in WHOLE,
        reused_tokens=len(reading.ids),
        ended=saying.ended,
    )
    if again is None or not seconds:
        return result, reading, cache
    kept, cache = yield from _kept(backend, cache, asked.ids, saying, again)
    at = [len(asked_in.body)] * len(kept)
    return result, asked_in.with_tokens(kept, at, at, len(asked_in.body), prompt.between), cache


def with_question(reading: Reading, asked: Encoded, waiting: int) -> Reading:
    """The reading with the tokens of what waited, so many characters, and of the question."""
    starts, ends = ([reading.at + min(at, waiting) for at in each] for each in (asked.starts, asked.ends))
    return reading.with_tokens(asked.ids, starts, ends, len(reading.body))


def _speak(
    backend: Backend,
    cache: Any,
    read: Sequence[int],
    asked: Sequence[int],
    asking: Asking,
    left: int,
    saying: Saying,
    n: int,
) -> Passes[tuple[float, list[float], Lookups | None]]:
    """Add the question to the cache, and the answer to `saying`: seconds of the prefill and of each step, and
    what was looked up among the first n tokens; nothing where it was cancelled before the first step."""
    start, seconds = time.perf_counter(), list[float]()
    for chunk in prefilling(backend, cache, asked[:-1]):
        yield chunk
        if asking.is_cancelled:
            return time.perf_counter() - start, seconds, None
    prefill_s, retrieval = time.perf_counter() - start, backend.retrieval(cache)
    lookups = None if retrieval is None else Lookups(retrieval, n)
    before = [*read, *asked]
    decoding = Decoding(backend, before.pop(), asking.sampling, before)
    for _ in range(min(asking.max_new_tokens, left)):
        start = time.perf_counter()
        logits = yield Pass(cache, decoding.newest, decodes=True)
        seconds.append(time.perf_counter() - start)
        if lookups is not None:
            lookups.note()
        if saying.add(decoding.choose(logits)) or asking.is_cancelled:
            break
    return prefill_s, seconds, lookups


def _why(asking: Asking, left: int, said: int) -> Ended:
    """Why there were no more tokens after so many, where the answer did not end itself."""
    if said < min(asking.max_new_tokens, left):
        return "interrupted"
    return "window" if left <= asking.max_new_tokens else "length"


def _kept(
    backend: Backend, cache: Any, asked: Sequence[int], saying: Saying, again: Callable[[], Any]
) -> Passes[tuple[list[int], Any]]:
    """The answer's tokens that a conversation keeps, and a cache that holds them after those of the
    question."""
    kept, rest, more = saying.kept()
    if more > 1:  # some that do not belong to it are in the cache: it is read once more, up to there
        cache = again()
        yield from prefilling(backend, cache, [*asked, *kept, *rest])
    else:  # the newest was chosen and is not in the cache, unless an end followed it
        newest = [] if saying.ended == "stop" else kept[len(saying.ids) - 1 :]
        yield from prefilling(backend, cache, [*newest, *rest])
    return [*kept, *rest], cache


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


@dataclass(frozen=True)
class LookedUp:
    """What an answer looked up.

    passages : the weightiest first. support : from 0 to 1, None where the model cannot tell. drawn : what any
    question draws, fp32 `(n,)`, infinite where tokens are none of a document's. leading : which tokens are of
    the first passages, bool `(n,)`. scale : of the model.
    """

    passages: list[Span]
    support: float | None
    drawn: torch.Tensor
    leading: torch.Tensor
    scale: float

    def is_in_question(self, question: Question) -> bool:
        """Whether it has support, and shares so few words with the question that it may have been copied."""
        held = [passage.text for passage in self.passages[:LEADING]]
        enough = self.support is not None and self.support >= support.LITTLE
        return enough and words_shared(question.text, held) <= WORDS

    def asked_for(self, backend: Backend, before: Any, question: Question) -> Passes[LookedUp]:
        """The same, with less support where the question does not look there either.

        before : a cache that holds the text before the question; it is used up.
        """
        looks = yield from looks_at(backend, before, question, self.leading, self.drawn, self.scale)
        assert self.support is not None
        return replace(self, support=lessened(self.support, looks, support.LITTLE))


def looked_up(lookups: Lookups, reading: Reading, drawn: Drawn | None, scale: float) -> LookedUp:
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
    return LookedUp(
        [_span(reading, start, end, weight) for start, end, weight in found],
        support.of(lookups.most(always), scale),
        always,
        tokens_within(reading, n, [(start, end) for start, end, _ in found[:LEADING]]),
        scale,
    )


def _in_documents(reading: Reading, n: int) -> torch.Tensor:
    """Which of the first n tokens stand for characters of a document, bool `(n,)`."""
    # By way of NumPy: torch takes ten times as long for a list of Python's numbers.
    starts, ends = (np.fromiter(at, np.int64, n) for at in (reading.starts[:n], reading.ends[:n]))
    inside = np.zeros(n, dtype=bool)
    for place, document in zip(reading.places, reading.documents, strict=True):
        inside |= (starts < place + len(document.text)) & (ends > place) & (starts < ends)
    return torch.from_numpy(inside)


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
