"""Schemas that answers cannot be held to, and ones that explode."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sakuin.backends.base import Backend
from sakuin.server.constraints.grammars import Constraint, Grammars
from sakuin.server.problems import Problem

STRING = {"type": "string"}


def allowed(backend: Backend, constraint: Constraint) -> list[int]:
    masked = constraint.allow(torch.zeros(backend.shape.vocabulary))
    found: list[int] = torch.isfinite(masked).nonzero().flatten().tolist()
    return found


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"uniqueItems": True}, "uniqueItems is not supported"),
        ({"properties": {"a/b": {"not": {}}}}, "at /properties/a~1b: not is not supported"),
        ({"if": {}, "then": {}}, "if is not supported: leave it out, or say the cases by anyOf"),
        ({"type": "string", "nullable": True}, r'nullable is not supported: say "type"'),
        ({"items": [{}]}, "said by prefixItems"),
        ({"maxlength": 3}, "maxlength is not supported"),
        ({"x-guidance": {"lenient": True}}, "x-guidance is not supported"),
        ({"$ref": "https://example.com/a.json"}, "leads to no schema within it"),
        ({"$ref": "#/$defs/none"}, "leads to no schema within it"),
        ({"$ref": "#/x-hidden", "x-hidden": {"not": {}}}, "leads to no schema within it"),
        ({"$ref": "file:///etc/passwd"}, "leads to no schema within it"),
        ({"properties": {"a": 1}}, "at /properties/a: a schema must be"),
        ({"anyOf": []}, "must be a list of schemas"),
        ({"type": "strin"}, "Invalid type"),
        ({"type": "string", "format": "zipzap"}, "Unknown format: zipzap"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "string", "pattern": "(a)\\1"}, "backreferences"),
        ({"type": "string", "pattern": "("}, "cannot be held to"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, r"minimum \(5\) is greater than maximum \(3\)"),
        (
            {"oneOf": [{"type": "integer"}, {"type": "number"}]},
            "where its cases overlap",
        ),
        ({"$defs": {"n": {"$ref": "#/$defs/n"}}, "$ref": "#/$defs/n"}, "nothing fits it"),
        ({"enum": [float("nan")]}, "NaN"),
        ({"enum": ["\ud800"]}, "half a character"),
        ({"minLength": "3"}, "must be a number"),
        ({"maximum": True}, "must be a number"),
        ({"multipleOf": 0}, "more than 0"),
        ({"multipleOf": 1e300}, "steps of multipleOf"),
        ({"multipleOf": 100_003}, "steps of multipleOf"),
        ({"exclusiveMinimum": True, "minimum": 3}, "must be a number"),
    ],
)
def test_what_cannot_be_held_to_is_refused_by_name(
    grammars: Grammars, schema: dict[str, Any], said: str
) -> None:
    with pytest.raises(Problem, match=said) as caught:
        grammars.of_schema(schema)
    assert caught.value.status == 400
    assert caught.value.param == "response_format"
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("word", ["title", "default", "$schema", "$comment", "x-order"])
def test_what_asks_nothing_is_passed_over(backend: Backend, grammars: Grammars, word: str) -> None:
    grammar = grammars.of_schema(
        {"type": "object", "properties": {word: {word: "x", "type": "null"}}, word: "x"}
    )
    constraint = grammar.begin()
    for token in backend.vocabulary.encode(json.dumps({word: None})).ids:
        assert token in allowed(backend, constraint)
        constraint.take(token)
    assert constraint.is_over


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def doubled(word: str, levels: int) -> dict[str, Any]:
    """Each definition names the one before twice."""
    defs: dict[str, Any] = {"n0": {"type": "string"}}
    for i in range(1, levels):
        defs[f"n{i}"] = {word: [{"$ref": f"#/$defs/n{i - 1}"}] * 2}
    return {"$defs": defs, "$ref": f"#/$defs/n{levels - 1}"}


def named(n: int, schema: Any) -> dict[str, Any]:
    return {f"p{i}": schema(i) if callable(schema) else schema for i in range(n)}


EXPLODING: dict[str, Callable[[], dict[str, Any]]] = {
    "10,000 properties": lambda: {"type": "object", "properties": named(10_000, STRING)},
    "10,000 required": lambda: {"properties": named(10_000, STRING), "required": [*named(10_000, 0)]},
    "400 optional in a list": lambda: {"items": {"type": "object", "properties": named(400, STRING)}},
    "5,000 in objects": lambda: {
        "properties": named(50, {"type": "object", "properties": named(99, STRING)}),
        "required": [*named(50, 0)],
    },
    "48 levels": lambda: deep(48),
    "400 levels": lambda: deep(400),
    "allOf of references": lambda: doubled("allOf", 40),
    "anyOf of references": lambda: doubled("anyOf", 40),
    "a list that never ends": lambda: {
        "$defs": {"n": {"type": "object", "properties": {"c": {"$ref": "#/$defs/n"}}, "required": ["c"]}},
        "$ref": "#/$defs/n",
    },
    "products": lambda: {
        "allOf": [
            {"anyOf": [{"properties": {f"a{i}_{j}": STRING}, "required": [f"a{i}_{j}"]} for j in range(60)]}
            for i in range(3)
        ]
    },
    "enum of 10,000": lambda: {"enum": [f"value {i} of many" for i in range(10_000)]},
    "enum of 100,000": lambda: {"enum": [f"value {i}" for i in range(60_000)]},
    "regex": lambda: {"type": "string", "pattern": "^((a{1,100}){1,100}){1,100}$"},
    "regex and length": lambda: {
        "pattern": "(x+x+)+y",
        "minLength": 1000,
        "maxLength": 5000,
        "type": "string",
    },
    "regex of a megabyte": lambda: {"pattern": "|".join(f"w{i}x*" for i in range(90_000)), "type": "string"},
    "regex far back": lambda: {"pattern": "^.*a.{2000}$", "type": "string"},
    "1,000 regexes": lambda: {
        "properties": named(
            1000, lambda i: {"type": "string", "pattern": f"^([a-z]{{1,{i + 2}}}{i}[a-z]*)+$"}
        )
    },
    "patternProperties": lambda: {"patternProperties": {f"^a{i}_[a-z]+$": STRING for i in range(1000)}},
    "minItems": lambda: {"type": "array", "items": STRING, "minItems": 10**7},
    "maxLength": lambda: {"type": "string", "minLength": 10**6, "maxLength": 10**12},
    "multipleOf": lambda: {"type": "integer", "multipleOf": 99_991},
    "many multipleOf": lambda: {
        "items": {"anyOf": [{"multipleOf": 9973 + i, "type": "integer"} for i in range(99)]}
    },
    "10 MB": lambda: {"const": "x" * 10_000_000},
    "10 MB of words": lambda: {"type": "string", "description": "x" * 10_000_000},
}


@pytest.mark.parametrize("name", EXPLODING)
def test_a_schema_that_explodes_is_refused_or_compiled_and_followed(
    backend: Backend, grammars: Grammars, name: str
) -> None:
    """Whichever: in seconds, and with one sentence. The suite's limit of time is what this fails by."""
    schema, chosen = EXPLODING[name](), random.Random(1)
    refused: Problem | None = None
    try:
        constraint = grammars.of_schema(schema).begin()
        for _ in range(30):
            if constraint.take(chosen.choice(allowed(backend, constraint))):
                break
    except Problem as problem:
        refused = problem
    assert refused is None or (refused.status == 400 and len(str(refused)) < 500 and "\n" not in str(refused))
