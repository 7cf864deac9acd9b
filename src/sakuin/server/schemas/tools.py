"""Tools, their calls and forms of answers in requests, as OpenAI's two APIs write them.

Chat Completions put a function, a schema or a call one level deeper than Responses do; `plain` of the latter
gives the former. What is in a schema is checked in `sakuin.server.constraints.checked`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_TOOLS = 128
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")]
Described = Annotated[str, Field(max_length=100_000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


# -- tools ---------------------------------------------------------------------------------------------------


class FunctionTool(_Body):
    """A function that the model may call.

    parameters : the JSON schema of its arguments; none takes none. strict : arguments are held to the schema
    whatever it says.
    """

    name: Name
    description: Described | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Body):
    """A tool, in Chat Completions."""

    type: Literal["function"]
    function: FunctionTool


class ResponsesTool(FunctionTool):
    """A tool, in Responses."""

    type: Literal["function"]

    def plain(self) -> Tool:
        """As in Chat Completions."""
        return Tool(type="function", function=FunctionTool(**self.model_dump(exclude={"type"})))


class _Named(_Body):
    name: Name


class NamedTool(_Body):
    """The one tool that is to be called, in Chat Completions."""

    type: Literal["function"]
    function: _Named


class ResponsesNamedTool(_Named):
    """The one tool that is to be called, in Responses."""

    type: Literal["function"]

    def plain(self) -> NamedTool:
        """As in Chat Completions."""
        return NamedTool(type="function", function=_Named(name=self.name))


ToolChoice = Literal["none", "auto", "required"] | NamedTool
ResponsesToolChoice = Literal["none", "auto", "required"] | ResponsesNamedTool
Tools = Annotated[list[Tool], Field(max_length=MAX_TOOLS)]
ResponsesTools = Annotated[list[ResponsesTool], Field(max_length=MAX_TOOLS)]


# -- calls ---------------------------------------------------------------------------------------------------


class CalledFunction(_Body):
    """arguments : JSON as text."""

    name: Name
    arguments: Annotated[str, Field(max_length=1_000_000)]


class ToolCall(_Body):
    """A call, in an assistant's message."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    type: Literal["function"] = "function"
    function: CalledFunction


# -- forms of answers ----------------------------------------------------------------------------------------


class TextFormat(_Body):
    """An answer of any form."""

    type: Literal["text"]


class JsonObjectFormat(_Body):
    """An answer that is a JSON object."""

    type: Literal["json_object"]


class JsonSchema(_Body):
    """A schema and what it is called. strict : answers are held to the schema whatever it says."""

    name: Name
    description: Described | None = None
    schema_: dict[str, Any] = Field(alias="schema", default_factory=dict)
    strict: bool | None = None


class JsonSchemaFormat(_Body):
    """An answer in JSON by a schema, in Chat Completions."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class ResponsesJsonSchemaFormat(JsonSchema):
    """An answer in JSON by a schema, in Responses (`text.format`)."""

    type: Literal["json_schema"]

    def plain(self) -> JsonSchemaFormat:
        """As in Chat Completions."""
        return JsonSchemaFormat(
            type="json_schema", json_schema=JsonSchema(**self.model_dump(exclude={"type"}, by_alias=True))
        )


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
ResponsesFormat = Annotated[
    TextFormat | JsonObjectFormat | ResponsesJsonSchemaFormat, Field(discriminator="type")
]
