"""`/v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sakuin.server.problems import Disagrees
from sakuin.server.schemas.common import MOST_LOGPROBS, Metadata, Sampled, Usage
from sakuin.server.schemas.tools import MAX_TOOLS, ResponseFormat, ToolCall, ToolChoice, Tools

MOST_MESSAGES = 4096


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["text", "input_text", "output_text"]
    text: str


class Message(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = Field(None, max_length=256)
    tool_calls: list[ToolCall] | None = Field(None, max_length=MAX_TOOLS)
    tool_call_id: str | None = Field(None, max_length=256)
    refusal: str | None = None
    reasoning_content: str | None = None

    @property
    def text(self) -> str:
        """What it says."""
        if self.content is None:
            return self.refusal or ""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.content is None and not self.tool_calls and self.refusal is None:
            raise ValueError("a message must have a content")
        return self


class ChatRequest(Sampled):
    """A conversation that is to be answered.

    context : a stored context that it is about; so is `model@context` as the model's name. evidence : say
    where the answer was looked up, and how much the text supports it. footnotes : put their numbers into the
    answer. refuse_unsupported : say that the text does not speak of it, where it seems not to.
    """

    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    response_format: ResponseFormat | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    context: str | None = Field(None, max_length=512)
    evidence: bool = False
    footnotes: bool = False
    refuse_unsupported: bool = False
    # Of OpenAI's interface; none of them changes an answer.
    metadata: Metadata | None = None
    store: Literal[False, None] = None
    service_tier: Literal["auto", "default", None] = None
    modalities: list[Literal["text"]] | None = None
    safety_identifier: str | None = Field(None, max_length=512)
    prompt_cache_key: str | None = Field(None, max_length=512)

    @model_validator(mode="after")
    def _fits(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise Disagrees("top_logprobs", "it needs logprobs to be true")
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise Disagrees("max_tokens", "max_completion_tokens says something else: give one of them")
        if self.stream_options is not None and not self.stream:
            raise Disagrees("stream_options", "it needs stream to be true")
        return self

    @property
    def holds_back(self) -> bool:
        """Whether the answer can be told only when all of it is there."""
        return self.footnotes or self.refuse_unsupported

    @property
    def wants_evidence(self) -> bool:
        return self.evidence or self.holds_back


class Passage(BaseModel):
    """A passage that was looked up for an answer.

    mark : its footnote's number. start, end : offsets of characters into the document's text, end not
    included. weight : its share of all that was looked up. page : counted from 1.
    """

    mark: int
    document: str
    text: str
    weight: float
    start: int
    end: int
    line_start: int
    line_end: int
    page: int | None = None
    heading: str | None = None


class Footnote(BaseModel):
    """After which character of the answer, as it is without its marks, which passage is named."""

    at: int
    mark: int


class ChatCompletion(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="allow")
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage
    evidence: list[Passage] | None = None
    footnotes: list[Footnote] | None = None
    support: float | None = None
    supported: bool | None = None
