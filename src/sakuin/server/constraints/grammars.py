"""Answers that must have a form: which tokens may come next, by llguidance (docs/structured.md says why).

`Grammars` is made once for a model and compiles what a request asks for: a JSON schema, any JSON, calls of
tools. A `Grammar` can be begun many times. A `Constraint` goes with one answer, token by token, in the
scheduler's thread. Compiling takes milliseconds, seconds at most, and is done in a worker's thread; it cannot
be stopped, so what would take longer is refused before, by `sakuin.server.constraints.checked` and by the
library's own limits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import llguidance
import numpy as np
import torch
from torch import Tensor

from sakuin.backends.base import Backend
from sakuin.errors import SakuinError
from sakuin.machine.forks import lock
from sakuin.prompts.vocabulary import Vocabulary
from sakuin.server.constraints.checked import MAX_PROPERTIES, checked
from sakuin.server.constraints.narrowed import narrowed
from sakuin.server.problems import Problem
from sakuin.server.schemas.tools import FunctionTool, NamedTool, ToolChoice

CALL, CALL_END = "<tool_call>", "</tool_call>"
"""What stands around a call, as Hermes and Qwen models write it."""
MAX_CALLS = 16
"""Of an answer that has to call."""
_JSON = {
    "whitespace_pattern": r"[ ]|\n[ ]{0,24}",  # bounded: small models write blanks without end
    "whitespace_flexible": True,
    "lenient": False,
    "coerce_one_of": False,
}
_LIMITS: dict[str, Any] = {
    "max_lexer_states": 50_000,  # of up to 2 KB
    "step_max_items": 20_000,
    "step_lexer_fuel": 100_000,
    "verbose_errors": False,
}
_NO_TEXT = b"\xff"
"""By this byte, which no text has, llguidance knows a token that writes nothing."""


class Constraint:
    """What one answer may go on with. Not for several threads at once.

    is_over : nothing but the end can follow, or the end has come.
    """

    def __init__(self, matcher: llguidance.LLMatcher, tokens: int, ends: frozenset[int]) -> None:
        self._matcher, self._ends = matcher, ends
        self._words = np.zeros((tokens + 31) // 32, np.int32)
        self._at, self._nbytes = self._words.ctypes.data, self._words.nbytes
        self.is_over = False

    @property
    def may_end(self) -> bool:
        """Whether what was taken so far is whole."""
        return self.is_over or bool(self._matcher.is_accepting())

    def allow(self, logits: Tensor) -> Tensor:
        """`logits` `(vocabulary,)`, a copy with -inf for each token that may not come next. End tokens are
        allowed exactly where the answer may end. Raises `Problem` where the grammar is too hard to follow or
        lets nothing come."""
        self._matcher.unsafe_compute_mask_ptr(self._at, self._nbytes)
        if self._matcher.is_error():
            raise _too_hard(self._matcher.get_error())
        n = logits.shape[-1]
        bits = np.unpackbits(self._words.view(np.uint8), count=n, bitorder="little")  # zeros behind its end
        allowed = torch.from_numpy(bits.view(np.bool_)).to(logits.device)
        return torch.where(allowed, logits, float("-inf"))

    def take(self, token: int) -> bool:
        """The token that was chosen. Returns `is_over`. Raises `SakuinError` where it was not allowed."""
        if token in self._ends and self.may_end:
            self.is_over = True
        elif self.is_over or not self._matcher.consume_token(token):
            raise SakuinError(f"token {token} does not fit the form that the answer must have.")
        else:
            self.is_over = bool(self._matcher.is_stopped())
        return self.is_over


class Grammar:
    """A form of answers, compiled. May be begun by several threads at once."""

    def __init__(self, matcher: llguidance.LLMatcher, tokens: int, ends: frozenset[int]) -> None:
        self._matcher, self._tokens, self._ends = matcher, tokens, ends
        self._lock = lock()

    def begin(self) -> Constraint:
        """What an answer that begins may go on with."""
        with self._lock:
            return Constraint(self._matcher.deep_copy(), self._tokens, self._ends)


class Grammars:
    """Compiles forms of answers for one model. May be used by several threads at once."""

    def __init__(self, backend: Backend) -> None:
        self._vocabulary = backend.vocabulary
        self._lock = lock()

    def of_schema(self, schema: Mapping[str, Any], param: str = "response_format") -> Grammar:
        """JSON by a schema, whether or not it was called strict.

        param : the field that it came in, for what is wrong with it. Raises `Problem` (400).
        """
        return self._compiled(_json(narrowed(checked(schema, param))), param)

    def of_json(self) -> Grammar:
        """Any JSON object."""
        return self._compiled(_json({"type": "object"}), "response_format")

    def of_tools(
        self, tools: Sequence[FunctionTool], choice: ToolChoice = "auto", *, parallel: bool = True
    ) -> Grammar | None:
        """Calls of `tools` with arguments by their schemas; None where nothing is to be held to.

        choice : none, auto (text, and whatever call is begun is one), required (a call at once), or a named
        tool. parallel : several calls in one answer. Raises `Problem` (400).
        """
        if choice == "none" or not tools:
            if isinstance(choice, NamedTool) or choice == "required":
                raise Problem(400, "tool_choice asks for a call, and there are no tools.", "tool_choice")
            return None
        every = [tool.name for tool in tools]
        if twice := next((name for i, name in enumerate(every) if name in every[:i]), None):
            raise Problem(400, f"tools has two functions named {twice}: give each its own name.", "tools")
        named = choice.function.name if isinstance(choice, NamedTool) else None
        wanted = [tool for tool in tools if named in (None, tool.name)]
        if not wanted:
            names = ", ".join(tool.name for tool in tools[:16])
            raise Problem(
                400, f"tool_choice names {named}, which is none of the tools ({names}).", "tool_choice"
            )
        rules = [_HEADS["auto" if choice == "auto" else "call", parallel and named is None]]
        rules.append("tool: " + " | ".join(f"tool_{i}" for i in range(len(wanted))))
        total = 0
        for i, tool in enumerate(wanted):
            arguments = checked_arguments(tool, f"tools.{tools.index(tool)}.function.parameters")
            total += len(arguments.get("properties", ()))
            head = json.dumps(json.dumps({"name": tool.name})[:-1] + ', "arguments": ')
            rules.append(f'tool_{i}: {head} arguments_{i} "}}"')
            rules.append(f"arguments_{i}: %json {_json(narrowed(arguments))}")
        if total > MAX_PROPERTIES:
            raise Problem(
                400, f"tools have {total:,} parameters, and {MAX_PROPERTIES:,} is the most.", "tools"
            )
        return self._compiled("\n".join(rules), "tools")

    # -- compiling -------------------------------------------------------------------------------------------

    def _compiled(self, grammar: str, param: str) -> Grammar:
        with self._lock:
            tokenizer = self._tokenizer
        try:
            if grammar.startswith("{"):
                grammar = llguidance.LLMatcher.grammar_from_json_schema(grammar)
            limits = llguidance.LLParserLimits(**_LIMITS)
            matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
        except ValueError as error:
            raise _refused(str(error), param) from None
        if matcher.is_error():
            raise _refused(matcher.get_error(), param)
        first = matcher.deep_copy()
        first.compute_bitmask()  # whether anything can come at all
        if first.is_error():
            raise _refused(first.get_error(), param)
        return Grammar(matcher, tokenizer.vocab_size, self._vocabulary.end_tokens)

    @cached_property
    def _tokenizer(self) -> llguidance.LLTokenizer:
        """The model's tokens, as llguidance wants them: half a second for 260,000."""
        wrapper = llguidance.TokenizerWrapper(_Tokens(self._vocabulary))
        return llguidance.LLTokenizer(wrapper, eos_token=sorted(self._vocabulary.end_tokens))


