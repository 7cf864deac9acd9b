"""OpenAI's own client against the server: what it asks is answered, and what goes wrong reaches it as the
exceptions that its users catch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from served import Served

from sakuin import Context, Library
from sakuin.documents import Document

ROME: Any = [{"role": "user", "content": "What is the capital of Italy? One word."}]
STORY: Any = [{"role": "user", "content": "Write a short story about a fox."}]
ENDLESS: Any = {"logit_bias": {"0": -100, "2": -100}, "extra_body": {"end_loops": False}}
"""An answer that cannot end by itself: the tokens that end one are forbidden."""
TEXT = "The lighthouse of Kerguelen is painted green. Its keeper is called Aurelie Dupont.\n" * 30
KEEPER: Any = [{"role": "user", "content": "What is the keeper called?"}]


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.api, api_key="none", max_retries=0, timeout=120) as made:
        yield made


@pytest.fixture(scope="module")
def context(served: Served) -> str:
    """A stored one's name."""
    backend = served.service.backend
    document = Document("kerguelen.txt", TEXT)
    read = Context.from_documents(backend.model, backend.tokenizer, [document])
    Library(served.service.settings.library).save("kerguelen", read)
    return "kerguelen"


def test_a_question_is_answered(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(model="smollm2", messages=ROME, max_completion_tokens=16)
    (choice,) = said.choices
    assert "Rome" in (choice.message.content or "")
    assert (choice.finish_reason, choice.message.role) == ("stop", "assistant")
    assert said.object == "chat.completion"
    assert said.model == "smollm2"
    assert said.usage is not None
    assert said.usage.total_tokens == said.usage.prompt_tokens + said.usage.completion_tokens


def test_max_completion_tokens_is_kept(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(model="smollm2", messages=STORY, max_completion_tokens=5)
    assert said.usage is not None
    assert (said.usage.completion_tokens, said.choices[0].finish_reason) == (5, "length")
    again = client.chat.completions.create(model="smollm2", messages=STORY, max_tokens=5)
    assert again.choices[0].message.content == said.choices[0].message.content


def test_a_stream_says_what_an_answer_says(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="smollm2", messages=STORY, max_tokens=10)
    with client.chat.completions.create(
        model="smollm2", messages=STORY, max_tokens=10, stream=True
    ) as stream:
        chunks = list(stream)
    told = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(told).rstrip() == whole.choices[0].message.content
    assert sum(map(bool, told)) > 3  # as it comes
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_ends_with_its_usage_where_asked_for(client: openai.OpenAI) -> None:
    *chunks, last = client.chat.completions.create(
        model="smollm2",
        messages=ROME,
        max_tokens=6,
        stream=True,
        stream_options={"include_usage": True},
    )
    whole = client.chat.completions.create(model="smollm2", messages=ROME, max_tokens=6)
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage is not None
    assert whole.usage is not None
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert last.usage.completion_tokens == whole.usage.completion_tokens


def test_the_client_s_own_accumulator_takes_the_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="smollm2", messages=ROME, max_tokens=12) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"content.delta", "content.done", "chunk"} <= kinds
    assert "Rome" in (final.choices[0].message.content or "")


def test_several_choices_pay_the_prompt_once(client: openai.OpenAI) -> None:
    one = client.chat.completions.create(model="smollm2", messages=STORY, max_tokens=6)
    said = client.chat.completions.create(
        model="smollm2", messages=STORY, max_tokens=6, n=3, temperature=1.5, seed=3
    )
    assert [choice.index for choice in said.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in said.choices}) > 1
    assert said.usage is not None
    assert one.usage is not None
    assert said.usage.prompt_tokens == one.usage.prompt_tokens
    assert said.usage.completion_tokens <= 18


def test_several_choices_come_in_one_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="smollm2", messages=STORY, max_tokens=6, n=2, temperature=1.5, seed=3, stream=True
    ) as stream:
        told = {0: "", 1: ""}
        ended = []
        for chunk in stream:
            (choice,) = chunk.choices
            told[choice.index] += choice.delta.content or ""
            ended += [choice.index] * (choice.finish_reason is not None)
    whole = client.chat.completions.create(
        model="smollm2", messages=STORY, max_tokens=6, n=2, temperature=1.5, seed=3
    )
    assert [told[i].rstrip() for i in (0, 1)] == [one.message.content for one in whole.choices]
    assert sorted(ended) == [0, 1]


