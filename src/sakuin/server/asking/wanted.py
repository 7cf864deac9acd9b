"""What a request wants of its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor


class Constraint(Protocol):
    """What a choice must look like (`sakuin.server.constraints` has them). One for each choice."""

    def allow(self, logits: Tensor) -> Tensor:
        """The logits `(vocabulary,)`, minus infinity where a token may not come."""

    def take(self, token: int) -> bool:
        """A token was chosen: whether the answer is over with it."""


class Grammar(Protocol):
    """What makes constraints."""

    def begin(self) -> Constraint:
        """One for a choice."""


@dataclass(frozen=True)
class Wanted:
    """How to answer.

    max_tokens : most tokens of each choice; None is as many as the window holds. n : choices.
    presence, frequency : taken off the logits of tokens that were said, once, and as often as they were.
    bias : added to the logits of tokens. logprobs : None for none, else so many likeliest beside each token.
    evidence : whether to find where the answer was looked up. scored : whether the prompt's own tokens get
    logprobs too. raw : the text goes on, it answers nothing.
    """

    max_tokens: int | None = None
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    presence: float = 0.0
    frequency: float = 0.0
    bias: Mapping[int, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    grammar: Grammar | None = None
    evidence: bool = False
    scored: bool = False
    raw: bool = False
    end_loops: bool = False


@dataclass(frozen=True)
class Likely:
    """A token, the logarithm of its probability, and the likeliest beside it with theirs."""

    token: int
    logprob: float
    others: Sequence[tuple[int, float]] = ()


@dataclass
class Said:
    """A choice: its text and tokens, why it ended, and what it took.

    cached, prompt_tokens : of the prompt. held : tokens that the cache holds after those of the prompt.
    likely : with logprobs, of each token; scored : of each of the prompt but the first. at : where in the
    text each token begins. lookups : with evidence. first_s : seconds from its request to its first token.
    step_s : mean seconds of a step. stats : as `WholeCache.stats` says.
    """

    text: str
    ids: list[int]
    ended: str
    prompt_tokens: int
    cached: int
    held: list[int]
    likely: list[Likely]
    at: list[int]
    lookups: Any = None
    scored: list[Likely] = field(default_factory=list)
    first_s: float = 0.0
    prefill_s: float = 0.0
    step_s: float = 0.0
    stats: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return len(self.ids)