_TEXT = f"TEXT: /(.|\\n)*/\nto_call[lazy]: TEXT {json.dumps(CALL)}"
_BODY, _WHOLE = f'"\\n" tool "\\n{CALL_END}"', f'"{CALL}\\n" tool "\\n{CALL_END}"'
_HEADS = {
    ("auto", True): f"start: (to_call {_BODY})* TEXT\n{_TEXT}",
    ("auto", False): f"start: to_call {_BODY} | TEXT\n{_TEXT}",
    ("call", True): f'start: call ("\\n" call){{0,{MAX_CALLS - 1}}}\ncall: {_WHOLE}',
    ("call", False): f"start: {_WHOLE}",
}
"""Beginnings of grammars, by whether text may come before a call, and whether several calls may."""


class _Tokens:
    """A vocabulary in the form that llguidance's wrapper asks for."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        pieces = vocabulary.token_bytes()
        self.tokens = [
            _NO_TEXT + str(i).encode() if piece is None else piece for i, piece in enumerate(pieces)
        ]
        self.special_token_ids = [i for i, piece in enumerate(pieces) if piece is None]
        self.bos_token_id = vocabulary.begin_token
        self.eos_token_id = min(vocabulary.end_tokens, default=vocabulary.end_token)
        self._vocabulary, self._pieces = vocabulary, pieces

    def __call__(self, text: bytes | str) -> list[int]:
        """The tokens that the model would write for a piece of an answer, where only that can come."""
        raw = text.encode() if isinstance(text, str) else text
        try:
            ids = self._vocabulary.encode(raw.decode()).ids
        except (UnicodeDecodeError, SakuinError):
            return self._spelled(raw)
        # Some vocabularies put a blank before every text, and a piece of an answer has none.
        return ids if b"".join(self._pieces[token] or b"" for token in ids) == raw else self._spelled(raw)

    def _spelled(self, raw: bytes) -> list[int]:
        """The longest tokens, one after another."""
        found, at = [], 0
        while at < len(raw):
            ends = range(min(len(raw), at + self._longest), at, -1)
            end = next((end for end in ends if raw[at:end] in self._tokens), None)
            if end is None:
                return []
            found.append(self._tokens[raw[at:end]])
            at = end
        return found

    @cached_property
    def _tokens(self) -> dict[bytes, int]:
        return {piece: token for token, piece in enumerate(self._pieces) if piece}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._tokens))


def checked_arguments(tool: FunctionTool, param: str) -> dict[str, Any]:
    """The schema of a tool's arguments, checked. Raises `Problem` where it is not that of an object."""
    found = checked(
        tool.parameters or {"type": "object", "properties": {}, "additionalProperties": False}, param
    )
    if found.get("type", "object") != "object":
        raise Problem(400, f"{param} must be the schema of an object, as arguments have names.", param)
    return {**found, "type": "object"}


