"""What a schema leaves open and no answer uses: properties that it does not name, numbers without end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from held import fits, said

from sakuin.backends.base import Backend
from sakuin.server.constraints.grammars import Grammars
from sakuin.server.constraints.narrowed import LARGEST, narrowed
from sakuin.server.schemas.tools import FunctionTool

AGE = {"type": "object", "properties": {"years": {"type": "integer"}}, "required": ["years"]}


def test_an_object_ends_with_the_properties_it_names(backend: Backend, grammars: Grammars) -> None:
    items = {"anyOf": [{"$ref": "#/$defs/a"}]}
    grammar = grammars.of_schema({"type": "array", "items": items, "$defs": {"a": AGE}})
    assert fits(backend, grammar, '[{"years": 7}]')
    assert not fits(backend, grammar, '[{"years": 7, "type": "integer"}]')


def test_a_whole_number_has_an_end(backend: Backend, grammars: Grammars) -> None:
    grammar = grammars.of_schema(AGE)
    for years in (0, -7, LARGEST, -LARGEST):
        assert fits(backend, grammar, json.dumps({"years": years}))
    assert not fits(backend, grammar, json.dumps({"years": LARGEST + 1}))


def test_a_call_is_over_when_its_arguments_are_named(backend: Backend, grammars: Grammars) -> None:
    """By itself this model goes on with the schema that it was shown, until its tokens are spent."""
    tool = FunctionTool(name="Age", description="How old somebody is.", parameters=AGE)
    grammar = grammars.of_tools([tool], "required", parallel=False)
    assert grammar is not None
    text, is_over = said(backend, grammar, "Biscuit is a dog and is 7 years old. How old is it?", 60)
    assert is_over
    assert text.count('"years"') == 1


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"properties": {}, "type": "object"},
        {**AGE, "additionalProperties": True},
        {**AGE, "patternProperties": {"^x": {}}},
        {**AGE, "minProperties": 2},
        {**AGE, "required": ["years", "name"]},
        {"type": "integer", "multipleOf": 7},
        {"type": "integer", "minimum": 1 << 60, "maximum": 1 << 61},
        {"type": "integer", "enum": [1 << 60]},
        {"type": ["integer", "number"]},
        {"allOf": [AGE, {"properties": {"name": {"type": "string"}}, "required": ["name"]}]},
        {"oneOf": [AGE, {"type": "null"}]},
        {"properties": {"a": {"type": "null"}}, "anyOf": [{"required": ["b"]}, {"required": ["c"]}]},
        {"$ref": "#/$defs/a", "properties": {"name": {"type": "string"}}, "$defs": {"a": AGE}},
    ],
    ids=str,
)
def test_what_asks_for_more_is_left_open(schema: dict[str, Any]) -> None:
    open_integers = json.loads(json.dumps(schema).replace('{"type": "integer"}', '{"type": "string"}'))
    assert narrowed(open_integers) == open_integers


def test_all_that_fits_narrowed_fits_what_was_sent() -> None:
    found = narrowed({**AGE, "properties": {"years": {"type": ["integer", "null"], "minimum": 3}}})
    assert found["additionalProperties"] is False
    assert found["properties"]["years"] == {"type": ["integer", "null"], "minimum": 3, "maximum": LARGEST}
    assert narrowed({"type": "integer", "exclusiveMaximum": -(1 << 60)}) == {
        "type": "integer",
        "exclusiveMaximum": -(1 << 60),
    }
