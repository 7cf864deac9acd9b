"""Whether the vocabulary in the header of a GGUF file fits together, before llama.cpp reads it.

llama.cpp takes it for granted: a token that is there twice, or an array of another length or type, ends the
process or is read past its end; a special token that is none of the vocabulary is silently another. Called by
`sakuin.backends.llama_cpp.header`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from sakuin.errors import SakuinError
from sakuin.storage.folders import cache_folder, make_folder
from sakuin.storage.whole_files import write_whole

_STRINGS, _REAL, _WHOLE = "strings", "f", "iu"
_TOKENS, _MERGES = "tokenizer.ggml.tokens", "tokenizer.ggml.merges"
_KINDS = {
    _TOKENS: _STRINGS,
    _MERGES: _STRINGS,
    "tokenizer.ggml.scores": _REAL,
    "tokenizer.ggml.token_type": _WHOLE,
    "tokenizer.ggml.precompiled_charsmap": _WHOLE,
}
"""Arrays that llama.cpp reads as such without asking."""
_FOR_EACH = ("tokenizer.ggml.scores", "tokenizer.ggml.token_type")
_MODELS = frozenset({"llama", "gpt2", "bert", "t5", "rwkv", "plamo2", "gemma4"})
_NONE = ("none", "no_vocab")
_SPECIAL = ("bos", "eos", "eot", "eom")
"""Tokens that begin and end texts and turns. The others (unknown, padding) sakuin does without, and files
that people use have some out of range."""
_LARGE = 10_000
"""Tokens from which on it takes long enough to be done once a file."""


class Facts(Protocol):
    """What is asked of a header."""

    @property
    def files(self) -> tuple[Path, ...]: ...
    @property
    def path(self) -> Path: ...
    @property
    def lengths(self) -> Mapping[str, int]: ...
    @property
    def kinds(self) -> Mapping[str, str]: ...
    @property
    def by_name(self) -> Mapping[str, object]: ...
    def text(self, key: str, default: str = "") -> str: ...
    def number(self, key: str, default: int = 0) -> int: ...
    def strings(self, key: str) -> list[bytes]: ...


def check(header: Facts) -> None:
    """Raise `SakuinError` where the vocabulary does not fit together. A file without one passes."""
    if _TOKENS not in header.kinds or header.text("tokenizer.ggml.model") in _NONE:
        return
    reason = next(_by_facts(header), "") or _by_words(header)
    if reason:
        raise SakuinError(
            f"the vocabulary of {header.path} does not fit together: {reason}. The file is damaged or was "
            "not converted well; get another file of the model."
        )


def _by_facts(header: Facts) -> Iterator[str]:
    """What is wrong with it, of what needs no words."""
    for key, kind in _KINDS.items():
        stated = header.kinds.get(key)
        if stated is not None and not (stated == kind or (kind != _STRINGS and stated in kind)):
            words = {
                _STRINGS: "an array of strings",
                _REAL: "an array of reals",
                _WHOLE: "an array of numbers",
            }
            yield f"{key} is not {words[kind]}"
    n = header.lengths.get(_TOKENS, 0)
    if not n:
        yield "it has no tokens"
    model = header.text("tokenizer.ggml.model")
    if model not in _MODELS:
        yield f"its kind is {model!r}, which llama.cpp does not know" if model else "it does not say its kind"
    for key in _FOR_EACH:
        if header.lengths.get(key, n) != n:
            yield f"{key} has {header.lengths[key]:,} values for {n:,} tokens"
    for name in _SPECIAL:
        key = f"tokenizer.ggml.{name}_token_id"
        if not 0 <= header.number(key) < n:
            yield f"{key} is {header.number(key):,}, and it has {n:,} tokens"
    embedded: tuple[int, ...] = getattr(header.by_name.get("token_embd.weight"), "shape", ())
    if len(embedded) == 2 and embedded[1] != n:
        yield f"it has {n:,} tokens, and the model's embedding {embedded[1]:,}"


def _by_words(header: Facts) -> str:
    """What is wrong with its words."""
    kept = _mark(header) if header.lengths[_TOKENS] >= _LARGE else None
    if kept is not None and kept.exists():
        return ""
    tokens = header.strings(_TOKENS)
    ids = {token: i for i, token in enumerate(tokens)}
    if len(ids) < len(tokens):
        return next(_twice(tokens))
    merges = header.strings(_MERGES) if header.text("tokenizer.ggml.model") == "gpt2" else []
    for merge in merges:
        cut = merge.find(b" ", 1)
        left, right = merge[: max(cut, 0)], merge[cut + 1 :]
        if left not in ids or right not in ids or left + right not in ids:
            return f"the merge {_shown(merge)} is of or makes a token that it does not have"
    if kept is not None:
        with suppress(OSError, SakuinError):  # which costs time at the next load, no more
            make_folder(kept.parent)
            write_whole(kept, b"")
    return ""


def _twice(tokens: list[bytes]) -> Iterator[str]:
    known: dict[bytes, int] = {}
    for i, token in enumerate(tokens):
        if token in known:
            yield f"its tokens {known[token]:,} and {i:,} are both {_shown(token)}"
        known[token] = i


def _shown(word: bytes) -> str:
    return repr(word[:40].decode("utf-8", "replace"))


def _mark(header: Facts) -> Path:
    """The file that is there where these files were found well."""
    stats = [(str(path.resolve()), os.stat(path)) for path in header.files]
    state = json.dumps([[path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for path, stat in stats])
    return cache_folder() / "vocabularies" / hashlib.sha256(state.encode()).hexdigest()[:24]
