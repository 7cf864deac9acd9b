"""What several kinds of requests have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sakuin.server.asking.wanted import Wanted

MOST_CHOICES = 16
MOST_STOPS = 16
MOST_LOGPROBS = 20

Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Metadata = dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]]


class StreamOptions(BaseModel):
    """What a stream carries beside the answer."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False
    include_obfuscation: Literal[False, None] = None


class Sampled(BaseModel):
    """How an answer is chosen, and how it is sent.

    What is named by OpenAI's interface and not there has the one value that changes nothing, so that programs
    that always send it work; any other is refused.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: str = Field(max_length=512, description="A name of /v1/models.")
    temperature: float | None = Field(None, ge=0, le=100, description="0, the default, is the likeliest.")
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = Field(None, max_length=1024)
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    end_loops: bool = Field(True, description="End an answer that repeats itself (sakuin's own).")
    user: str | None = Field(None, max_length=512)

    @field_validator("logit_bias")
    @classmethod
    def _tokens(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        for token, value in (bias or {}).items():
            if not (token.isascii() and token.isdecimal() and len(token) < 10):
                raise ValueError(f"a key must be the number of a token, got {token[:40]!r}")
            if not -100 <= value <= 100:
                raise ValueError(f"a value must be from -100 to 100, got {value}")
        return bias

    def wanted(self, n_vocabulary: int, **more: Any) -> Wanted:
        """What it wants of the answer. Raises `ValueError` where a bias is for no token."""
        bias = {int(token): value for token, value in (self.logit_bias or {}).items()}
        for token in bias:
            if token >= n_vocabulary:
                raise ValueError(f"the model has {n_vocabulary:,} tokens, and {token:,} is none of them")
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        given = {
            "n": self.n or 1,
            "temperature": self.temperature or 0.0,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "seed": self.seed,
            "presence": self.presence_penalty or 0.0,
            "frequency": self.frequency_penalty or 0.0,
            "bias": bias,
            "stop": stop,
            "end_loops": self.end_loops,
        }
        return Wanted(**{**given, **more})


class PromptDetails(BaseModel):
    """cached_tokens : of the prompt, those that were read before."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


def usage_of(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    """As it is sent."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
