"""Answers that must have a form: what may come next, what is refused, and what real models write so."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import torch

from sakuin.backends.base import Backend
from sakuin.context.checks import ready_backend
from sakuin.errors import SakuinError
from sakuin.server.constraints.grammars import Grammar, Grammars
from sakuin.server.problems import Problem
from sakuin.server.schemas.tools import FunctionTool, NamedTool, ToolChoice

PERSON = {
    "type": "object",
    "title": "Person",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "role": {"enum": ["Arzt", "医者", "pilot 🎉", None, 3]},
        "address": {"$ref": "#/$defs/address"},
        "scores": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3},
        "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
    },
    "required": ["name", "age", "role", "address", "scores", "code"],
    "additionalProperties": False,
    "$defs": {
        "address": {
            "type": "object",
            "description": "where it is",
            "properties": {"city": {"type": "string", "maxLength": 12}, "zip": {"type": ["integer", "null"]}},
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


@pytest.fixture(scope="module")
def backend(smollm2: tuple[Any, Any]) -> Backend:
    return ready_backend(*smollm2)


@pytest.fixture(scope="module")
def grammars(backend: Backend) -> Grammars:
    return Grammars(backend)


def logits_of(backend: Backend) -> torch.Tensor:
    return torch.zeros(len(backend.vocabulary.token_bytes()))


def allowed(backend: Backend, constraint: Any) -> set[int]:
    masked = constraint.allow(logits_of(backend))
    return set(torch.isfinite(masked).nonzero().flatten().tolist())


def fits(backend: Backend, grammar: Grammar | None, text: str) -> bool:
    """Whether an answer of this text may be given, each token allowed and its end where it ends."""
    assert grammar is not None
    constraint, ends = grammar.begin(), backend.vocabulary.end_tokens
    for token in backend.vocabulary.encode(text).ids:
        may_come = allowed(backend, constraint)
        assert bool(may_come & ends) == constraint.may_end
        if token not in may_come:
            return False
        constraint.take(token)
    return constraint.may_end and allowed(backend, constraint) >= ends


def said(
    backend: Backend,
    grammar: Grammar,
    prompt: str,
    most: int = 160,
    choose: Callable[[torch.Tensor], int] = lambda logits: int(logits.argmax()),
) -> tuple[str, bool]:
    """What the model says under a grammar, greedily, and whether it came to an end."""
    vocabulary, constraint = backend.vocabulary, grammar.begin()
    asked = vocabulary.render([{"role": "user", "content": prompt}], answer=True)
    cache, taken = backend.new_cache(None), []
    logits = backend.forward(cache, vocabulary.special(asked))
    while not constraint.is_over and len(taken) < most:
        taken.append(choose(constraint.allow(logits)))
        if not constraint.take(taken[-1]):
            logits = backend.forward(cache, taken[-1:])
    return vocabulary.decode(taken), constraint.is_over


# -- the bytes of tokens -------------------------------------------------------------------------------------

TEXTS = [
    "Plain words, and some more.",
    'Hello wörld 日本語 🎉👩‍👩‍👧\n\n  a   b\t{"a": 1}',
    "<|im_start|>system <b> <0x41> \x00\x7f é\u0301",
]


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_of_tokens_give_the_text_back(either: tuple[Any, Any], text: str) -> None:
    vocabulary = ready_backend(*either).vocabulary
    pieces = vocabulary.token_bytes()
    assert b"".join(pieces[token] or b"?" for token in vocabulary.encode(text).ids).decode() == text


def test_special_tokens_and_ends_have_no_bytes(either: tuple[Any, Any]) -> None:
    vocabulary = ready_backend(*either).vocabulary
    pieces = vocabulary.token_bytes()
    assert all(pieces[token] is None for token in vocabulary.end_tokens)
    assert [pieces[token] for token in vocabulary.special("<|im_start|>")] == [None]
    for token in range(0, len(pieces), 97):
        piece = pieces[token]
        assert vocabulary.decode([token]) == (piece or b"").decode("utf-8", "replace")


def test_both_backends_tell_the_same_bytes(
    smollm2: tuple[Any, Any], smollm2_by_transformers: tuple[Any, Any]
) -> None:
    one, other = (ready_backend(*each).vocabulary for each in (smollm2, smollm2_by_transformers))
    assert one.token_bytes() == other.token_bytes()


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_of_tokens_of_a_vocabulary_of_pieces(gemma3: tuple[Any, Any], text: str) -> None:
    from sakuin import load

    for vocabulary in (ready_backend(*gemma3).vocabulary, ready_backend(*load_gemma(load)).vocabulary):
        pieces = vocabulary.token_bytes()
        assert b"".join(pieces[token] or b"?" for token in vocabulary.encode(text).ids).decode() == text
        assert all(pieces[token] is None for token in vocabulary.end_tokens)


def load_gemma(load: Any, kept: dict[str, Any] = {}) -> Any:  # noqa: B006
    """Gemma by transformers, once."""
    if not kept:
        kept["it"] = load("gemma3-270m", backend="transformers", device="cpu")
    return kept["it"]


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
        json.dumps(GOOD),
        json.dumps(GOOD, indent=4),
        json.dumps(GOOD, separators=(",", ":")),
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
    assert not fits(backend, grammar, json.dumps(GOOD)[:-1])
    assert not fits(backend, grammar, json.dumps(GOOD) + "x")


def test_any_json_is_an_object(backend: Backend, grammars: Grammars) -> None:
    grammar = grammars.of_json()
    for good in ("{}", '{"a": [1, {"b": null}, "\\u00e9"], "": -1.5e-3}'):
        assert fits(backend, grammar, good)
    for wrong in ("[]", "1", '{"a": 01}', "{'a': 1}", '{"a": 1,}', '{"a": NaN}', '{"a": "\n"}', " {}"):
        assert not fits(backend, grammar, wrong)


def test_blanks_end(backend: Backend, grammars: Grammars) -> None:
    """A small model that likes blanks must come to the next word."""
    blanks = [i for i, piece in enumerate(backend.vocabulary.token_bytes()) if piece and not piece.strip()]
    liked = logits_of(backend)
    liked[blanks] = 100.0
    for grammar in (grammars.of_json(), grammars.of_schema(PERSON), grammars.of_schema(TREE)):
        constraint, written = grammar.begin(), []
        for _ in range(400):
            token = int(constraint.allow(liked + torch.rand(len(liked))).argmax())
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
    closing = {i for i, piece in enumerate(pieces) if piece and piece.strip()[-1:] in (b'"', b"}", b"]")}
    judge = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    grammar, chosen, whole = grammars.of_schema(schema), random.Random(5), 0
    for _ in range(12):
        constraint, taken = grammar.begin(), []
        for _ in range(300):
            may_come = sorted(allowed(backend, constraint))
            ends = [token for token in may_come if token in closing or token in backend.vocabulary.end_tokens]
            taken.append(chosen.choice(ends if ends and chosen.random() < 0.6 else may_come))
            if constraint.take(taken[-1]):
                break
        if constraint.is_over:
            whole += 1
            text = b"".join(pieces[token] or b"" for token in taken).decode()
            judge.validate(json.loads(text))
    assert whole >= 6


# -- real answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "prompt"),
    [
        (PERSON, "Describe a pilot from Norway as JSON."),
        (TREE, "Draw a family tree as JSON."),
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
    with pytest.raises(ValueError, match="."):
        json.loads(text)


# -- tools ---------------------------------------------------------------------------------------------------

TOOLS = [
    FunctionTool(
        name="get_weather",
        parameters={
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/c"}},
            "required": ["city"],
            "additionalProperties": False,
            "$defs": {"c": {"enum": ["Oslo", "東京"]}},
        },
    ),
    FunctionTool(name="now"),
]
OSLO = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
BAD = OSLO.replace("Oslo", "Rome")
THE_NOW = NamedTool(type="function", function={"name": "now"})


@pytest.mark.parametrize(
    ("choice", "parallel", "good", "wrong"),
    [
        (
            "auto",
            True,
            ["", "hi", OSLO, f"Look: {OSLO}\n{NOW} ok", "a < b <tool"],
            [BAD, f"So {BAD}", OSLO[:-3]],
        ),
        ("auto", False, ["hi", OSLO, f"Look: {NOW}"], [BAD, f"{OSLO}\n{NOW}"]),
        ("required", True, [OSLO, f"{OSLO}\n{NOW}"], ["", "hi", BAD, f"So {OSLO}", f"{OSLO} bye"]),
        ("required", False, [OSLO, NOW], ["hi", f"{OSLO}\n{NOW}"]),
        (THE_NOW, True, [NOW], ["hi", OSLO, f"{NOW}\n{NOW}"]),
    ],
)
def test_calls_are_held_to_their_tools(
    backend: Backend,
    grammars: Grammars,
    choice: ToolChoice,
    parallel: bool,
    good: list[str],
    wrong: list[str],
) -> None:
    grammar = grammars.of_tools(TOOLS, choice, parallel=parallel)
    for text in good:
        assert fits(backend, grammar, text), text
    for text in wrong:
        try:
            assert not fits(backend, grammar, text), text
        except SakuinError as error:
            assert "does not fit" in str(error)  # it was over before


def test_calls_of_one_answer_are_bounded(backend: Backend, grammars: Grammars) -> None:
    grammar = grammars.of_tools(TOOLS, "required")
    assert fits(backend, grammar, "\n".join([NOW] * 16))
    with pytest.raises(SakuinError, match="does not fit"):
        fits(backend, grammar, "\n".join([NOW] * 17))


def test_no_grammar_where_nothing_is_asked(grammars: Grammars) -> None:
    assert grammars.of_tools(TOOLS, "none") is None
    assert grammars.of_tools([], "auto") is None


def test_a_choice_that_cannot_be_is_refused(grammars: Grammars) -> None:
    other = NamedTool(type="function", function={"name": "other"})
    with pytest.raises(Problem, match=r"names other, which is none of the tools \(get_weather, now\)"):
        grammars.of_tools(TOOLS, other)
    with pytest.raises(Problem, match="there are no tools"):
        grammars.of_tools([], "required")
    with pytest.raises(Problem, match="must be the schema of an object") as caught:
        grammars.of_tools([FunctionTool(name="a", parameters={"type": "string"})])
    assert caught.value.param == "tools.0.function.parameters"
    with pytest.raises(Problem, match="uniqueItems") as caught:
        grammars.of_tools([TOOLS[1], FunctionTool(name="a", parameters={"uniqueItems": True})])
    assert caught.value.param == "tools.1.function.parameters"


def test_a_small_model_calls_the_tool(backend: Backend, grammars: Grammars) -> None:
    grammar = grammars.of_tools(TOOLS, "required", parallel=False)
    assert grammar is not None
    text, is_over = said(backend, grammar, "How is the weather in Oslo?")
    assert is_over
    body = json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    assert body["name"] in ("get_weather", "now")


# -- what is refused -----------------------------------------------------------------------------------------


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
            "oneOf is not supported where its cases overlap",
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


@pytest.mark.parametrize(
    "word", ["title", "default", "examples", "$schema", "$comment", "deprecated", "x-order"]
)
def test_what_asks_nothing_is_passed_over(backend: Backend, grammars: Grammars, word: str) -> None:
    grammar = grammars.of_schema(
        {"type": "object", "properties": {word: {word: "x", "type": "null"}}, word: "x"}
    )
    assert fits(backend, grammar, json.dumps({word: None}))


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


STRING = {"type": "string"}
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
    start = time.process_time()
    try:
        constraint = grammars.of_schema(schema).begin()
        for _ in range(30):
            token = chosen.choice(sorted(allowed(backend, constraint)))
            if constraint.take(token):
                break
    except Problem as problem:
        assert problem.status == 400
        assert len(str(problem)) < 500
        assert "\n" not in str(problem)
    print(f"{name}: {time.process_time() - start:.2f} s")
