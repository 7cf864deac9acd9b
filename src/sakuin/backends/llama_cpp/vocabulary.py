"""The vocabulary of a GGUF file, as `sakuin.prompts` asks for it, by llama.cpp's own tokenizers.

Ids and offsets are those that a model's transformers tokenizer gives: a token stands for all characters of
which it has a byte. Where transformers loses a rule when it reads a GGUF file, they differ in rare places: it
does not know that each digit of SmolLM2 is a word of its own (digits behind several blanks), and it merges
more than 31 blanks of Gemma in another way.

How the text of a long document is cut is in `sakuin.prompts.cuts`, how nothing in it becomes a token of the
template in `sakuin.prompts.added`.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sakuin.backends.llama_cpp.align import align
from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.llama_cpp.library import library
from sakuin.backends.llama_cpp.template import Template
from sakuin.copies import unpicklable
from sakuin.errors import SakuinError
from sakuin.machine.forks import lock
from sakuin.prompts import added
from sakuin.prompts.cuts import LONG, Cuts, bounded
from sakuin.prompts.vocabulary import GUARD, Encoded, utf8

_NONE, _PIECES, _BYTES = 0, 1, 2
"""llama.cpp's numbers of kinds of vocabularies: none, SentencePiece's, byte-level BPE's."""
_CONTROL = 1 | 8
"""Attributes of tokens that stand for no text: unknown, control."""
_TYPES, _BYTE = "tokenizer.ggml.token_type", 6
_ADDED = (3, 4)
"""Types of added tokens: control, user-defined. The latter llama.cpp makes of any text."""
_NO_TOKEN = -1
_BLANK = "▁"


