"""What a schema leaves open and no answer should use: properties that it does not name, numbers without end.

A schema that says nothing of other properties allows them, and a small model goes on to write them until its
tokens are spent. So whatever an answer is not asked for, it cannot write. Every answer that fits the narrowed
schema fits the one that was sent. Called by `sakuin.server.constraints.grammars` for schemas that were
checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sakuin.server.constraints.checked import LISTS, MAPS, ONE

LARGEST = (1 << 53) - 1
"""The largest whole number that every reader of JSON takes exactly (RFC 8259, section 6)."""

_OTHERS = frozenset({"additionalProperties", "patternProperties", "minProperties"})
_CASES = frozenset({"anyOf", "$ref"})
_BOUNDS = frozenset({"enum", "const", "multipleOf"})


def narrowed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """`schema` with objects closed that name their properties, and whole numbers of at most 16 digits.

    A schema that says one value twice (`allOf`, properties beside `anyOf` or `$ref`) or that counts its cases
    (`oneOf`) is returned as it came: what one place closes, another could ask for.
    """
    if any(_says_twice(each) for each in _schemas(schema)):
        return dict(schema)
    found: dict[str, Any] = _narrowed(schema)
    return found


def _narrowed(schema: Any) -> Any:
    if not isinstance(schema, Mapping):  # true or false
        return schema
    return {word: _value(word, value) for word, value in _one(schema).items()}


def _value(word: str, value: Any) -> Any:
    """A keyword's value, with the schemas in it narrowed."""
    if word in ONE:
        return _narrowed(value)
    if word in LISTS:
        return [_narrowed(each) for each in value]
    if word in MAPS:
        return {name: _narrowed(each) for name, each in value.items()}
    return value


def _one(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema narrowed, not those in it."""
    found = dict(schema)
    named = schema.get("properties")
    if named and not _OTHERS & schema.keys() and set(schema.get("required", ())) <= named.keys():
        found["additionalProperties"] = False
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "integer" in kinds and "number" not in kinds and not _BOUNDS & schema.keys():
        least = [schema[word] for word in ("minimum", "exclusiveMinimum") if word in schema]
        most = [schema[word] for word in ("maximum", "exclusiveMaximum") if word in schema]
        if not least and all(value > -LARGEST for value in most):
            found["minimum"] = -LARGEST
        if not most and all(value < LARGEST for value in least):
            found["maximum"] = LARGEST
    return found


def _says_twice(schema: Mapping[str, Any]) -> bool:
    if "allOf" in schema or "oneOf" in schema:
        return True
    cases = _CASES & schema.keys()
    return len(cases) > 1 or bool(cases and schema.keys() - cases - {"$defs", "definitions", "type"})


def _schemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    """A schema and all in it."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    for word, value in schema.items():
        if word in ONE:
            yield from _schemas(value)
        elif word in LISTS:
            for each in value:
                yield from _schemas(each)
        elif word in MAPS:
            for each in value.values():
                yield from _schemas(each)
