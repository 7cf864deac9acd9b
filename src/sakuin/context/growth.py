"""How a context comes to hold more, or other, documents: the cache goes back to where the text differs, and
the rest is read.

Called by `sakuin.context.context`, which takes what comes of it all at once or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sakuin.backends.base import Backend
from sakuin.config import RetrievalConfig
from sakuin.context.checks import check_fits
from sakuin.context.generate import prefill_steps
from sakuin.prompts.holding import Change
from sakuin.prompts.reading import Reading
from sakuin.snapshot import parts
from sakuin.snapshot.going_back import Beginning, beginning
from sakuin.snapshot.part import Part
from sakuin.snapshot.parts import Keeper

Progress = Callable[[int, int, str], None]
"""Given tokens done, tokens in all, and the phase: "prefill" or "index"."""


@dataclass(frozen=True)
class Growth:
    """What `Context.append` and `Context.remove` did.

    changes : what became of each document: its name in the context, and "new", "grown" (its rest was read),
        "same" (it was there already; nothing was read), "replaced" or "removed".
    tokens_read : tokens that were prefilled for it; those that stand after a document that was replaced or
        removed are among them.
    """

    changes: tuple[Change, ...] = ()
    tokens_read: int = 0


@dataclass(frozen=True)
class Read:
    """A reading and the cache that holds it, to be taken in the place of the old ones.

    first : so many of the tokens were not prefilled now. reused : so many were found by a keeper. seconds,
    index_s : what it took.
    """

    reading: Reading
    cache: Any
    windows: list[Part]
    first: int
    reused: int
    seconds: float
    index_s: float


def let_fail(backend: Backend, cache: Any, on: bool = True) -> None:
    """Whether `cache` is thrown away if anything fails, and need not be able to go back."""
    if (retrieval := backend.retrieval(cache)) is not None:
        retrieval.let_fail(on)


def read_on(
    backend: Backend,
    config: RetrievalConfig | None,
    before: Beginning,
    reading: Reading,
    progress: Progress | None = None,
    keeper: Keeper | None = None,
) -> Read:
    """Prefill the tokens of `reading` that are not in `before`, whose cache nobody else holds.

    keeper : may know how a context begins of which nothing is read yet.
    """
    ids, begin, reused = reading.ids, before, 0
    check_fits(backend, config, len(ids), len(reading.body), before.n_tokens)
    if keeper is not None and not begin.n_tokens and (found := keeper.begin(ids)) is not None:
        cache, reused, windows = found
        begin = Beginning(cache, reused, windows, reused)
    cache, windows, first = begin.cache, list(begin.windows), begin.n_tokens
    let_fail(backend, cache)
    start = time.perf_counter()
    say = progress or (lambda *_: None)
    _prefill(backend, cache, ids, first, windows, say, keeper)
    index_s = 0.0
    if (retrieval := backend.retrieval(cache)) is not None:
        say(0, 1, "index")
        retrieval.seal()
        say(1, 1, "index")
        index_s = retrieval.index_seconds  # a fork counts anew
        exact = min(reading.exact, before.as_read)
        if before.goes_on and exact == before.n_tokens and len(ids) - first > retrieval.config.exact_above:
            exact = len(ids)
        reading = replace(reading, exact=exact)
    return Read(reading, cache, windows, first, reused, time.perf_counter() - start, index_s)


def _prefill(
    backend: Backend,
    cache: Any,
    ids: Sequence[int],
    first: int,
    windows: list[Part],
    say: Progress,
    keeper: Keeper | None,
) -> None:
    """Add `ids` from `first` on to the cache; windows on the way are added to `windows`."""
    new, done = len(ids) - first, first
    if not new:
        return
    say(0, new, "prefill")
    for stop, keep in parts.stops(backend, cache, done, len(ids)):
        for at in prefill_steps(backend, cache, ids[done:stop]):
            say(done + at - first, new, "prefill")
            if keeper is not None and done + at < stop:
                keeper.step(cache, done + at, windows)
        done = stop
        if keep:
            windows.append(parts.window_part(backend, cache, done))
        if keeper is not None:
            keeper.step(cache, done, windows)


def started(
    backend: Backend,
    config: RetrievalConfig | None,
    cache: Any,
    windows: Sequence[Part],
    held: Reading,
    reading: Reading,
) -> Beginning:
    """What `reading` goes on from, of a context that holds `held` in `cache`: all of it, or where the two
    readings differ, what comes before that."""
    n = len(held.ids)
    same = next(
        (i for i, pair in enumerate(zip(held.ids, reading.ids, strict=False)) if pair[0] != pair[1]),
        min(n, len(reading.ids)),
    )
    if same == n:
        return Beginning(backend.fork(cache), n, list(windows), n)
    return beginning(backend, config, cache, windows, same)
