"""Running a model over a cache: prefill in chunks, and one token after another.

Everything that reads or decodes tokens goes through here: contexts, answers and evaluations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sakuin.arguments import real, shown, whole
from sakuin.backends.base import Backend


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the likeliest at `temperature` 0, else drawn from the most likely `top_p`
    of the mass."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        temperature, top_p = real(self.temperature), real(self.top_p)
        if temperature is None or temperature < 0:
            raise ValueError(
                f"temperature must be a finite number of at least 0, got {shown(self.temperature)}"
            )
        if top_p is None or not 0 < top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {shown(self.top_p)}")
        if self.seed is not None:
            object.__setattr__(self, "seed", whole("seed", self.seed, -(1 << 63), (1 << 64) - 1))

    def chooser(self) -> Callable[[Tensor], int]:
        """A function from logits `(vocabulary,)` to a token."""
        if self.temperature == 0:
            return lambda logits: int(logits.argmax())
        generator = torch.Generator()
        generator.seed() if self.seed is None else generator.manual_seed(self.seed)

        def draw(logits: Tensor) -> int:
            shares, order = (logits.float().cpu() / self.temperature).softmax(-1).sort(descending=True)
            shares[shares.cumsum(-1) - shares > self.top_p] = 0.0
            return int(order[torch.multinomial(shares, 1, generator=generator)])

        return draw


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
    backend: Backend, cache: Any, last: int, most: int, sampling: Sampling | None = None
) -> Iterator[Token]:
    """Up to `most` tokens after `last`, which is not in the cache yet. The newest token never is."""
    choose = (sampling or Sampling()).chooser()
    for _ in range(most):
        start = time.perf_counter()
        logits = backend.forward(cache, [last])
        seconds = time.perf_counter() - start
        last = choose(logits)
        yield Token(last, logits, seconds)


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
