"""What prompts ask of a model's tokenizer, whichever library it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from sakuin.errors import SakuinError

GUARD = "\ue000"
"""A letter that no word holds: what stands behind it is made into tokens as within a text."""


@dataclass(frozen=True)
class Encoded:
    """Tokens of a text, and which of its characters each stands for: from `starts` on, before `ends`."""

    ids: list[int]
    starts: list[int]
    ends: list[int]


@runtime_checkable
class Vocabulary(Protocol):
    """Text to tokens and back. May be used from several threads at once."""

    @property
    def has_template(self) -> bool:
        """Whether the model has a chat template."""

    @property
    def beginning(self) -> list[int]:
        """The tokens that every text begins with."""

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end an answer."""

    @property
    def begin_token(self) -> int | None:
        """The model's token for the beginning of a text, whether or not texts are begun with it."""

    @property
    def end_token(self) -> int | None:
        """The vocabulary's own token for the end of a text."""

    def encode(self, text: str) -> Encoded:
        """Tokens of a user's text; nothing in it becomes a special or an added token. Raises `SakuinError`
        where the text holds half a character."""

    def special(self, text: str) -> list[int]:
        """Tokens of a piece of the chat template, its special tokens made into them."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""

    def token_bytes(self) -> list[bytes | None]:
        """What each token of the vocabulary, by its id, writes into an answer: parts of characters too. None
        for one that writes nothing: a special token, one that ends answers, an id that has no token."""

    def render(self, messages: Sequence[dict[str, str]], *, answer: bool) -> str:
        """`messages` in the chat template; `answer`: up to where the model's answer begins."""


def utf8(text: str) -> bytes:
    """The bytes of a text. Raises `SakuinError` where it holds half a character, which has no tokens."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise SakuinError(
            f"the text holds half a character (the lone surrogate U+{ord(text[error.start]):04X} at position "
            f"{error.start:,}), which has no tokens; decode the text with the right encoding."
        ) from error
