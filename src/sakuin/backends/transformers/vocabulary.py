"""The vocabulary of a transformers tokenizer, as `sakuin.prompts` asks for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property
from typing import Any

from sakuin.errors import SakuinError
from sakuin.machine.forks import lock_for_forks
from sakuin.prompts import added
from sakuin.prompts.cuts import LONG, Cuts
from sakuin.prompts.vocabulary import GUARD, Encoded, utf8

_NOWHERE = "\ue000\uf8ff"
_INSIDE = re.compile(r"[^Ġ▁ Ċ\n][Ġ▁ ]|[Ċ\n].")
"""Tokens with a blank behind something, or something behind a line's end."""
_ONE_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""A token of a byte of characters that have no token."""

_lock = lock_for_forks()
"""A tokenizer sets itself up for each call, so that two threads must not use it at once. Its own lock would
stay locked in a child that is forked meanwhile."""


class TransformersVocabulary:
    """Text to tokens and back, by a fast tokenizer of transformers.

    ends : gives the tokens that end an answer beside the tokenizer's own, as a model states them.
    """

    def __init__(self, tokenizer: Any, ends: Callable[[], Iterable[int | None]] = tuple) -> None:
        self.tokenizer = tokenizer
        self._ends = ends
        self._known_added: tuple[Any, frozenset[int]] = (None, frozenset())

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
        utf8(text)
        return added.encoded(text, self._added, self._encode, self._apart)

    def special(self, text: str) -> list[int]:
        with _lock:
            made = self.tokenizer(text, add_special_tokens=False, split_special_tokens=False)
        return list(made.input_ids)

    def decode(self, ids: Sequence[int]) -> str:
        with _lock:
            return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def token_bytes(self) -> list[bytes | None]:
        with _lock:
            pieces = self._backend.get_vocab(with_added_tokens=True)
            added_tokens = self._backend.get_added_tokens_decoder()
        found: list[bytes | None] = [None] * (max(pieces.values()) + 1)
        ends, of_bytes = self.end_tokens, self._is_of_bytes
        for piece, token in pieces.items():
            if token not in ends and not (token in added_tokens and added_tokens[token].special):
                found[token] = _written(piece, of_bytes) or None
        return found

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

    # -- a user's text ---------------------------------------------------------------------------------------

    @property
    def _backend(self) -> Any:
        """The tokenizer that is behind transformers'."""
        if not getattr(self.tokenizer, "is_fast", False):
            raise SakuinError(
                f"the tokenizer {type(self.tokenizer).__name__} is a slow one, which does not tell where in "
                "the text a token lies; use a model that has a tokenizer.json."
            )
        return self.tokenizer.backend_tokenizer

    @property
    def _added(self) -> frozenset[int]:
        """Tokens that no text of a user becomes; a user may have added some since the last time."""
        with _lock:
            key = (self._backend.get_vocab_size(), *sorted(self.end_tokens))
            if self._known_added[0] != key:
                found = {token: str(each) for token, each in self._backend.get_added_tokens_decoder().items()}
                found |= {end: self.tokenizer.decode([end]) for end in self.end_tokens}
                if not self._is_of_bytes:  # else it stands for all characters that have no token
                    found.pop(self.tokenizer.unk_token_id, None)
                banned = frozenset(token for token, text in found.items() if not added.is_blank(text))
                self._known_added = key, banned
            return self._known_added[1]

    def _encode(self, text: str, first: bool) -> Encoded:
        """Tokens of a text, or of a piece that stands behind another, in parts where it is long."""
        if len(text) < LONG:
            return self._part(text, first)
        ids: list[int] = []
        starts: list[int] = []
        ends: list[int] = []
        at = 0
        for part in self._cuts.parts(text):
            # At a cut the text has the blank that the tokenizer would put there.
            blank = 1 if at and self._prefix else 0
            made = self._part(part[blank:], first or bool(blank))
            ids += made.ids
            begun = len(starts)
            starts += [at + blank + start for start in made.starts]
            ends += [at + blank + end for end in made.ends]
            if blank and self._has_blank and len(starts) > begun:
                starts[begun] = at
                if made.starts[:1] == made.starts[1:2]:  # the blank is a token of its own
                    ends[begun] = at + blank
            at += len(part)
        return Encoded(ids, starts, ends)

    def _part(self, text: str, first: bool) -> Encoded:
        return self._placed(self._call, text, first)

    def _placed(self, encode: Callable[[str], Encoded], text: str, first: bool) -> Encoded:
        """Tokens of a text by `encode`; of one that stands behind another without the blank that a tokenizer
        puts before texts."""
        made = encode(text)
        if first or not self._prefix:
            return made
        guard, behind = encode(GUARD), encode(GUARD + text)
        n, ahead = len(guard.ids), len(GUARD)
        if behind.ids[:n] != guard.ids or (behind.starts[n:] and behind.starts[n] < ahead):
            return made
        return Encoded(
            behind.ids[n:],
            [start - ahead for start in behind.starts[n:]],
            [end - ahead for end in behind.ends[n:]],
        )

    def _call(self, text: str) -> Encoded:
        _ = self._backend
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

    def _apart(self, text: str, first: bool) -> Encoded:
        """Tokens of a text of which a tokenizer makes an added token however it is cut: by one that does not
        know its added tokens."""

        def encode(text: str) -> Encoded:
            with _lock:
                made = self._without_added.encode(text, add_special_tokens=False)
            starts, ends = [start for start, _ in made.offsets], [end for _, end in made.offsets]
            return Encoded(list(made.ids), starts, ends)

        return self._placed(encode, text, first)

    @cached_property
    def _without_added(self) -> Any:
        with _lock:
            said, words = (
                json.loads(self._backend.to_str()),
                self._backend.get_vocab(with_added_tokens=False),
            )
        left = [each for each in said["added_tokens"] if added.is_blank(each["content"])]
        for each in said["added_tokens"]:
            if each not in left and each["content"] not in words:
                # It keeps its place, so that those behind it keep their numbers, and is found in no text.
                left.append(each | {"content": f"{_NOWHERE}{each['id']}{_NOWHERE}"})
        said["added_tokens"] = sorted(left, key=lambda each: each["id"])
        return type(self._backend).from_str(json.dumps(said))

    @cached_property
    def _cuts(self) -> Cuts:
        with _lock:
            pieces = self._backend.get_vocab(with_added_tokens=True)
        spelled = (_spelled(piece, self._is_of_bytes) for piece in pieces if _INSIDE.search(piece))
        return Cuts.of(spelled, lines=not self._prefix)

    @cached_property
    def _is_of_bytes(self) -> bool:
        """Whether tokens are written in letters that stand for bytes."""
        tokens = self._pieces("é")
        return "".join(tokens).lstrip("Ġ▁") == "Ã©"

    @cached_property
    def _prefix(self) -> bool:
        """Whether a blank is put before a text that has none."""
        tokens = self._pieces("a")
        return bool(tokens) and tokens[0][:1] in ("Ġ", "▁")

    def _pieces(self, text: str) -> list[str]:
        with _lock:
            return list(self._backend.encode(text, add_special_tokens=False).tokens)

    @cached_property
    def _has_blank(self) -> bool:
        """Whether the blank before a word is among the characters of the word's token."""
        made = self._call("a a")
        return 1 in made.starts


@cache
def _bytes_of_letters() -> dict[str, int]:
    """Which bytes the letters of byte-level tokenizers stand for: printable ones for themselves."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _written(piece: str, is_of_bytes: bool) -> bytes:
    """The bytes that a token writes: `_spelled`, and the byte that a token of a single one stands for."""
    byte = None if is_of_bytes else _ONE_BYTE.fullmatch(piece)
    return bytes.fromhex(byte[1]) if byte else _spelled(piece, is_of_bytes)


def _spelled(piece: str, is_of_bytes: bool) -> bytes:
    """The bytes of a token's text."""
    letters = _bytes_of_letters()
    if is_of_bytes and all(letter in letters for letter in piece):
        return bytes(letters[letter] for letter in piece)
    return piece.replace("▁", " ").encode()
