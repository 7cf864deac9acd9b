"""Calls of tools that answers are held to."""

from __future__ import annotations

import json

import pytest
from held import fits, said

from sakuin.backends.base import Backend
from sakuin.server.constraints.grammars import Grammars
from sakuin.server.problems import Problem
from sakuin.server.schemas.tools import FunctionTool, NamedTool, ToolChoice

TOOLS = [
    FunctionTool(
        name="get_weather",
        parameters={
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/c"}},
            "required": ["city"],
            "additionalProperties": False,
            "$defs": {"c": {"enum": ["Oslo", "東京"]}},
        },
    ),
    FunctionTool(name="now"),
]
OSLO = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
BAD = OSLO.replace("Oslo", "Rome")
THE_NOW = NamedTool(type="function", function={"name": "now"})


@pytest.mark.parametrize(
    ("choice", "parallel", "good", "wrong"),
    [
        (
            "auto",
            True,
            ["", "hi", OSLO, f"Look: {OSLO}\n{NOW} ok", "a < b <tool"],
            [BAD, f"So {BAD}", OSLO[:-3]],
        ),
        ("auto", False, ["hi", OSLO, f"Look: {NOW}"], [BAD, f"{OSLO}\n{NOW}"]),
        ("required", True, [OSLO, f"{OSLO}\n{NOW}"], ["", "hi", BAD, f"So {OSLO}", f"{OSLO} bye"]),
        ("required", False, [OSLO, NOW], ["hi", f"{OSLO}\n{NOW}"]),
        (THE_NOW, True, [NOW], ["hi", OSLO, f"{NOW}\n{NOW}"]),
    ],
)
def test_calls_are_held_to_their_tools(
    backend: Backend,
    grammars: Grammars,
    choice: ToolChoice,
    parallel: bool,
    good: list[str],
    wrong: list[str],
) -> None:
    grammar = grammars.of_tools(TOOLS, choice, parallel=parallel)
    for text in good:
        assert fits(backend, grammar, text), text
    for text in wrong:
        assert not fits(backend, grammar, text), text


def test_calls_of_one_answer_are_bounded(backend: Backend, grammars: Grammars) -> None:
    grammar = grammars.of_tools(TOOLS, "required")
    assert fits(backend, grammar, "\n".join([NOW] * 16))
    assert not fits(backend, grammar, "\n".join([NOW] * 17))


def test_no_grammar_where_nothing_is_asked(grammars: Grammars) -> None:
    assert grammars.of_tools(TOOLS, "none") is None
    assert grammars.of_tools([], "auto") is None


def test_a_choice_that_cannot_be_is_refused(grammars: Grammars) -> None:
    other = NamedTool(type="function", function={"name": "other"})
    with pytest.raises(Problem, match=r"names other, which is none of the tools \(get_weather, now\)"):
        grammars.of_tools(TOOLS, other)
    with pytest.raises(Problem, match="there are no tools"):
        grammars.of_tools([], "required")
    with pytest.raises(Problem, match="must be the schema of an object") as caught:
        grammars.of_tools([FunctionTool(name="a", parameters={"type": "string"})])
    assert caught.value.param == "tools.0.function.parameters"
    with pytest.raises(Problem, match="uniqueItems") as caught:
        grammars.of_tools([TOOLS[1], FunctionTool(name="a", parameters={"uniqueItems": True})])
    assert caught.value.param == "tools.1.function.parameters"


def test_a_small_model_calls_the_tool(backend: Backend, grammars: Grammars) -> None:
    grammar = grammars.of_tools(TOOLS, "required", parallel=False)
    assert grammar is not None
    text, is_over = said(backend, grammar, "How is the weather in Oslo?")
    assert is_over
    body = json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    assert body["name"] in ("get_weather", "now")
