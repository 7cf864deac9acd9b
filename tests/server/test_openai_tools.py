"""OpenAI's own client: tools, forms of answers and the Responses API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel
from served import Served

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 20},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
CLOCK: Any = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time of day in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
NAMED: Any = {"type": "function", "function": {"name": "get_time"}}
ASKED: Any = [{"role": "user", "content": "What is the weather in Paris, in celsius?"}]
HELLO: Any = [{"role": "user", "content": "Say hello."}]


class Person(BaseModel):
    """What is to be found in a text."""

    name: str
    kind: Literal["dog", "cat"]
    years: int


BISCUIT: Any = [{"role": "user", "content": "Biscuit is a dog and is 7 years old. Who is it?"}]


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.api, api_key="none", max_retries=0, timeout=180) as made:
        yield made


def checked(call: Any) -> str:
    """A call's name; its arguments are those of the tool."""
    assert call.type == "function"
    assert call.id
    arguments = json.loads(call.function.arguments)
    assert isinstance(arguments["city"], str)
    if call.function.name == "get_weather":
        assert arguments["unit"] in ("celsius", "fahrenheit")
        assert len(arguments) == 2
    else:
        assert list(arguments) == ["city"]
    return str(call.function.name)


# -- tools ---------------------------------------------------------------------------------------------------


def test_a_tool_that_must_be_called_is_called(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(
        model="smollm2",
        messages=ASKED,
        tools=[WEATHER, CLOCK],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=80,
    )
    (choice,) = said.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls or []
    assert checked(call) in ("get_weather", "get_time")


def test_the_tool_that_is_named_is_called(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(
        model="smollm2", messages=ASKED, tools=[WEATHER, CLOCK], tool_choice=NAMED, max_tokens=80
    )
    (call,) = said.choices[0].message.tool_calls or []
    assert checked(call) == "get_time"
    # OpenAI's own says "stop" where a tool was named, others "tool_calls"; clients take both.
    assert said.choices[0].finish_reason in ("stop", "tool_calls")


def test_where_no_tool_may_be_called_none_is(client: openai.OpenAI) -> None:
    for choice in ("none", "auto"):
        said = client.chat.completions.create(
            model="smollm2", messages=HELLO, tools=[WEATHER], tool_choice=choice, max_tokens=12
        )
        if choice == "none":
            assert not said.choices[0].message.tool_calls
            assert said.choices[0].message.content
        else:  # as the model likes: words, or a right call, or one that was cut by max_tokens
            calls = said.choices[0].message.tool_calls or []
            assert said.choices[0].message.content or calls or said.choices[0].finish_reason == "length"


def test_several_calls_follow_one_another(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": "Weather in Paris and time in Tokyo? Make two calls."}],
        tools=[WEATHER, CLOCK],
        tool_choice="required",
        parallel_tool_calls=True,
        max_tokens=120,
    )
    calls = said.choices[0].message.tool_calls or []
    whole = calls if said.choices[0].finish_reason == "tool_calls" else calls[:-1]
    assert [checked(call) for call in whole]
    assert len({call.id for call in calls}) == len(calls)


def test_a_call_comes_in_pieces(client: openai.OpenAI) -> None:
    asked: Any = {"model": "smollm2", "messages": ASKED, "tools": [WEATHER], "max_tokens": 80}
    asked |= {"tool_choice": "required", "parallel_tool_calls": False}
    (expected,) = client.chat.completions.create(**asked).choices[0].message.tool_calls or []
    named: list[str] = []
    pieces: list[str] = []
    finish: list[str] = []
    for chunk in client.chat.completions.create(**asked, stream=True):
        (choice,) = chunk.choices
        assert not choice.delta.content
        finish += [choice.finish_reason] if choice.finish_reason else []
        for call in choice.delta.tool_calls or []:
            assert call.index == 0
            assert call.function is not None
            if call.id:
                named.append(call.function.name or "")
            pieces.append(call.function.arguments or "")
    assert named == ["get_weather"]
    assert "".join(pieces) == expected.function.arguments
    assert sum(map(bool, pieces)) > 3
    assert finish == ["tool_calls"]


def test_a_result_is_answered_in_words(client: openai.OpenAI) -> None:
    call = {"name": "get_weather", "arguments": '{"city": "Paris", "unit": "celsius"}'}
    told: Any = [
        *ASKED,
        {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", "function": call}]},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"degrees": 21, "sky": "clear"}'},
    ]
    said = client.chat.completions.create(
        model="smollm2", messages=told, tools=[WEATHER], tool_choice="none", max_tokens=24
    )
    assert said.choices[0].message.content
    told[-1]["tool_call_id"] = "call_2"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="smollm2", messages=told, tools=[WEATHER])
    assert caught.value.param == "messages.2.tool_call_id"


def test_pydantic_s_tools_come_back_parsed(client: openai.OpenAI) -> None:
    said = client.chat.completions.parse(
        model="smollm2",
        messages=BISCUIT,
        tools=[openai.pydantic_function_tool(Person)],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=80,
    )
    (call,) = said.choices[0].message.tool_calls or []
    found = call.function.parsed_arguments
    assert isinstance(found, Person)
    assert found.kind == "dog"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),  # without tools
        ({"tools": [WEATHER], "tool_choice": NAMED}, "tool_choice"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"type": "object", "$ref": "http://a.b/c"}},
                }
            },
            "response_format",
        ),
    ],
)
def test_what_is_wrong_with_tools_is_named(client: openai.OpenAI, more: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="smollm2", messages=HELLO, extra_body=more)
    assert (caught.value.param or "").startswith(param), caught.value.body


