"""The passes of a request: its prompt is read, as far as it is not known, and its choices are said.

They run in the scheduler's thread, token by token beside others, so nothing here waits for anybody. Called by
`sakuin.server.asking.running`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sakuin.backends.base import Backend
from sakuin.cache.drawn import Drawn
from sakuin.context.generate import Pass, Passes, prefilling
from sakuin.context.growth import let_fail
from sakuin.context.lookup import Lookups
from sakuin.context.saying import Saying
from sakuin.prompts.template import Prompt
from sakuin.server.asking.sampler import Sampler, likely
from sakuin.server.asking.wanted import Likely, Said, Wanted

_SCORED = 256
"""Tokens of a prompt whose logits are looked at at once."""


@dataclass(frozen=True)
class Beginning:
    """Where a prompt is read on from: a cache that nobody else holds, and how many of its tokens that has.

    drawn : what finds what any question draws from the text, where it is known how.
    """

    cache: Any
    n_tokens: int
    drawn: Callable[[], Passes[Drawn | None]] | None = None


class Sink:
    """Told what happens, in the scheduler's thread."""

    def read(self, done: int, total: int) -> None:
        """So many tokens of the prompt are read."""

    def said(self, number: int, text: str, likely: Sequence[Likely]) -> None:
        """A piece of a choice, and its tokens with logprobs."""

    def chose(self, seconds: float, *, first: bool) -> None:
        """A token was chosen, so long after the one before it; the first, after the request."""


def reading(
    backend: Backend,
    ids: Sequence[int],
    begin: Beginning,
    sink: Sink,
    shown: Sequence[tuple[int, Callable[[Any], None]]],
) -> Passes[None]:
    """Read all of `ids` but the last. shown : after so many tokens the cache is shown, where it comes by."""
    cache, done, n = begin.cache, begin.n_tokens, len(ids) - 1
    let_fail(backend, cache)
    for stop in sorted({n, *(at for at, _ in shown if done <= at <= n)}):
        for wanted in prefilling(backend, cache, ids[done:stop]):
            yield wanted
            done += len(wanted.ids)
            sink.read(done, n)
        for at, then in shown:
            if at == stop:
                then(cache)


def scoring(
    backend: Backend, cache: Any, ids: Sequence[int], sink: Sink, wanted: Wanted
) -> Passes[list[Likely]]:
    """Read all of `ids` but the last into an empty cache: how likely each but the first was."""
    found, done, n = list[Likely](), 0, len(ids) - 1
    let_fail(backend, cache)
    while done < n:
        end = n if n - done < 2 * _SCORED else done + _SCORED
        rows = yield Pass(cache, ids[done:end], every=True)
        found += [likely(row, ids[done + 1 + i], wanted.logprobs or 0) for i, row in enumerate(rows)]
        done = end
        sink.read(done, n)
    return found


def speaking(
    backend: Backend,
    cache: Any,
    prompt: Prompt,
    ids: Sequence[int],
    wanted: Wanted,
    sink: Sink,
    *,
    most: int,
    number: int = 0,
    n_text: int = 0,
    cached: int = 0,
    asked: float = 0.0,
) -> Passes[Said]:
    """The `number`-th choice of at most `most` tokens, said over `cache`, which holds `ids` but the last.

    n_text : tokens of the text among which what is looked up counts. cached : tokens of the prompt that were
    known. asked : when the request came, in seconds of `time.monotonic`.
    """
    retrieval = backend.retrieval(cache)
    lookups = Lookups(retrieval, n_text) if wanted.evidence and retrieval is not None else None
    heard = _Heard(sink, number, wanted.logprobs)
    held = wanted.grammar is not None  # whose form says where the answer ends
    loops = wanted.end_loops and not held
    saying = Saying(prompt, heard.text, wanted.stop, loops, raw=wanted.raw or held, before=ids)
    sampler, newest, at = Sampler(wanted, number), ids[-1], list[int]()
    generated = list[int]()
    clock = _Clock(sink, asked)
    for _ in range(most):
        logits = yield Pass(cache, [newest], decodes=True)
        if lookups is not None:
            lookups.note()
        newest = sampler.choose(logits)
        generated.append(newest)
        clock.tick()
        heard.note(logits, newest)
        at.append(len(saying.text))
        over = sampler.constraint is not None and sampler.constraint.take(newest)
        if saying.add(newest) or over:
            break
    else:
        over = False
    if len(saying.ids) < len(generated):
        heard.drop_last()  # the token that ended it is none of the answer
    saying.finish("stop" if over else "length")
    heard.finish()
    return Said(
        text=saying.text,
        ids=saying.ids,
        ended=saying.ended,
        prompt_tokens=len(ids),
        cached=cached,
        held=generated[:-1],
        likely=heard.every,
        at=at[: len(saying.ids)],
        lookups=lookups,
        first_s=clock.first_s,
        step_s=clock.seconds / max(len(generated), 1),
        stats={} if retrieval is None else retrieval.stats(),
    )


class _Clock:
    """When tokens come. first_s : seconds from the request to the first."""

    def __init__(self, sink: Sink, asked: float) -> None:
        self.first_s, self._began = 0.0, time.monotonic()
        self._sink, self._asked, self._before = sink, asked, 0.0

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._began

    def tick(self) -> None:
        now, first = time.monotonic(), not self._before
        self._sink.chose(now - (self._asked if first else self._before), first=first)
        self._before = now
        if first:
            self.first_s = now - self._asked


class _Heard:
    """Hands pieces of a choice on with the tokens that came with them."""

    def __init__(self, sink: Sink, number: int, others: int | None) -> None:
        """others : as `Wanted.logprobs`."""
        self.pending: list[Likely] = []
        self.every: list[Likely] = []
        self._sink, self._number, self._others = sink, number, others

    def note(self, logits: Tensor, token: int) -> None:
        if self._others is not None:
            self.pending.append(likely(logits, token, self._others))

    def text(self, piece: str) -> None:
        self.every += self.pending
        self._sink.said(self._number, piece, self.pending)
        self.pending = []

    def drop_last(self) -> None:
        del self.pending[-1:]

    def finish(self) -> None:
        if self.pending:
            self.text("")
