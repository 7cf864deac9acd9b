"""What the tests of snapshots and libraries share: a tiny model with its tokenizer, a text, small
settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

from tiny import BYTES, byte_tokenizer, tiny

from sakuin import Context, RetrievalConfig
from sakuin.context import lookup, support
from sakuin.snapshot import parts

CONFIG = RetrievalConfig(sink=4, recent=16, segment=128)
TEXT = "".join(f"Line {i} says that the quick brown fox jumps over {i * i} lazy dogs.\n" for i in range(24))
MORE = "And then the fox had enough of it, went home and slept until noon. " * 5
QUESTION = "Who jumps?"
WINDOWED = "gemma3_text"


def model_of(family: str = "llama") -> tuple[Any, Any]:
    """A tiny model and the tokenizer of bytes; the same for each call."""
    return _made(family)


@cache
def _made(family: str) -> tuple[Any, Any]:
    return tiny(family, vocab_size=BYTES), byte_tokenizer()


def read(family: str = "llama", text: str = TEXT, config: RetrievalConfig = CONFIG) -> Context:
    """A context of `text`."""
    return Context.from_text(*model_of(family), text, config)


def said(context: Context, question: str = QUESTION) -> tuple[str, list[Any]]:
    """What the context answers, and from where."""
    answer = context.ask(question, max_new_tokens=12)
    return answer.text, answer.evidence


@contextmanager
def counted(model: Any, measuring: bool = False) -> Iterator[list[int]]:
    """Tokens of each forward pass of `model` within. measuring : those that measure what any question draws
    from a text, and the model's scale, too."""
    seen: list[int] = []
    apart: list[None] = []

    def note(_: Any, __: Any, given: dict[str, Any]) -> None:
        if measuring or not apart:
            seen.append(given["input_ids"].shape[1])

    def noted(measure: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            apart.append(None)
            try:
                return (yield from measure(*given))
            finally:
                apart.pop()

        return call

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    with (
        patch.object(lookup, "neutral", noted(lookup.neutral)),
        patch.object(support, "_measure", noted(support._measure)),
    ):
        try:
            yield seen
        finally:
            hook.remove()


@contextmanager
def windows_every(tokens: int) -> Iterator[None]:
    """Windows of layers without an index are kept every so many tokens, so that short texts have some."""
    before, parts.CHECKPOINT = parts.CHECKPOINT, tokens
    try:
        yield
    finally:
        parts.CHECKPOINT = before
