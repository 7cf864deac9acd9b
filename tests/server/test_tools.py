"""Tools: what a model is told, how calls and results become text, and how what it says is read back."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from sakuin.server.constraints.speech import Arguments, Begun, Said, ToolSpeech
from sakuin.server.constraints.tools import called, plain, told, told_format
from sakuin.server.problems import Problem
from sakuin.server.schemas.tools import (
    CalledFunction,
    FunctionTool,
    JsonSchemaFormat,
    NamedTool,
    ResponseFormat,
    ResponsesFormat,
    ResponsesTool,
    ResponsesToolChoice,
    Tool,
    ToolCall,
    ToolChoice,
)

WEATHER = FunctionTool(
    name="get_weather",
    description="The weather of a city — now",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
NOW = FunctionTool(name="now")
NAMES = ("get_weather", "now")


def call(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


OSLO, TIME = call("get_weather", '{"city": "Oslo"}'), call("now", "{}")


def cut(text: str, seed: int) -> list[str]:
    """A text in pieces of 1 to 7 characters."""
    chosen, at, pieces = random.Random(seed), 0, []
    while at < len(text):
        n = chosen.randint(1, 7)
        pieces.append(text[at : at + n])
        at += n
    return pieces


def heard(text: str, *, held: bool, seed: int | None = None) -> tuple[str, list[tuple[str, str]], list[Any]]:
    """Text, calls and events of an answer."""
    speech = ToolSpeech(NAMES, held=held)
    events: list[Any] = []
    for piece in [text] if seed is None else cut(text, seed):
        events += speech.add(piece)
    events += speech.end()
    assert "".join(event.text for event in events if isinstance(event, Said)) == speech.text
    calls = [(each.function.name, each.function.arguments) for each in speech.calls]
    return speech.text, calls, events


# -- what a model says ---------------------------------------------------------------------------------------

WHOLE = [
    ("hello", "hello", []),
    ("", "", []),
    (OSLO, "", [("get_weather", '{"city": "Oslo"}')]),
    (f"{OSLO}\n{TIME}", "", [("get_weather", '{"city": "Oslo"}'), ("now", "{}")]),
    (f"{TIME}\n", "", [("now", "{}")]),
    (f"Let me look.\n{TIME}", "Let me look.\n", [("now", "{}")]),
    (f"a <tool < b {TIME} c", "a <tool < b  c", [("now", "{}")]),
    (f"{TIME} and {TIME}", " and ", [("now", "{}"), ("now", "{}")]),
    ("1 < 2 <tool_cal", "1 < 2 <tool_cal", []),
    (
        call("get_weather", '{"city": "</tool_call> }\\" 東京 🎉"}'),
        "",
        [("get_weather", '{"city": "</tool_call> }\\" 東京 🎉"}')],
    ),
    (call("now", '{"a": [{"b": {}}, "]}"]}'), "", [("now", '{"a": [{"b": {}}, "]}"]}')]),
]


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("seed", [None, *range(12)])
@pytest.mark.parametrize(("text", "shown", "calls"), WHOLE)
def test_text_and_calls_are_parted_however_the_pieces_are_cut(
    text: str, shown: str, calls: list[tuple[str, str]], seed: int | None, held: bool
) -> None:
    found = heard(text, held=held, seed=seed)
    assert found[:2] == (shown, calls)


BROKEN = [
    "<tool_call>\nI would call now()",
    "<tool_call>\n{\"name\": 'now'}\n</tool_call>",
    call("nobody", "{}"),
    call("now", "[1]"),
    call("now", '{"a": NaN,}'),
    '<tool_call>\n{"name": "now", "arguments": {}, "more": 1}\n</tool_call>',
    '<tool_call>\n{"arguments": {}}\n</tool_call>',
    '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_calls>',
    '<tool_call>\n{"name": "now", "arguments": {',
    "<tool_call>",
    f"<tool_call><tool_call>{'[' * 3000}",
    '<tool_call>{"name": "now", "arguments": ' + "[" * 100_000 + "]" * 100_000 + "}</tool_call>",
]


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_call_that_nothing_held_to_a_form_is_text(text: str, seed: int | None) -> None:
    assert heard(f"So: {text}", held=False, seed=seed)[:2] == (f"So: {text}", [])


@pytest.mark.parametrize("seed", range(6))
def test_a_call_behind_a_broken_one_is_heard(seed: int) -> None:
    text, calls, _ = heard(f"<tool_call>oops {OSLO}", held=False, seed=seed)
    assert (text, calls) == ("<tool_call>oops ", [("get_weather", '{"city": "Oslo"}')])
    assert heard(f"<tool_call>{TIME}", held=False, seed=seed)[:2] == ("<tool_call>", [("now", "{}")])


def test_deltas_have_the_form_of_openai() -> None:
    _, _, events = heard(f"Well. {OSLO}\n{TIME}", held=True, seed=3)
    deltas = [event.delta() for event in events]
    texts = [delta["content"] for delta in deltas if "content" in delta]
    assert "".join(texts) == "Well. "
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    first = [each for each in calls if "id" in each]
    assert [(each["index"], each["type"], each["function"]["name"]) for each in first] == [
        (0, "function", "get_weather"),
        (1, "function", "now"),
    ]
    assert all(each["function"]["arguments"] == "" for each in first)
    assert len({each["id"] for each in first}) == 2
    pieces = [each for each in calls if "id" not in each]
    assert all(each.keys() == {"index", "function"} for each in pieces)
    of_first = [each["function"]["arguments"] for each in pieces if each["index"] == 0]
    assert "".join(of_first) == '{"city": "Oslo"}'
    assert len(of_first) > 1  # handed on as they come


def test_the_name_comes_before_arguments_and_nothing_after_a_cut_is_made_up() -> None:
    speech = ToolSpeech(NAMES, held=True)
    assert speech.add('<tool_call>\n{"name": "get_we') == []
    events = speech.add('ather", "arguments": {"ci')
    assert [type(event) for event in events] == [Begun, Arguments]
    assert speech.end() == []
    assert [call.function.arguments for call in speech.calls] == ['{"ci']
    assert speech.text == ""


def test_a_cut_before_the_name_leaves_no_call() -> None:
    speech = ToolSpeech(NAMES, held=True)
    assert speech.add('<tool_call>\n{"na') == []
    assert speech.end() == [Said('<tool_call>\n{"na')]
    assert speech.calls == []


def test_long_answers_take_a_time_that_grows_with_their_length() -> None:
    """Each piece is read once: a million characters are seconds at most, not hours."""
    for text in ("<tool_call>{" * 80_000, "<tool_call>" * 90_000, "<" * 1_000_000, "{" + OSLO * 12_000):
        speech = ToolSpeech(NAMES, held=False)
        for at in range(0, len(text), 64):
            speech.add(text[at : at + 64])
        speech.end()
        n = sum(len(each.function.arguments) + len(call("get_weather", "")) for each in speech.calls)
        assert len(speech.text) + n == len(text)


# -- what a model is told ------------------------------------------------------------------------------------


def test_a_model_is_told_its_tools_and_what_is_asked_of_it() -> None:
    auto = told([WEATHER, NOW])
    lines = auto.partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["get_weather", "now"]
    assert json.loads(lines[0])["parameters"] == WEATHER.parameters
    assert "—" in lines[0]
    named = told([WEATHER, NOW], NamedTool(type="function", function={"name": "now"}))
    assert "get_weather" not in named
    assert "Call now now." in named
    assert told([WEATHER], "required") != told([WEATHER], "required", parallel=False) != auto
    assert told([WEATHER], "none") == told([]) == ""


def test_a_model_is_told_the_form_of_its_answer() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = JsonSchemaFormat(type="json_schema", json_schema={"name": "thing", "schema": schema})
    assert told_format(form).endswith(json.dumps(schema))
    assert "JSON object" in told_format(TypeAdapter(ResponseFormat).validate_python({"type": "json_object"}))
    assert (
        told_format(None) == told_format(TypeAdapter(ResponseFormat).validate_python({"type": "text"})) == ""
    )


def calls(*named: tuple[str, str, str]) -> list[ToolCall]:
    return [
        ToolCall(id=each, function=CalledFunction(name=name, arguments=said)) for each, name, said in named
    ]


def test_calls_become_the_text_that_the_model_wrote() -> None:
    made = calls(("1", "get_weather", '{"city": "Oslo"}'), ("2", "now", "{}"))
    for before in ("", "Let me look.\n"):
        text = called(before, made)
        assert text == before + f"{OSLO}\n{TIME}"
        speech = ToolSpeech(NAMES, held=True)
        speech.add(text)
        assert called(speech.text, speech.calls) == text


def test_results_come_back_in_the_order_of_the_calls() -> None:
    made = calls(("1", "get_weather", '{"city": "Oslo"}'), ("2", "now", "{}"))
    found = plain(
        [
            {"role": "user", "content": "How is it?"},
            {"role": "assistant", "content": None, "tool_calls": made},
            {"role": "tool", "tool_call_id": "2", "content": "noon"},
            {"role": "tool", "tool_call_id": "1", "content": "rain"},
            {"role": "assistant", "content": "It rains."},
            {"role": "user", "content": "And now?"},
        ]
    )
    assert [each["role"] for each in found] == ["user", "assistant", "user", "assistant", "user"]
    assert found[1]["content"] == f"{OSLO}\n{TIME}"
    assert found[2]["content"] == (
        "<tool_response>\nrain\n</tool_response>\n<tool_response>\nnoon\n</tool_response>"
    )


@pytest.mark.parametrize("ids", [["3"], ["1", "1"], [None]], ids=["of no call", "twice", "without an id"])
def test_a_result_of_no_call_is_refused(ids: list[str | None]) -> None:
    made = calls(("1", "now", "{}"))
    messages: list[dict[str, Any]] = [{"role": "assistant", "content": None, "tool_calls": made}]
    messages += [{"role": "tool", "tool_call_id": each, "content": "x"} for each in ids]
    with pytest.raises(Problem, match=r"tool_call_id must be the id of a call") as caught:
        plain(messages)
    assert caught.value.param == f"messages.{len(ids)}.tool_call_id"
    with pytest.raises(Problem, match="tool_call_id"):  # the calls of an earlier turn are over
        plain([messages[0], {"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "1"}])


# -- requests ------------------------------------------------------------------------------------------------


def test_both_apis_say_the_same() -> None:
    flat = ResponsesTool(type="function", **WEATHER.model_dump())
    assert flat.plain() == Tool(type="function", function=WEATHER)
    choice = TypeAdapter(ResponsesToolChoice).validate_python({"type": "function", "name": "now"})
    assert choice.plain() == TypeAdapter(ToolChoice).validate_python(
        {"type": "function", "function": {"name": "now"}}
    )
    schema = {"type": "object"}
    form = {"type": "json_schema", "name": "x", "schema": schema, "strict": True}
    found = TypeAdapter(ResponsesFormat).validate_python(form).plain()
    inner = {"name": "x", "schema": schema, "strict": True}
    assert found == TypeAdapter(ResponseFormat).validate_python({"type": "json_schema", "json_schema": inner})
    assert found.json_schema.schema_ == schema


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Tool, {"type": "web_search"}),
        (Tool, {"type": "function", "function": {"name": "a b"}}),
        (Tool, {"type": "function", "function": {"name": "a" * 65}}),
        (Tool, {"type": "function", "function": {"name": "a\n"}}),
        (Tool, {"type": "function", "function": {"name": "a", "parameters": []}}),
        (Tool, {"type": "function", "function": {"name": "a", "extra": 1}}),
        (ToolChoice, "any"),
        (ToolChoice, {"type": "allowed_tools", "mode": "auto", "tools": []}),
        (ResponseFormat, {"type": "xml"}),
        (ResponseFormat, {"type": "json_schema"}),
        (ResponseFormat, {"type": "json_object", "schema": {}}),
        (ResponseFormat, {"type": "json_schema", "json_schema": {"name": "x y"}}),
    ],
)
def test_what_is_not_there_is_refused(kind: Any, said: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(said)