def test_a_seed_makes_chance_repeatable(client: openai.OpenAI) -> None:
    def told(seed: int) -> str | None:
        said = client.chat.completions.create(
            model="smollm2", messages=STORY, max_tokens=10, temperature=1.5, top_p=0.95, seed=seed
        )
        return said.choices[0].message.content

    assert told(1) == told(1)
    assert len({told(seed) for seed in (1, 2, 3)}) > 1


def test_logprobs_belong_to_the_tokens_that_were_said(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(
        model="smollm2", messages=STORY, max_tokens=8, logprobs=True, top_logprobs=3
    )
    logprobs = said.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 8
    assert "".join(one.token for one in logprobs.content).strip() == said.choices[0].message.content
    for one in logprobs.content:
        assert len(one.top_logprobs) == 3
        assert one.top_logprobs[0].logprob == one.logprob  # greedy: the likeliest
        assert one.top_logprobs[0].logprob >= one.top_logprobs[1].logprob >= one.top_logprobs[2].logprob
        assert 0 < sum(math.exp(other.logprob) for other in one.top_logprobs) <= 1 + 1e-6
        assert bytes(one.bytes or []).decode() == one.token


def test_a_stream_carries_the_same_logprobs(client: openai.OpenAI) -> None:
    asked: Any = {"model": "smollm2", "messages": STORY, "max_tokens": 8, "logprobs": True}
    whole = client.chat.completions.create(**asked)
    found = []
    for chunk in client.chat.completions.create(**asked, stream=True):
        logprobs = chunk.choices[0].logprobs
        found += logprobs.content or [] if logprobs is not None else []
    expected = whole.choices[0].logprobs
    assert expected is not None
    assert expected.content is not None
    assert [one.token for one in found] == [one.token for one in expected.content]
    assert [one.logprob for one in found] == pytest.approx(
        [one.logprob for one in expected.content], abs=1e-3
    )


def test_a_stop_ends_the_answer_before_it(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="smollm2", messages=STORY, max_tokens=10)
    text = whole.choices[0].message.content or ""
    stop = text.split()[4]
    said = client.chat.completions.create(
        model="smollm2", messages=STORY, max_tokens=10, stop=["nowhere", stop]
    )
    assert said.choices[0].message.content == text[: text.index(stop)].rstrip()
    assert said.choices[0].finish_reason == "stop"
    streamed = client.chat.completions.create(
        model="smollm2", messages=STORY, max_tokens=10, stop=stop, stream=True
    )
    told = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    assert told.rstrip() == said.choices[0].message.content


def test_a_bias_forbids_a_token(client: openai.OpenAI, served: Served) -> None:
    free = client.chat.completions.create(
        model="smollm2", messages=ROME, max_tokens=4, logprobs=True, top_logprobs=0
    )
    first = (free.choices[0].message.content or "").split()[0]
    ids = served.service.backend.vocabulary.encode(first).ids
    said = client.chat.completions.create(
        model="smollm2", messages=ROME, max_tokens=4, logit_bias={str(ids[0]): -100}
    )
    assert not (said.choices[0].message.content or "").startswith(first)


def test_a_conversation_goes_on(client: openai.OpenAI) -> None:
    told: Any = [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "My dog is called Biscuit. Say hello to him."},
        {"role": "assistant", "content": "Hello, Biscuit!"},
        {"role": "user", "content": [{"type": "text", "text": "What is the name of my dog?"}]},
    ]
    said = client.chat.completions.create(model="smollm2", messages=told, max_tokens=16)
    assert "Biscuit" in (said.choices[0].message.content or "")


# -- contexts ------------------------------------------------------------------------------------------------


def test_a_context_is_asked_by_name(client: openai.OpenAI, context: str) -> None:
    said = client.chat.completions.create(
        model="smollm2", messages=KEEPER, max_tokens=12, extra_body={"context": context, "evidence": True}
    )
    assert "Aurelie" in (said.choices[0].message.content or "")
    evidence = (said.model_extra or {})["evidence"]
    assert evidence
    for passage in evidence:
        assert passage["document"] == "kerguelen.txt"
        assert TEXT[passage["start"] : passage["end"]] == passage["text"]
    assert 0 <= (said.model_extra or {})["support"] <= 1
    assert (said.model_extra or {})["supported"] in (True, False)
    assert said.usage is not None
    assert said.usage.prompt_tokens_details is not None
    assert (said.usage.prompt_tokens_details.cached_tokens or 0) > 400


def test_a_context_is_a_model_to_those_who_know_only_models(client: openai.OpenAI, context: str) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["smollm2", "smollm2@kerguelen"]
    assert client.models.retrieve("smollm2@kerguelen").object == "model"
    said = client.chat.completions.create(model=names[1], messages=KEEPER, max_tokens=12)
    assert "Aurelie" in (said.choices[0].message.content or "")
    assert "evidence" not in (said.model_extra or {})


