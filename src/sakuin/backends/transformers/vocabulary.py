"""The vocabulary of a transformers tokenizer, as `sakuin.prompts` asks for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sakuin.errors import SakuinError
from sakuin.prompts.vocabulary import Encoded

_lock = threading.Lock()
"""A tokenizer sets itself up for each call, so that two threads must not use it at once."""


class TransformersVocabulary:
    """Text to tokens and back, by a fast tokenizer of transformers.

    ends : gives the tokens that end an answer beside the tokenizer's own, as a model states them.
    """

    def __init__(self, tokenizer: Any, ends: Callable[[], Iterable[int | None]] = tuple) -> None:
        self.tokenizer = tokenizer
        self._ends = ends

    @property
    def has_template(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    @property
    def beginning(self) -> list[int]:
        with _lock:
            return list(self.tokenizer("").input_ids)

    @property
    def end_tokens(self) -> frozenset[int]:
        return frozenset(int(end) for end in (*self._ends(), self.tokenizer.eos_token_id) if end is not None)

    @property
    def begin_token(self) -> int | None:
        found: int | None = self.tokenizer.bos_token_id
        return found

    @property
    def end_token(self) -> int | None:
        found: int | None = self.tokenizer.eos_token_id
        return found

    def encode(self, text: str) -> Encoded:
        with _lock:
            made = self.tokenizer(
                text,
                add_special_tokens=False,
                split_special_tokens=True,
                return_offsets_mapping=True,
                verbose=False,
            )
        offsets = made.offset_mapping
        return Encoded(list(made.input_ids), [start for start, _ in offsets], [end for _, end in offsets])

    def special(self, text: str) -> list[int]:
        with _lock:
            return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def decode(self, ids: Sequence[int]) -> str:
        with _lock:
            return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def render(self, messages: Sequence[dict[str, str]], *, answer: bool) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=answer
                )
            )
        except Exception as error:  # whatever a template raises
            roles = ", ".join(message["role"] for message in messages)
            raise SakuinError(
                f"the model's chat template cannot be rendered with messages of {roles}: {error}."
            ) from error