# -- forms ---------------------------------------------------------------------------------------------------


def test_an_answer_is_parsed_by_pydantic(client: openai.OpenAI) -> None:
    said = client.chat.completions.parse(
        model="smollm2", messages=BISCUIT, response_format=Person, max_tokens=60
    )
    found = said.choices[0].message.parsed
    assert isinstance(found, Person)
    assert (found.kind, found.years) == ("dog", 7)
    assert said.choices[0].finish_reason == "stop"


def test_a_stream_is_parsed_by_pydantic(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="smollm2", messages=BISCUIT, response_format=Person, max_tokens=60
    ) as stream:
        found = stream.get_final_completion().choices[0].message.parsed
    assert isinstance(found, Person)


def test_an_answer_is_an_object_of_json(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": 'Give {"color": "red"} back as JSON.'}],
        response_format={"type": "json_object"},
        max_tokens=60,
    )
    if said.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(said.choices[0].message.content or ""), dict)
    else:
        assert (said.choices[0].message.content or "").lstrip().startswith("{")


# -- responses -----------------------------------------------------------------------------------------------

FLAT: Any = {"type": "function", **WEATHER["function"], "strict": True}


def test_a_response(client: openai.OpenAI) -> None:
    said = client.responses.create(
        model="smollm2", input="What is the capital of Italy? One word.", max_output_tokens=16
    )
    assert "Rome" in said.output_text
    assert said.status == "completed"
    assert said.error is None
    assert said.usage is not None
    assert said.usage.total_tokens == said.usage.input_tokens + said.usage.output_tokens


def test_a_response_that_is_cut_says_so(client: openai.OpenAI) -> None:
    said = client.responses.create(
        model="smollm2",
        instructions="You are a poet.",
        input=[
            {"role": "user", "content": "My dog is called Biscuit."},
            {"role": "assistant", "content": "What a name!"},
            {"role": "user", "content": [{"type": "input_text", "text": "A poem about him, please."}]},
        ],
        max_output_tokens=5,
    )
    assert said.status == "incomplete"
    assert said.incomplete_details is not None
    assert said.incomplete_details.reason == "max_output_tokens"


def test_a_response_comes_as_events(client: openai.OpenAI) -> None:
    asked: Any = {"model": "smollm2", "input": "What is the capital of Italy? One word."}
    asked["max_output_tokens"] = 16
    whole = client.responses.create(**asked)
    events = list(client.responses.create(**asked, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    for kind in ("output_item.added", "content_part.added", "output_text.done", "output_item.done"):
        assert kinds.count(f"response.{kind}") == 1
    assert [event.sequence_number for event in events] == list(range(len(events)))
    told = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert told.rstrip() == whole.output_text.rstrip()
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text.rstrip() == whole.output_text.rstrip()
    assert last.response.usage is not None


def test_the_client_s_own_accumulator_takes_a_response(client: openai.OpenAI) -> None:
    with client.responses.stream(
        model="smollm2", input=BISCUIT[0]["content"], text_format=Person, max_output_tokens=60
    ) as stream:
        kinds = {event.type for event in stream}
        found = stream.get_final_response().output_parsed
    assert "response.output_text.delta" in kinds
    assert isinstance(found, Person)
    assert found.years == 7


def test_a_response_calls_a_tool_and_is_told_its_result(client: openai.OpenAI) -> None:
    asked: Any = {"model": "smollm2", "input": ASKED, "tools": [FLAT], "max_output_tokens": 80}
    said = client.responses.create(**asked, tool_choice="required", parallel_tool_calls=False)
    (call,) = said.output
    assert call.type == "function_call"
    assert json.loads(call.arguments)["unit"] in ("celsius", "fahrenheit")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": '{"degrees": 21}'}
    asked |= {"input": [*ASKED, call.model_dump(exclude_none=True), result], "max_output_tokens": 16}
    assert client.responses.create(**asked, tool_choice="none").output_text
    streamed = client.responses.create(
        model="smollm2",
        input=ASKED,
        tools=[FLAT],
        tool_choice="required",
        parallel_tool_calls=False,
        max_output_tokens=80,
        stream=True,
    )
    pieces = [event.delta for event in streamed if event.type == "response.function_call_arguments.delta"]
    assert "".join(pieces) == call.arguments


def test_what_a_response_cannot_be_is_named(client: openai.OpenAI) -> None:
    for more in (
        {"previous_response_id": "resp_1"},
        {"store": True},
        {"background": True},
        {"reasoning": {"effort": "high"}},
        {"include": ["message.output_text.logprobs"]},
        {"truncation": "auto"},
        {"max_output_tokens": -1},
        {"input": []},
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(**{"model": "smollm2", "input": "Hello", **more})  # type: ignore[call-overload]
        assert (caught.value.param or "").startswith(next(iter(more))), caught.value.body
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="gpt-5", input="Hello")