def _json(schema: Mapping[str, Any]) -> str:
    """The text of a schema, with how its JSON may be written."""
    return json.dumps({**schema, "x-guidance": _JSON})


def _refused(reason: str, param: str) -> Problem:
    """What the library says of a schema, as a sentence."""
    first = reason.strip().split("\n")[0][:200].rstrip(" .:")
    known = next((said for word, said in _SAID.items() if word in reason), None)
    return Problem(
        400, f"The schema in {param} cannot be held to: {known or first}.", param, code="unsupported_schema"
    )


_SAID = {
    "too big": "it is too large; ask for less at once",
    "too large": "its cases are too many together; ask for less at once",
    "fuel": "its patterns are too hard; make them simpler or leave them out",
    "Too many items": "it lets too much come at once; ask for less at once",
    "too many expressions": "its patterns are too hard; make them simpler or leave them out",
    "Unable to determine": "its patterns and lengths together are too hard; leave one of them out",
    "regex is empty": "its patterns and lengths together are too hard; leave one of them out",
    "oneOf": "oneOf is not supported where its cases overlap; say anyOf in its place",
    "look-around": "patterns with look-around are not supported; leave it out",
    "backreferences": "patterns with backreferences are not supported; leave them out",
    "recursion limit": "it has too many levels; flatten it",
    "NoExtension": "nothing fits it",
}
"""What the library's words mean."""


def _too_hard(reason: str) -> Problem:
    """Of a mask that cannot be made."""
    known = next((said for word, said in _SAID.items() if word in reason), "ask for a simpler form")
    return Problem(
        400,
        f"The form that the answer must have cannot be followed further: {known}.",
        code="unsupported_schema",
    )
