"""Running a model over a cache: prefill in chunks, and one token after another.

Everything that reads or decodes tokens goes through here: contexts, answers and evaluations. What is asked of
a context is written as `Passes`, which say what they want computed and are sent the logits, so that one loop
can run many of them together, each over its own cache.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from torch import Tensor

from sakuin.backends.base import Backend
from sakuin.context.sampling import LAST, Sampling
from sakuin.errors import SakuinError

T = TypeVar("T")


class Pass(NamedTuple):
    """Tokens that a cache is to take. The logits `(vocabulary,)` after the last are sent back.

    decodes : whether it is a step of decoding, else a chunk of a prefill. every : whether logits
    `(len(ids), vocabulary)` after every token are wanted.
    """

    cache: Any
    ids: Sequence[int]
    decodes: bool = False
    every: bool = False


Passes = Generator[Pass, Tensor, T]
"""What wants passes, one after another, and returns a T in the end."""


@dataclass(frozen=True)
class Token:
    """A token that was chosen, the logits `(vocabulary,)` that it was chosen by, and the seconds of its
    pass."""

    id: int
    logits: Tensor
    seconds: float


class Decoding:
    """How the next token is chosen, and all that it is chosen by."""

    def __init__(
        self, backend: Backend, last: int, sampling: Sampling | None = None, before: Sequence[int] = ()
    ) -> None:
        """last : the token that is not in the cache yet. before : tokens before it, which a penalty for
        repetition counts too."""
        sampling = sampling or Sampling()
        self._choose = sampling.chooser(backend.vocabulary.end_tokens if sampling.repeat_penalty != 1 else ())
        self._so_far = [*before[-LAST:], last]

    @property
    def newest(self) -> list[int]:
        """The token that is not in the cache yet, for the next pass."""
        return self._so_far[-1:]

    def choose(self, logits: Tensor) -> int:
        """The next token, by the logits after the newest."""
        self._so_far.append(self._choose(logits, self._so_far))
        return self._so_far[-1]


class Runner(Protocol):
    """What runs the passes of a model for all that want some (`sakuin.server.scheduler` is one)."""

    def run(self, passes: Passes[T]) -> T:
        """What `passes` return."""


_runners: weakref.WeakKeyDictionary[Any, Runner] = weakref.WeakKeyDictionary()


@contextmanager
def run_by(runner: Runner, model: Any) -> Iterator[None]:
    """Within, in every thread, all that is read, asked and appended with `model` is run by `runner`."""
    if _runners.get(model) is not None:
        raise SakuinError("the model is run by another scheduler already: close that one first.")
    _runners[model] = runner
    try:
        yield
    finally:
        _runners.pop(model, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_runners.clear)  # whoever runs models is a thread of the parent


def run(backend: Backend, passes: Passes[T]) -> T:
    """What `passes` return: by who runs the model, else alone in this thread."""
    if _runners and (runner := _runners.get(backend.model)) is not None:
        return runner.run(passes)
    try:
        wanted = next(passes)
        while True:
            wanted = passes.send(backend.forward(wanted.cache, wanted.ids, every=wanted.every))
    except StopIteration as end:
        found: T = end.value
        return found
    finally:
        passes.close()


def _only(wanted: Pass) -> Passes[Tensor]:
    return (yield wanted)


def prefill(backend: Backend, cache: Any, ids: Sequence[int]) -> None:
    """Add `ids` to the cache."""
    for _ in prefill_steps(backend, cache, ids):
        pass


def prefill_steps(backend: Backend, cache: Any, ids: Sequence[int]) -> Iterator[int]:
    """Add `ids` to the cache, chunk by chunk; yields the number of tokens done after each."""
    for first, end in _chunks(backend, cache, len(ids)):
        run(backend, _only(Pass(cache, ids[first:end])))
        yield end


def prefilling(backend: Backend, cache: Any, ids: Sequence[int]) -> Passes[None]:
    """Add `ids` to the cache, chunk by chunk."""
    for first, end in _chunks(backend, cache, len(ids)):
        yield Pass(cache, ids[first:end])


def _chunks(backend: Backend, cache: Any, n: int) -> Iterator[tuple[int, int]]:
    """Ranges of n tokens. No chunk but an only one is so short that it would be taken for decoding, which is
    not exact."""
    chunk, done = backend.chunk(cache), 0
    while done < n:
        end = done + chunk
        if n - end <= exact_above(backend, cache):
            end = n
        yield done, end
        done = end


def generate(
    backend: Backend,
    cache: Any,
    last: int,
    most: int,
    sampling: Sampling | None = None,
    before: Sequence[int] = (),
) -> Iterator[Token]:
    """Up to `most` tokens after `last`, which is not in the cache yet. The newest token never is.

    before : tokens before `last`, which a penalty for repetition counts too.
    """
    decoding = Decoding(backend, last, sampling, before)
    for _ in range(most):
        start = time.perf_counter()
        logits = run(backend, _only(Pass(cache, decoding.newest, decodes=True)))
        seconds = time.perf_counter() - start
        yield Token(decoding.choose(logits), logits, seconds)


def forced(
    backend: Backend, cache: Any, ids: Sequence[int], step: int
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Add `ids` to the cache, `step` at a time as a verified draft is: each piece and its logits
    `(n, vocabulary)`."""
    for at in range(0, len(ids), step):
        piece = ids[at : at + step]
        yield piece, backend.forward(cache, piece, every=True)


def exact_above(backend: Backend, cache: Any) -> int:
    """Passes of more positions than this are exact; 0 with full attention."""
    retrieval = backend.retrieval(cache)
    return 0 if retrieval is None else retrieval.config.exact_above
