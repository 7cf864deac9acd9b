"""`/v1/completions`: a text is gone on with."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sakuin.server.problems import Disagrees
from sakuin.server.schemas.common import MOST_CHOICES, Metadata, Sampled, Usage

MOST_PROMPTS = 128
"""Also choices of all prompts together."""
Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=1 << 20)]


class CompletionRequest(Sampled):
    """A text, or its tokens, that is gone on with; or several."""

    prompt: (
        str
        | Tokens
        | Annotated[list[str], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Annotated[list[Tokens], Field(min_length=1, max_length=MOST_PROMPTS)]
    )
    max_tokens: int | None = Field(16, ge=0)
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = None
    best_of: int | None = Field(None, ge=1, le=MOST_CHOICES)
    suffix: Literal["", None] = None
    end_loops: bool = Field(False, description="End an answer that repeats itself (sakuin's own).")
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _fits(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise Disagrees("best_of", "it must be n: the best of more is not chosen here")
        if self.max_tokens == 0 and not self.echo:
            raise Disagrees("max_tokens", "it is 0 and echo is not set: nothing would be said")
        if self.stream and self.echo:
            raise Disagrees("echo", "it is not there in a stream: ask without one of them")
        if self.stream_options is not None and not self.stream:
            raise Disagrees("stream_options", "it needs stream to be true")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each of them."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


class Completion(BaseModel):
    """How it goes on."""

    model_config = ConfigDict(extra="allow")
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage
