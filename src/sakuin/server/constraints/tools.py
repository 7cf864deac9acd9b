"""How tools are told to a model, and calls and their results as text.

A model is told its tools and forms of answers in words, in its system prompt; it writes a call as
`<tool_call>` with JSON within, as Hermes and Qwen models are taught, and reads results in `<tool_response>`.
What a model says is read back in `sakuin.server.constraints.speech`. Called by the routes of chats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sakuin.server.constraints.grammars import CALL, CALL_END
from sakuin.server.problems import Problem
from sakuin.server.schemas.tools import (
    FunctionTool,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedTool,
    TextFormat,
    ToolCall,
    ToolChoice,
)

RESULT, RESULT_END = "<tool_response>", "</tool_response>"


def told(tools: Sequence[FunctionTool], choice: ToolChoice = "auto", *, parallel: bool = True) -> str:
    """What a model is told of its tools; "" where it has none or may not call."""
    if not tools or choice == "none":
        return ""
    named = choice.function.name if isinstance(choice, NamedTool) else None
    lines = "\n".join(_line(tool) for tool in tools if named in (None, tool.name))
    if named is not None:
        when = f"Call {named} now."
    elif choice == "required":
        when = "Call now, and say nothing else." if parallel else "Make one call now, and say nothing else."
    else:
        when = "Where no call is needed, answer in words."
    several = " Several calls follow one another." if parallel and named is None else ""
    return (
        f"You can call functions. Each line describes one:\n<tools>\n{lines}\n</tools>\n"
        "A call is written like this, with the function's name, and arguments that fit its parameters:\n"
        f'{CALL}\n{{"name": "…", "arguments": {{…}}}}\n{CALL_END}\n'
        f"The result comes back in {RESULT}.{several} {when}"
    )


def told_format(form: TextFormat | JsonObjectFormat | JsonSchemaFormat | None) -> str:
    """What a model is told of the form of its answer; "" where that is free."""
    if isinstance(form, JsonObjectFormat):
        return "Answer with one JSON object, and nothing around it."
    if not isinstance(form, JsonSchemaFormat):
        return ""
    asked = form.json_schema
    about = f" {asked.description}" if asked.description else ""
    return (
        f"Answer with JSON ({asked.name}), and nothing around it.{about} It must fit this schema:\n"
        f"{json.dumps(asked.schema_, ensure_ascii=False)}"
    )


def called(content: str | None, calls: Sequence[ToolCall]) -> str:
    """An assistant's message with calls, as the model wrote it."""
    text = content or ""
    gap = "\n" if text and not text[-1].isspace() else ""
    said = [(call.function.name, call.function.arguments.strip()) for call in calls]
    written = (f'{CALL}\n{{"name": "{name}", "arguments": {given}}}\n{CALL_END}' for name, given in said)
    return text + gap + "\n".join(written)


def plain(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Messages of a chat as templates take them: of system, user and assistant, all text.

    messages : `role`, `content` (text or None), of an assistant `tool_calls` (of `ToolCall`), of a tool
        `tool_call_id`. Results of a turn's calls become one message of the user, in the order of the calls.
    Raises `Problem` where a result is of no call before it.
    """
    found: list[dict[str, str]] = []
    order: list[str] = []
    results: dict[str, str] = {}

    def answered() -> None:
        if results:
            texts = (f"{RESULT}\n{results[call]}\n{RESULT_END}" for call in order if call in results)
            found.append({"role": "user", "content": "\n".join(texts)})
            results.clear()

    for i, message in enumerate(messages):
        if message["role"] == "tool":
            call = str(message.get("tool_call_id"))
            if call not in order or call in results:
                raise Problem(
                    400,
                    f"messages.{i}.tool_call_id must be the id of a call of the assistant's message before "
                    f"it, each once, got {call[:128]!r}.",
                    f"messages.{i}.tool_call_id",
                )
            results[call] = message.get("content") or ""
            continue
        answered()
        calls = message.get("tool_calls") or []
        order = [call.id for call in calls]
        text = called(message.get("content"), calls) if calls else message.get("content") or ""
        found.append({"role": message["role"], "content": text})
    answered()
    return found


def _line(tool: FunctionTool) -> str:
    """A tool as a line of JSON."""
    said = {"name": tool.name, "description": tool.description, "parameters": tool.parameters or {}}
    return json.dumps({k: v for k, v in said.items() if v is not None}, ensure_ascii=False)
