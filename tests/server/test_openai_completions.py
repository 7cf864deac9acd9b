"""OpenAI's own client against `/v1/completions`: a text is gone on with as the model goes on with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import openai
import pytest
from served import Served
from torch import Tensor

from sakuin import RetrievalConfig
from sakuin.backends.base import Backend
from sakuin.context.generate import Pass, Passes, generate, prefill, run


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.api, api_key="none", max_retries=0, timeout=120) as made:
        yield made


def test_a_text_is_gone_on_with(client: openai.OpenAI, served: Served) -> None:
    expected = _goes_on(served, "Paris is the capital of", 4)
    said = client.completions.create(model="smollm2", prompt="Paris is the capital of", max_tokens=4)
    assert said.choices[0].text == expected
    assert said.usage is not None
    assert said.usage.completion_tokens == 4
    streamed = client.completions.create(
        model="smollm2", prompt="Paris is the capital of", max_tokens=4, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in streamed) == expected


def test_several_texts_are_gone_on_with(client: openai.OpenAI, served: Served) -> None:
    prompts = ["Two and two make", "The opposite of hot is"]
    said = client.completions.create(model="smollm2", prompt=prompts, max_tokens=3, n=1)
    assert [choice.index for choice in said.choices] == [0, 1]
    assert [choice.text for choice in said.choices] == [_goes_on(served, one, 3) for one in prompts]


def test_echo_gives_the_prompt_s_own_logprobs(client: openai.OpenAI, served: Served) -> None:
    prompt = "Paris is the capital of France."
    backend = served.service.backend
    ids = backend.vocabulary.encode(prompt).ids
    rows = run(backend, _rows(backend, ids)).log_softmax(-1)
    expected = [float(row[token]) for row, token in zip(rows, ids[1:], strict=False)]
    for asked in (prompt, ids):
        said = client.completions.create(
            model="smollm2", prompt=asked, max_tokens=2, echo=True, logprobs=2, temperature=0
        )
        (choice,) = said.choices
        assert choice.text.startswith(prompt)
        found = choice.logprobs
        assert found is not None
        assert found.tokens is not None
        assert found.token_logprobs is not None
        assert found.text_offset is not None
        assert len(found.tokens) == len(found.token_logprobs) == len(ids) + 2
        assert "".join(found.tokens) == choice.text
        assert found.token_logprobs[0] is None
        assert found.token_logprobs[1 : len(ids)] == pytest.approx(expected, abs=1e-3)
        assert found.text_offset[found.tokens.index(" France")] == prompt.index(" France")


def _goes_on(served: Served, prompt: str, n: int) -> str:
    """How the model itself goes on with a text, without the server's routes."""
    backend = served.service.backend
    ids = backend.vocabulary.encode(prompt).ids
    cache = backend.new_cache(RetrievalConfig())
    prefill(backend, cache, ids[:-1])
    return backend.vocabulary.decode([one.id for one in generate(backend, cache, ids[-1], n)])


def _rows(backend: Backend, ids: Sequence[int]) -> Passes[Tensor]:
    """The logits after each token of a text."""
    rows: Tensor = yield Pass(backend.new_cache(RetrievalConfig()), ids, every=True)
    return rows
