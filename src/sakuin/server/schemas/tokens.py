"""`/tokenize` and `/v1/count_tokens`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sakuin.server.problems import Disagrees
from sakuin.server.schemas.chat import Message


class TokenizeRequest(BaseModel):
    """A text whose tokens are wanted."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str | None = Field(None, max_length=512)
    content: str = Field(description="The text.")
    add_special: bool = Field(False, description="With the tokens that every text begins with.")
    with_pieces: bool = False


class Tokenized(BaseModel):
    """tokens : their numbers. pieces : what each says, where that is wanted."""

    tokens: list[int]
    count: int
    max_model_len: int | None = None
    pieces: list[str] | None = None


class CountRequest(BaseModel):
    """A request whose tokens are to be counted: of messages, or of a text; with a context or without."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str = Field(max_length=512)
    messages: list[Message] | None = Field(None, min_length=1)
    prompt: str | None = None
    context: str | None = Field(None, max_length=512)

    @model_validator(mode="after")
    def _one(self) -> CountRequest:
        if (self.messages is None) == (self.prompt is None):
            raise Disagrees("messages", "give either these or prompt")
        return self


class Counted(BaseModel):
    """input_tokens : of the whole prompt. cached_tokens : of those, what the context holds already. left :
    how many are left to the answer; None where the model does not say."""

    input_tokens: int
    cached_tokens: int
    left: int | None
    max_model_len: int | None