def test_a_stream_tells_its_evidence_at_its_end(client: openai.OpenAI, context: str) -> None:
    asked: Any = {"model": "smollm2", "messages": KEEPER, "max_tokens": 12}
    more = {"context": context, "evidence": True}
    whole = client.chat.completions.create(**asked, extra_body=more)
    *chunks, last = client.chat.completions.create(**asked, extra_body=more, stream=True)
    assert all("evidence" not in (chunk.model_extra or {}) for chunk in chunks)
    found, expected = last.model_extra or {}, whole.model_extra or {}
    assert last.choices[0].finish_reason is not None
    assert [one["text"] for one in found["evidence"]] == [one["text"] for one in expected["evidence"]]
    assert found["support"] == pytest.approx(expected["support"], abs=0.02)


# -- what goes wrong -----------------------------------------------------------------------------------------


def test_a_wrong_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=ROME)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "'gpt-4o'" in str(caught.value)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_an_unknown_context_is_not_found(client: openai.OpenAI) -> None:
    for name in ("nowhere", "../../etc/passwd", "a/b", ".", "x" * 300):
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="smollm2", messages=ROME, extra_body={"context": name})
        assert caught.value.code == "context_not_found"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1),
        ("top_p", 2),
        ("max_tokens", -5),
        ("max_completion_tokens", 0),
        ("n", 0),
        ("n", 10**6),
        ("top_logprobs", 5),
        ("stop", [""]),
        ("seed", 1.5),
        ("logit_bias", {"cat": 1}),
        ("logit_bias", {"99999999": 1}),
        ("messages", []),
        ("messages", "hello"),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("store", True),
        ("modalities", ["audio"]),
        ("web_search_options", {}),
    ],
)
def test_what_is_wrong_is_named(client: openai.OpenAI, field: str, value: Any) -> None:
    asked: Any = {"model": "smollm2", "messages": ROME, "extra_body": {field: value}}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**asked)
    said = caught.value.body
    assert isinstance(said, dict)
    assert said["type"] == "invalid_request_error"
    assert field in (caught.value.param or said["message"])


def test_a_prompt_over_the_window_says_by_how_much(client: openai.OpenAI, served: Served) -> None:
    window = served.service.backend.shape.window
    for text, about in (("word " * (window + 100), False), ("word " * (100 * window), True)):
        long: Any = [{"role": "user", "content": text}]
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as caught:
                client.chat.completions.create(model="smollm2", messages=long, stream=stream)
            assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
            body = caught.value.body
            assert isinstance(body, dict)
            assert body["n_ctx"] == window
            assert body["n_prompt_tokens"] > window
            assert f"{window:,}" in body["message"]
            assert ("about" in body["message"]) == about


# -- asynchronous, and breaking off --------------------------------------------------------------------------


async def _several(api: str) -> list[str | None]:
    import asyncio

    async with openai.AsyncOpenAI(base_url=api, api_key="none", max_retries=0, timeout=120) as client:
        made = await asyncio.gather(
            *(client.chat.completions.create(model="smollm2", messages=ROME, max_tokens=8) for _ in range(4))
        )
        stream = await client.chat.completions.create(
            model="smollm2", messages=ROME, max_tokens=8, stream=True
        )
        told = [chunk.choices[0].delta.content or "" async for chunk in stream]
    return ["".join(told).rstrip(), *(one.choices[0].message.content for one in made)]


def test_the_asynchronous_client(served: Served) -> None:
    import asyncio

    found = asyncio.run(_several(served.api))
    assert len(found) == 5
    assert all("Rome" in (one or "") for one in found)


def test_who_breaks_off_a_stream_leaves_at_once(client: openai.OpenAI, served: Served) -> None:
    served.idles()
    stream = client.chat.completions.create(
        model="smollm2", messages=STORY, max_tokens=4000, stream=True, **ENDLESS
    )
    for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    assert served.service.scheduler.counts() == (1, 0)
    turns = served.service.scheduler.turns
    stream.close()
    served.idles()
    assert served.service.scheduler.turns - turns < 400  # of 4,000


def test_who_goes_before_an_answer_leaves_at_once(served: Served) -> None:
    served.idles()
    turns = served.service.scheduler.turns
    with (
        openai.OpenAI(base_url=served.api, api_key="none", max_retries=0, timeout=1) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        client.chat.completions.create(model="smollm2", messages=STORY, max_tokens=4000, n=2, **ENDLESS)
    served.idles()
    assert served.service.scheduler.turns - turns < 1000
