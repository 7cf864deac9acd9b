"""Running a model over a cache: prefill in chunks, and one token after another.

Everything that reads or decodes tokens goes through here: contexts, answers and evaluations.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sakuin.backends.base import Backend
from sakuin.context.sampling import LAST, Sampling


@dataclass(frozen=True)
class Token:
    """A token that was chosen, the logits `(vocabulary,)` that it was chosen by, and the seconds of its
    pass."""

    id: int
    logits: Tensor
    seconds: float


def prefill(backend: Backend, cache: Any, ids: Sequence[int]) -> None:
    """Add `ids` to the cache."""
    for _ in prefill_steps(backend, cache, ids):
        pass


def prefill_steps(backend: Backend, cache: Any, ids: Sequence[int]) -> Iterator[int]:
    """Add `ids` to the cache, chunk by chunk; yields the number of tokens done after each.

    No chunk but an only one is so short that it would be taken for decoding, which is not exact.
    """
    chunk, done = backend.chunk(cache), 0
    while done < len(ids):
        end = done + chunk
        if len(ids) - end <= exact_above(backend, cache):
            end = len(ids)
        backend.forward(cache, ids[done:end])
        done = min(end, len(ids))
        yield done


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
    sampling = sampling or Sampling()
    choose = sampling.chooser(backend.vocabulary.end_tokens if sampling.repeat_penalty != 1 else ())
    so_far = [*before[-LAST:], last]
    for _ in range(most):
        start = time.perf_counter()
        logits = backend.forward(cache, so_far[-1:])
        seconds = time.perf_counter() - start
        so_far.append(choose(logits, so_far))
        yield Token(so_far[-1], logits, seconds)


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
