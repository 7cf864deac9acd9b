"""An answer, decoded token by token until it ends. The loop of all evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sakuin.backends.base import Backend
from sakuin.context.generate import generate
from sakuin.context.sampling import Sampling


@dataclass(frozen=True)
class Decoded:
    """ids : all tokens of an answer, one that ends it included. text : of the others."""

    ids: list[int]
    text: str


def decode_answer(
    backend: Backend,
    cache: Any,
    last: int,
    most: int,
    stop: Callable[[str], bool] | None = None,
    sampling: Sampling | None = None,
) -> Decoded:
    """What the model says after `last`, which is not in the cache yet: until it ends, or `most` tokens are
    said, or the text so far is one at which to `stop`."""
    ends, text = backend.vocabulary.end_tokens, ""
    ids: list[int] = []
    for token in generate(backend, cache, last, most, sampling):
        ids.append(token.id)
        if token.id in ends:
            break
        text = backend.vocabulary.decode(ids)
        if stop is not None and stop(text):
            break
    return Decoded(ids, text)
