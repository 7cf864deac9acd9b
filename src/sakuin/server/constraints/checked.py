"""JSON schemas as far as answers can be held to them: checked keyword by keyword before any is compiled.

What the library that compiles would pass over in silence is refused here by its name and place, and so is
what would take it seconds: it cannot be stopped once it runs. Called by
`sakuin.server.constraints.grammars`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from sakuin.server.problems import Problem

MAX_BYTES = 1 << 18
"""Of a schema's text. All figures are of one core; docs/structured.md has what was measured."""
MAX_DEPTH = 48
"""Schemas within one another. The library refuses JSON of more than 127 levels."""
MAX_PROPERTIES = 5000
"""Of all objects of a schema together."""
MAX_OPTIONAL = 400
"""Properties of one object that may be left out: each mask takes a time that grows with their square."""
MAX_PATTERN_PROPERTIES = 16
"""Of one object: each is compared with each other."""
MAX_PATTERNS = 1000
MAX_STEPS = 100_000
"""The sum of all `multipleOf`, taken as whole numbers: an automaton has as many states."""

ONE = frozenset({"items", "additionalProperties"})
LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
"""Keywords that hold a schema, a list of schemas, schemas by name."""
_PLAIN = frozenset({"type", "enum", "const", "required", "pattern", "format", "multipleOf", "$ref"}) | {
    *("minProperties", "maxProperties", "minItems", "maxItems", "minLength", "maxLength"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}
_SAID = frozenset({"title", "description", "default", "example", "examples", "deprecated"}) | {
    *("readOnly", "writeOnly", "$comment", "$schema", "discriminator", "contentEncoding", "contentMediaType"),
}
"""Keywords that ask nothing of an answer."""
_REMEDY = {
    "nullable": 'say "type": ["…", "null"] in its place',
    "additionalItems": "say prefixItems and items in its place",
    "$id": "leave it out, and refer by #/$defs/…",
    "dependencies": "leave it out, or say the cases by anyOf",
    "dependentRequired": "leave it out, or say the cases by anyOf",
    "if": "leave it out, or say the cases by anyOf",
}


@dataclass
class _Seen:
    """What was met so far. param : the field that the schema came in."""

    param: str
    places: set[str] = field(default_factory=set)
    references: list[tuple[str, str]] = field(default_factory=list)
    properties: int = 0
    patterns: int = 0
    steps: int = 0

    def wrong(self, place: str, reason: str) -> Problem:
        where = f"at {_shortened(place)}" if place else "at its top"
        return Problem(400, f"The schema in {self.param} {where}: {reason}.", self.param, "invalid_schema")


def checked(schema: Any, param: str) -> dict[str, Any]:
    """`schema` without what asks nothing of an answer.

    param : the field that it came in. Raises `Problem` (400) where it is no schema, has a keyword that
    answers cannot be held to, or is so large that it would keep a server busy.
    """
    seen = _Seen(param)
    if not isinstance(schema, Mapping):
        raise seen.wrong("", "it must be an object")
    size = _size(schema, param)
    if size > MAX_BYTES:
        raise Problem(
            400,
            f"The schema in {param} has {size:,} bytes, and may have {MAX_BYTES:,}: ask for less at once.",
            param,
            "schema_too_large",
        )
    found: dict[str, Any] = _schema(schema, "", 0, seen)
    for place, reference in seen.references:
        target = unquote(reference[1:])
        if not reference.startswith("#") or target not in seen.places:
            raise seen.wrong(
                place,
                f"$ref {_shortened(reference)!r} leads to no schema within it; refer to one by #/$defs/…",
            )
    return found


def _size(schema: Mapping[str, Any], param: str) -> int:
    """Bytes of its text."""
    try:
        return len(json.dumps(schema, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, TypeError, RecursionError):  # NaN, half a character, levels without end
        raise Problem(
            400,
            f"The schema in {param} is not JSON that can be read: it has NaN, half a character or too many "
            "levels; write it without.",
            param,
            "invalid_schema",
        ) from None


def _schema(schema: Any, place: str, depth: int, seen: _Seen) -> Any:
    """A schema without what asks nothing, or True or False."""
    if isinstance(schema, bool):
        seen.places.add(place)
        return schema
    if not isinstance(schema, Mapping):
        raise seen.wrong(place, "a schema must be an object, true or false")
    if depth > MAX_DEPTH:
        raise seen.wrong(place, f"schemas lie more than {MAX_DEPTH} deep; use $ref, or flatten it")
    seen.places.add(place)
    found: dict[str, Any] = {}
    for word, value in schema.items():
        if word in _SAID or (word.startswith("x-") and word != "x-guidance") or (word == "$id" and not place):
            continue
        if value is False and word in ("uniqueItems", "nullable"):
            continue
        found[word] = _value(word, value, f"{place}/{_escaped(word)}", depth, seen)
    _count(found, place, seen)
    return found


def _value(word: str, value: Any, place: str, depth: int, seen: _Seen) -> Any:
    """What a keyword says."""
    if word in ONE:
        if isinstance(value, list):
            raise seen.wrong(place, "a list of schemas is said by prefixItems")
        return _schema(value, place, depth + 1, seen)
    if word in LISTS:
        if not isinstance(value, list) or not value:
            raise seen.wrong(place, "it must be a list of schemas")
        return [_schema(each, f"{place}/{i}", depth + 1, seen) for i, each in enumerate(value)]
    if word in MAPS:
        if not isinstance(value, Mapping):
            raise seen.wrong(place, "it must be an object of schemas")
        return {k: _schema(v, f"{place}/{_escaped(k)}", depth + 1, seen) for k, v in value.items()}
    if word not in _PLAIN:
        above = place.rpartition("/")[0]
        raise seen.wrong(above, f"{_shortened(word)} is not supported: {_REMEDY.get(word, 'leave it out')}")
    for problem in _plain(word, value):
        raise seen.wrong(place, problem)
    if word == "$ref":
        seen.references.append((place, value))
    return value


def _plain(word: str, value: Any) -> Iterator[str]:
    """What is wrong with the value of a keyword that holds no schemas."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if word in ("$ref", "pattern", "format") and not isinstance(value, str):
        yield "it must be a string"
    if word.startswith(("min", "max", "exclusive", "multiple")) and not number:
        yield "it must be a number"
    if word in ("enum", "required") and not isinstance(value, list):
        yield "it must be a list"
    if word == "multipleOf" and number and value <= 0:
        yield "it must be more than 0"


def _count(schema: Mapping[str, Any], place: str, seen: _Seen) -> None:
    """Add up what takes time to compile. Raises `Problem` where it is too much."""
    properties = schema.get("properties", {})
    seen.properties += len(properties)
    seen.patterns += ("pattern" in schema) + len(schema.get("patternProperties", ()))
    if "multipleOf" in schema:
        seen.steps += _whole(schema["multipleOf"])
    required = schema.get("required", [])
    optional = len(properties.keys() - {name for name in required if isinstance(name, str)})
    for n, most, what in (
        (optional, MAX_OPTIONAL, "properties of one object that may be left out"),
        (len(schema.get("patternProperties", ())), MAX_PATTERN_PROPERTIES, "patternProperties of one object"),
        (seen.properties, MAX_PROPERTIES, "properties in all"),
        (seen.patterns, MAX_PATTERNS, "patterns in all"),
        (seen.steps, MAX_STEPS, "steps of multipleOf in all"),
    ):
        if n > most:
            problem = seen.wrong(place, f"{n:,} {what}, and {most:,} is the most; ask for less at once")
            problem.code = "schema_too_large"
            raise problem


def _whole(number: int | float) -> int:
    """A number with its decimal point left out."""
    said = Decimal(str(number)).normalize().as_tuple()
    exponent = said.exponent if isinstance(said.exponent, int) else 0
    if abs(exponent) > 18:
        return int(MAX_STEPS) + 1
    return int("".join(map(str, said.digits)) + "0" * exponent)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:40]}…{text[-30:]}"
