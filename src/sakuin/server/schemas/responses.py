"""`/v1/responses`, without state: what is asked and answered is kept by the client."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sakuin.server.problems import Problem
from sakuin.server.schemas.chat import MOST_MESSAGES, ChatRequest, TextPart
from sakuin.server.schemas.common import Metadata
from sakuin.server.schemas.tools import ResponsesFormat, ResponsesToolChoice, ResponsesTools


class _Item(BaseModel):
    model_config = ConfigDict(extra="forbid")


class OutputPart(_Item):
    """A part of an answer that is sent back."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class MessageItem(_Item):
    """A message."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart | OutputPart]
    id: str | None = Field(None, max_length=256)
    status: Literal["in_progress", "completed", "incomplete", None] = None
    phase: str | None = None


class CallItem(_Item):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: Annotated[str, Field(min_length=1, max_length=128)]
    name: Annotated[str, Field(min_length=1, max_length=64)]
    arguments: Annotated[str, Field(max_length=1_000_000)]
    id: str | None = Field(None, max_length=256)
    status: Literal["in_progress", "completed", "incomplete", None] = None


class ResultItem(_Item):
    """What a call gave."""

    type: Literal["function_call_output"]
    call_id: Annotated[str, Field(min_length=1, max_length=128)]
    output: str
    id: str | None = Field(None, max_length=256)
    status: Literal["in_progress", "completed", "incomplete", None] = None


Item = MessageItem | CallItem | ResultItem


class TextSettings(_Item):
    """format : of the answer."""

    format: ResponsesFormat | None = None
    verbosity: Literal["medium", None] = None


class Reasoning(_Item):
    """No model here reasons apart from its answer."""

    effort: Literal["none", None] = None
    summary: None = None


class ResponseRequest(BaseModel):
    """What is to be answered. context, evidence, footnotes, refuse_unsupported : as in chat completions."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: str = Field(max_length=512)
    input: str | Annotated[list[Item], Field(min_length=1, max_length=MOST_MESSAGES)]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    stream: bool | None = None
    text: TextSettings | None = None
    tools: ResponsesTools | None = None
    tool_choice: ResponsesToolChoice | None = None
    parallel_tool_calls: bool | None = None
    context: str | None = Field(None, max_length=512)
    evidence: bool = False
    footnotes: bool = False
    refuse_unsupported: bool = False
    # Of OpenAI's interface; none of them changes an answer, or only these values are there.
    store: Literal[False, None] = None
    previous_response_id: None = None
    conversation: None = None
    background: Literal[False, None] = None
    include: Annotated[list[Any], Field(max_length=0)] | None = None
    truncation: Literal["disabled", None] = None
    reasoning: Reasoning | None = None
    service_tier: Literal["auto", "default", None] = None
    stream_options: None = None
    metadata: Metadata | None = None
    user: str | None = Field(None, max_length=512)
    safety_identifier: str | None = Field(None, max_length=512)
    prompt_cache_key: str | None = Field(None, max_length=512)

    def chat(self) -> ChatRequest:
        """The same as a chat. Raises `Problem` where it is none."""
        messages = [{"role": "system", "content": self.instructions}] if self.instructions else []
        items = [_asked(self.input)] if isinstance(self.input, str) else self.input
        for item in items:
            _add(messages, item)
        given: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "max_completion_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "tools": [tool.plain() for tool in self.tools] if self.tools else None,
            "parallel_tool_calls": self.parallel_tool_calls,
            "context": self.context,
            "evidence": self.evidence,
            "footnotes": self.footnotes,
            "refuse_unsupported": self.refuse_unsupported,
            "user": self.user,
        }
        choice = self.tool_choice
        given["tool_choice"] = choice if choice is None or isinstance(choice, str) else choice.plain()
        form = self.text.format if self.text is not None else None
        given["response_format"] = form.plain() if form is not None and hasattr(form, "plain") else form
        try:
            return ChatRequest(**given)
        except ValidationError as error:
            raise Problem(400, f"input: {error.errors()[0]['msg']}.", "input") from None


def _asked(text: str) -> MessageItem:
    return MessageItem(type="message", role="user", content=text, id=None)


def _add(messages: list[dict[str, Any]], item: Item) -> None:
    if isinstance(item, MessageItem):
        content = item.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        messages.append({"role": item.role, "content": text})
    elif isinstance(item, CallItem):
        function = {"name": item.name, "arguments": item.arguments}
        call = {"id": item.call_id, "type": "function", "function": function}
        if messages and messages[-1]["role"] == "assistant":
            messages[-1].setdefault("tool_calls", []).append(call)
        else:
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
    else:
        messages.append({"role": "tool", "content": item.output, "tool_call_id": item.call_id})


class Response(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="allow")
    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete", "in_progress", "failed"]
    model: str
    output: list[dict[str, Any]]
