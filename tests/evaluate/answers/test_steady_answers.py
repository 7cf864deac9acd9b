"""Answers of two configurations are compared by passes that round alike: all inside a backend's `steady`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tiny import tiny

from sakuin.backends.open import backend_of
from sakuin.backends.transformers.backend import TransformersBackend
from sakuin.evaluate.answers import extraction, needle, ruler
from sakuin.evaluate.configurations import configurations
from sakuin.evaluate.results import Results
from sakuin.evaluate.texts.planted import technical_english

SMALL = "flat:sink=16,recent=32,segment=128"
Model = tuple[Any, Any]


@pytest.fixture
def model(smollm2_by_transformers: Model) -> Model:
    """A small random model that reads what smollm2's tokenizer writes."""
    tokenizer = smollm2_by_transformers[1]
    return tiny("llama", vocab_size=len(tokenizer), max_position_embeddings=2048), tokenizer


@pytest.fixture
def within(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each pass, whether it was inside; the last is how it is at the end."""
    inside: list[bool] = [False]
    seen: list[bool] = []
    forward = TransformersBackend.forward

    @contextmanager
    def steady(self: TransformersBackend) -> Iterator[None]:
        inside.append(True)
        yield
        inside.pop()

    def counted(self: TransformersBackend, *given: Any, **named: Any) -> Any:
        seen.append(inside[-1])
        return forward(self, *given, **named)

    monkeypatch.setattr(TransformersBackend, "steady", steady)
    monkeypatch.setattr(TransformersBackend, "forward", counted)
    return seen


def needles(model: Model) -> None:
    grid = needle.Grid((300,), (0.5,))
    list(needle.run(*model, technical_english(), grid, configurations(SMALL), Results(None, {})))


def records(model: Model) -> None:
    list(extraction.run(*model, [1024], 1, configurations(SMALL), Results(None, {}), by_number=True))


def tasks(model: Model) -> None:
    ruler.ruler(*model, configurations(SMALL), Results(None, {}), 2048, ["vt"], 1)


@pytest.mark.parametrize("asked", [needles, records, tasks])
def test_every_pass_of_a_comparison_is_steady(
    asked: Callable[[Model], None], model: Model, within: list[bool]
) -> None:
    asked(model)
    assert within
    assert all(within)
    backend = backend_of(*model)  # the user's again
    backend.forward(backend.new_cache(None), [1, 2, 3])
    assert not within[-1]
