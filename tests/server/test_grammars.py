"""Answers that must have a form: what may come next, what is refused, and what real models write so."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import torch
from held import allowed, fits, logits_of, said

from sakuin.backends.base import Backend
from sakuin.context.checks import ready_backend
from sakuin.errors import SakuinError
from sakuin.server.constraints.grammars import Grammars

STRING = {"type": "string"}
PERSON = {
    "type": "object",
    "title": "Person",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "role": {"enum": ["Arzt", "医者", "pilot 🎉", None, 3]},
        "address": {"$ref": "#/$defs/address"},
        "scores": {
            "type": "array",
            "items": {"type": "number", "multipleOf": 0.5, "minimum": -9999, "maximum": 9999},
            "minItems": 2,
            "maxItems": 3,
        },
        "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
    },
    "required": ["name", "age", "role", "address", "scores", "code"],
    "additionalProperties": False,
    "$defs": {
        "address": {
            "type": "object",
            "description": "where it is",
            "properties": {
                "city": {"type": "string", "maxLength": 12},
                "zip": {"type": ["integer", "null"], "minimum": 0, "maximum": 99999},
            },
            "required": ["city", "zip"],
            "additionalProperties": False,
        }
    },
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 4},
                "of": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
            },
            "required": ["name"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}


def test_a_schema_holds_in_a_vocabulary_of_pieces(gemma3: tuple[Any, Any]) -> None:
    backend = ready_backend(*gemma3)
    grammar = Grammars(backend).of_schema(PERSON)
    assert fits(backend, grammar, json.dumps(GOOD, ensure_ascii=False))
    assert not fits(backend, grammar, json.dumps(GOOD | {"age": 121}))


# -- what fits -----------------------------------------------------------------------------------------------

GOOD = {
    "name": "Zoë 東京",
    "age": 30,
    "role": "pilot 🎉",
    "address": {"city": "Oslo\n", "zip": None},
    "scores": [1, -2.5e3],
    "code": "AB-123",
}


def test_what_fits_a_schema_may_be_said_and_nothing_else(backend: Backend, grammars: Grammars) -> None:
    grammar = grammars.of_schema(PERSON)
    for written in (
        json.dumps(GOOD, ensure_ascii=False),
        json.dumps(GOOD, ensure_ascii=False, indent=4),
        json.dumps(GOOD, ensure_ascii=False, separators=(",", ":")),
    ):
        assert fits(backend, grammar, written)
    for wrong in (
        {"age": 121},
        {"age": -1},
        {"age": "30"},
        {"name": ""},
        {"name": "x" * 21},
        {"role": "Pilot"},
        {"scores": [1]},
        {"scores": [1, 2, 3, 4]},
        {"code": "AB-12"},
        {"address": {"city": "Oslo"}},
        {"more": 1},
    ):
        assert not fits(backend, grammar, json.dumps(GOOD | wrong, ensure_ascii=False)), wrong
    written = json.dumps(GOOD, ensure_ascii=False)
    assert not fits(backend, grammar, written[:-1])
    assert not fits(backend, grammar, written + "x")
    assert not fits(backend, grammar, json.dumps(GOOD))  # letters are written as they are


def test_any_json_is_an_object(backend: Backend, grammars: Grammars) -> None:
    grammar = grammars.of_json()
    for good in ("{}", '{"a": [1, {"b": null}, "é\\n"], "": -1.5e-3}'):
        assert fits(backend, grammar, good)
    for wrong in ("[]", "1", '{"a": 01}', "{'a': 1}", '{"a": 1,}', '{"a": NaN}', '{"a": "\n"}', " {}"):
        assert not fits(backend, grammar, wrong)


def test_blanks_end(backend: Backend, grammars: Grammars) -> None:
    """A small model that likes blanks must come to the next word."""
    blanks = [i for i, piece in enumerate(backend.vocabulary.token_bytes()) if piece and not piece.strip()]
    liked = logits_of(backend)
    liked[blanks] = 100.0
    chosen = torch.Generator().manual_seed(5)
    for grammar in (grammars.of_json(), grammars.of_schema(PERSON), grammars.of_schema(TREE)):
        constraint, written = grammar.begin(), []
        for _ in range(400):
            token = int(constraint.allow(liked + torch.rand(len(liked), generator=chosen)).argmax())
            if constraint.take(token):
                break
            written.append(token)
            outside = backend.vocabulary.decode(written).split('"')[::2]
            assert all(len(part) - len(part.rstrip()) <= 25 for part in outside[:1])
        assert len(written) > 3
        text = backend.vocabulary.decode(written)
        assert "\n" + 25 * " " not in text.partition('"')[0]
        assert '"' in text


def test_the_end_may_come_exactly_where_the_answer_may_end(backend: Backend, grammars: Grammars) -> None:
    ends = backend.vocabulary.end_tokens
    constraint = grammars.of_schema({"type": "integer", "maximum": 999, "minimum": 0}).begin()
    assert not constraint.may_end
    assert not allowed(backend, constraint) & ends
    [token] = backend.vocabulary.encode("7").ids
    assert not constraint.take(token)
    assert constraint.may_end
    assert allowed(backend, constraint) >= ends
    with pytest.raises(SakuinError, match="does not fit the form"):
        grammars.of_schema(PERSON).begin().take(min(ends))
    assert constraint.take(min(ends))
    assert constraint.is_over


def test_a_token_that_was_not_allowed_is_not_taken(backend: Backend, grammars: Grammars) -> None:
    constraint = grammars.of_json().begin()
    with pytest.raises(SakuinError, match="does not fit the form"):
        constraint.take(backend.vocabulary.encode("x").ids[0])


def test_logits_stay_and_longer_ones_are_closed(backend: Backend, grammars: Grammars) -> None:
    """A model may have more logits than its vocabulary has tokens."""
    logits = torch.randn(len(backend.vocabulary.token_bytes()) + 100, dtype=torch.bfloat16)
    before = logits.clone()
    masked = grammars.of_json().begin().allow(logits)
    assert torch.equal(logits, before)
    assert masked.dtype == logits.dtype
    assert masked.shape == logits.shape
    assert not torch.isfinite(masked[-100:]).any()
    open_ = torch.isfinite(masked)
    assert open_.any()
    assert torch.equal(masked[open_], before[open_])


def test_two_answers_of_one_grammar_do_not_touch(backend: Backend, grammars: Grammars) -> None:
    grammar = grammars.of_json()
    one, other = grammar.begin(), grammar.begin()
    one.take(backend.vocabulary.encode("{").ids[0])
    assert allowed(backend, one) != allowed(backend, other)
    assert allowed(backend, other) == allowed(backend, grammar.begin())


HARD: list[dict[str, Any]] = [
    PERSON,
    TREE,
    {"type": "number", "minimum": -1.5, "exclusiveMaximum": 2.25},
    {"type": "integer", "multipleOf": 7, "minimum": -50, "maximum": 500},
    {
        "anyOf": [
            {"type": "integer", "minimum": 5},
            {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        ]
    },
    {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"const": "x"}],
        "items": {"type": "null"},
        "maxItems": 4,
    },
    {"type": "object", "patternProperties": {"^a[0-9]$": {"type": "boolean"}}, "additionalProperties": False},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "pattern": "^(ab|c){2,3}d?$", "minLength": 4},
    {"enum": ["a", "aa", 1, 1.5, None, True, {"k": [1]}, '"\\']},
    {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"a": {"maximum": 9}, "b": {"maxLength": 2, "type": "string"}}, "required": ["b"]},
        ],
        "additionalProperties": False,
        "properties": {"a": True, "b": True},
    },
    {
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": kind}},
                "required": ["kind"],
                "additionalProperties": False,
            }
            for kind in ("cat", "dog")
        ]
    },
]


@pytest.mark.parametrize("schema", HARD, ids=[str(i) for i in range(len(HARD))])
def test_whatever_is_allowed_is_valid(backend: Backend, grammars: Grammars, schema: dict[str, Any]) -> None:
    """Answers of random tokens are judged by a library that had no part in them."""
    pieces = backend.vocabulary.token_bytes()
    closing = torch.tensor([bool(piece) and piece.strip()[-1:] in (b'"', b"}", b"]") for piece in pieces])
    closing[list(backend.vocabulary.end_tokens)] = True
    judge = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    grammar, whole = grammars.of_schema(schema), 0
    chosen, logits = torch.Generator().manual_seed(5), torch.zeros(len(pieces))
    for _ in range(8):
        constraint, taken = grammar.begin(), []
        while not constraint.is_over and len(taken) < 150:
            likes = torch.rand(len(pieces), generator=chosen) + closing * 2.0 * torch.rand(
                1, generator=chosen
            )
            taken.append(int(constraint.allow(logits + likes).argmax()))
            constraint.take(taken[-1])
        if constraint.is_over:
            whole += 1
            text = b"".join(pieces[token] or b"" for token in taken).decode()
            judge.validate(json.loads(text))
    assert whole >= 3


# -- real answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "prompt"),
    [
        (PERSON, "Describe a pilot from Norway as JSON."),
        (
            {
                "type": "object",
                "properties": {
                    "cities": {
                        "type": "array",
                        "items": {"type": "string", "maxLength": 12},
                        "minItems": 3,
                        "maxItems": 3,
                    },
                    "日本": {"type": "string", "pattern": "^[ぁ-ん]{2,5}$"},
                    "share": {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.01},
                },
                "required": ["cities", "日本", "share"],
                "additionalProperties": False,
            },
            "Name three cities.",
        ),
    ],
)
def test_a_small_model_writes_what_fits(
    backend: Backend, grammars: Grammars, schema: dict[str, Any], prompt: str
) -> None:
    text, is_over = said(backend, grammars.of_schema(schema), prompt, 250)
    assert is_over, text
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))


def test_transformers_model_writes_what_fits(smollm2_by_transformers: tuple[Any, Any]) -> None:
    backend = ready_backend(*smollm2_by_transformers)
    text, is_over = said(
        backend, Grammars(backend).of_schema(PERSON), "Describe a pilot from Norway as JSON."
    )
    assert is_over
    jsonschema.validate(json.loads(text), PERSON)


def test_an_answer_that_is_cut_is_not_over(backend: Backend, grammars: Grammars) -> None:
    text, is_over = said(backend, grammars.of_schema(PERSON), "Describe a pilot.", 8)
    assert not is_over
    assert text.lstrip().startswith("{")
    with pytest.raises(ValueError, match=r"."):
        json.loads(text)