class LlamaVocabulary:
    """Text to tokens and back.

    model : llama.cpp's pointer to a loaded model, whole or its vocabulary alone. header : of its file.
    keep : what owns the model, kept alive as long as this.
    """

    def __init__(self, model: int, header: Header, keep: Any = None) -> None:
        lib = library()
        self._keep = keep
        self._lib = lib
        self._vocab = lib.llama_model_get_vocab(model)
        self.kind = int(lib.llama_vocab_type(self._vocab))
        if self.kind == _NONE:
            raise SakuinError(
                f"{header.path} holds no vocabulary, so no text can be put to it; get another file of the "
                "model."
            )
        self._types = header.long.get(_TYPES, np.array(header.values.get(_TYPES, ())))
        if self.kind == _PIECES and np.count_nonzero(self._types == _BYTE) < 256:
            # The library would end the process at the first character that has no token.
            raise SakuinError(
                f"the vocabulary of {header.path} lacks tokens for single bytes, so there are texts that it "
                "cannot read; get another file of the model."
            )
        self._header = header
        self._lock = lock()
        self._pieces: dict[int, bytes] = {}
        self._answers: dict[int, bytes] = {}
        self._lengths: NDArray[np.int32] = np.full(len(self), -1, np.int32)

    def __copy__(self) -> LlamaVocabulary:
        return self  # it does not change, and what it points to is llama.cpp's

    def __deepcopy__(self, memo: dict[int, Any]) -> LlamaVocabulary:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise unpicklable(self, "load the model there with sakuin.load")

    @classmethod
    def load(cls, header: Header) -> LlamaVocabulary:
        """That of a file, without its weights. Raises `SakuinError` where llama.cpp does not know it."""
        lib = library()
        parameters = lib.llama_model_default_params()
        parameters.vocab_only = True
        parameters.n_gpu_layers = 0
        model = lib.llama_model_load_from_file(os.fsencode(header.path), parameters)
        if not model:
            raise SakuinError(f"llama.cpp cannot read the vocabulary of {header.path}: {lib.said()}.")
        owner = _Owner()
        weakref.finalize(owner, lib.llama_model_free, model)
        return cls(model, header, owner)

    def __len__(self) -> int:
        return int(self._lib.llama_vocab_n_tokens(self._vocab))

    @cached_property
    def template(self) -> Template | None:
        """The model's chat template."""
        text = self._header.text("tokenizer.chat_template")
        tokens = {
            "bos_token": int(self._lib.llama_vocab_bos(self._vocab)),
            "eos_token": int(self._lib.llama_vocab_eos(self._vocab)),
            "unk_token": self._header.number("tokenizer.ggml.unknown_token_id", _NO_TOKEN),
            "pad_token": self._header.number("tokenizer.ggml.padding_token_id", _NO_TOKEN),
        }
        named = {name: self._text(token) for name, token in tokens.items() if 0 <= token < len(self)}
        return Template(text, named) if text else None

    @property
    def has_template(self) -> bool:
        return self.template is not None

    @cached_property
    def beginning(self) -> list[int]:
        bos = int(self._lib.llama_vocab_bos(self._vocab))
        return [bos] if bos != _NO_TOKEN and self._lib.llama_vocab_get_add_bos(self._vocab) else []

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        ends = self._lib.llama_vocab_is_eog
        return frozenset(token for token in range(len(self)) if ends(self._vocab, token))

    @property
    def begin_token(self) -> int | None:
        found = int(self._lib.llama_vocab_bos(self._vocab))
        return None if found == _NO_TOKEN else found

    @property
    def end_token(self) -> int | None:
        found = int(self._lib.llama_vocab_eos(self._vocab))
        return None if found == _NO_TOKEN else found

    @property
    def chat_template(self) -> str | None:
        """The model's chat template as the file has it, by the name that transformers gives it."""
        return self._header.text("tokenizer.chat_template") or None

    @property
    def file(self) -> Path:
        """The file that holds it."""
        return self._header.path

    @cached_property
    def space_prefix(self) -> bool:
        """Whether a blank is put before a text that has none, as SentencePiece does."""
        stated = self._header.values.get("tokenizer.ggml.add_space_prefix")
        return self.kind == _PIECES if stated is None else bool(stated) and self.kind == _PIECES

    def encode(self, text: str) -> Encoded:
        utf8(text)
        return added.encoded(text, self._added, self._encode, self._apart)

    def special(self, text: str) -> list[int]:
        found: list[int] = self._tokenize(utf8(text), special=True).tolist()
        return found

    def decode(self, ids: Sequence[int]) -> str:
        raw = b"".join(self._shown(int(token)) for token in ids)
        return (raw.removeprefix(b" ") if self.space_prefix else raw).decode("utf-8", "replace")

    def token_bytes(self) -> list[bytes | None]:
        ends = self.end_tokens
        shown = (b"" if token in ends else self._shown(token) for token in range(len(self)))
        return [piece or None for piece in shown]

    def render(self, messages: Sequence[dict[str, str]], *, answer: bool) -> str:
        if self.template is None:
            raise SakuinError(f"{self._header.path} has no chat template, so the model takes no messages.")
        return self.template.render(messages, answer=answer)

    # -- tokens ----------------------------------------------------------------------------------------------

    @cached_property
    def _added(self) -> frozenset[int]:
        """Tokens that no text of a user becomes."""
        stated = np.flatnonzero(np.isin(self._types[: len(self)], _ADDED)).tolist()
        # llama.cpp takes some that a file calls plain words for the end of a turn.
        found = {*stated, *self.end_tokens}
        return frozenset(
            token for token in found if not added.is_blank(self._piece(token).decode("utf-8", "replace"))
        )

    def _encode(self, text: str, first: bool) -> Encoded:
        """Tokens of a text, or of a piece that stands behind another."""
        ids = self._tokens(text)
        if not first and self.space_prefix:  # which would put a blank before it
            guard, behind = self._tokens(GUARD), self._tokens(GUARD + text)
            if np.array_equal(behind[: len(guard)], guard):
                ids = behind[len(guard) :]
        starts, ends = self._offsets(text, text.encode(), ids)
        return Encoded(ids.tolist(), starts, ends)

    def _apart(self, text: str, first: bool) -> Encoded:
        """Tokens of a text character by character, and of one that is an added token byte by byte. A byte
        that has no other token keeps that."""
        ids: list[int] = []
        places: list[int] = []
        for at, character in enumerate(text):
            before = len(ids)
            for token in self._encode(character, first and not at).ids:
                spelled = character.encode() if token in self._added else b""
                ids += [self._bytes.get(byte, token) for byte in spelled] or [token]
            places += [at] * (len(ids) - before)
        return Encoded(ids, places, [place + 1 for place in places])

    @cached_property
    def _bytes(self) -> dict[int, int]:
        """The tokens of single bytes."""
        pieces = ((self._piece(token), token) for token in range(len(self)) if token not in self._added)
        return {piece[0]: token for piece, token in pieces if len(piece) == 1}

    def _tokens(self, text: str) -> NDArray[np.int32]:
        """Of a user's text. llama.cpp needs a time that grows with the square of a long text's length where a
        vocabulary has tokens of its own for lines and blanks, so such a text is cut, where the cuts change
        nothing."""
        cut = len(text) >= LONG and self.kind in (_PIECES, _BYTES)
        made, first = [], True
        for part in self._cuts.parts(text) if cut else (text,):
            # At a cut the text has the blank that llama.cpp would put there.
            begun = part[1:] if self.space_prefix and not first else part
            pieces = bounded(begun) if self.kind == _BYTES else (begun,)
            made += [self._tokenize(piece.encode()) for piece in pieces]
            first = False
        return np.concatenate(made)

    @cached_property
    def _cuts(self) -> Cuts:
        get, vocab, buffer = self._lib.llama_token_to_piece, self._vocab, ctypes.create_string_buffer(256)
        sizes = ((token, get(vocab, token, buffer, 256, 0, True)) for token in range(len(self)))
        pieces = (buffer.raw[:n] if n >= 0 else self._piece(token) for token, n in sizes)
        return Cuts.of(pieces, lines=not self.space_prefix)

    def _tokenize(self, raw: bytes, special: bool = False) -> NDArray[np.int32]:
        room = len(raw) + 16
        while True:
            made = np.empty(room, np.int32)
            into = made.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            n = self._lib.llama_tokenize(self._vocab, raw, len(raw), into, room, False, special)
            if n >= 0:
                return made[:n]
            room = -n

    def _piece(self, token: int) -> bytes:
        room = 256
        while True:
            buffer = ctypes.create_string_buffer(room)
            n = self._lib.llama_token_to_piece(self._vocab, token, buffer, room, 0, True)
            if n >= 0:
                return buffer.raw[:n]
            room = -n

    def _shown(self, token: int) -> bytes:
        """What an answer shows of a token: nothing of a special one."""
        if token not in self._answers:
            if not 0 <= token < len(self):
                raise SakuinError(f"the model has {len(self):,} tokens, and {token} is none of them.")
            special = self._lib.llama_vocab_get_attr(self._vocab, token) & _CONTROL
            self._answers[token] = b"" if special else self._piece(token)
        return self._answers[token]

    def _text(self, token: int) -> str:
        text: bytes = self._lib.llama_vocab_get_text(self._vocab, token)
        return text.decode("utf-8", "replace")

    # -- offsets ---------------------------------------------------------------------------------------------

    def _learn(self, ids: NDArray[np.int32]) -> None:
        """Know the bytes of these tokens."""
        with self._lock:
            for token in np.unique(ids).tolist():
                if token not in self._pieces:
                    piece = self._piece(token)
                    self._lengths[token] = len(piece)
                    self._pieces[token] = piece

    def _offsets(self, text: str, raw: bytes, ids: NDArray[np.int32]) -> tuple[list[int], list[int]]:
        """Which characters of `text` each token stands for."""
        if not len(ids):
            return [], []
        self._learn(ids)
        pieces = [self._pieces[token] for token in ids.tolist()]
        spelled = b"".join(pieces)
        if spelled != raw and _BLANK in text:  # which is a blank to tokenizers that write one so
            text = text.replace(_BLANK, " ")
            raw = text.encode()
        before = 1 if self.space_prefix and spelled[:1] == b" " and len(spelled) == len(raw) + 1 else 0
        if spelled[before:] == raw:
            ends = np.cumsum(self._lengths[ids], dtype=np.int64) - before
            starts = np.concatenate(([0], ends[:-1]))
        else:
            starts, ends = align(raw, pieces)
        if len(raw) == len(text):
            first, last = np.maximum(starts, 0), np.maximum(ends, 1)
        else:
            at = np.frombuffer(raw, np.uint8)
            of = np.append(np.cumsum((at & 0xC0) != 0x80) - 1, len(text))
            first, last = of[np.maximum(starts, 0)], of[np.maximum(ends - 1, 0)] + 1
        return first.tolist(), np.minimum(last, len(text)).tolist()


class _Owner:
    """Whose end frees a model."""
