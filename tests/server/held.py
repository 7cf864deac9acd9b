"""Answers under a grammar, for the tests of grammars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sakuin.backends.base import Backend
from sakuin.server.constraints.grammars import Grammar


def logits_of(backend: Backend) -> torch.Tensor:
    return torch.zeros(backend.shape.vocabulary)


def allowed(backend: Backend, constraint: Any) -> set[int]:
    masked = constraint.allow(logits_of(backend))
    return set(torch.isfinite(masked).nonzero().flatten().tolist())


def fits(backend: Backend, grammar: Grammar | None, text: str) -> bool:
    """Whether an answer of this text may be given, each token allowed and its end where it ends."""
    assert grammar is not None
    constraint, ends = grammar.begin(), backend.vocabulary.end_tokens
    for token in backend.vocabulary.encode(text).ids:
        may_come = allowed(backend, constraint)
        assert bool(may_come & ends) == constraint.may_end
        if token not in may_come or constraint.is_over:
            return False
        constraint.take(token)
    return constraint.may_end and allowed(backend, constraint) >= ends


def said(
    backend: Backend,
    grammar: Grammar,
    prompt: str,
    most: int = 160,
    choose: Callable[[torch.Tensor], int] = lambda logits: int(logits.argmax()),
) -> tuple[str, bool]:
    """What the model says under a grammar, greedily, and whether it came to an end."""
    vocabulary, constraint = backend.vocabulary, grammar.begin()
    asked = vocabulary.render([{"role": "user", "content": prompt}], answer=True)
    cache, taken = backend.new_cache(None), []
    logits = backend.forward(cache, vocabulary.special(asked))
    while not constraint.is_over and len(taken) < most:
        taken.append(choose(constraint.allow(logits)))
        if not constraint.take(taken[-1]):
            logits = backend.forward(cache, taken[-1:])
    return vocabulary.decode(taken), constraint.is_over
