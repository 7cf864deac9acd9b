"""What holds answers to a JSON schema: llguidance beside xgrammar, over the vocabularies of real models.

For each schema and library: milliseconds to compile it, microseconds until a token's mask is there (with
taking the token before it) over answers that fit, and how often the library is right about answers that fit
and ones that do not. Then schemas that explode, each in a process of its own with 8 seconds and 4 GB: how it
ended, seconds and MB.

Run: python -m benchmarks.speed.constraints [--models smollm2 gemma3-270m]
Takes three minutes on one core.
"""

from __future__ import annotations

import json
import pickle
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch

STRING: dict[str, Any] = {"type": "string"}
Encode = Callable[[bytes], list[int]]
INTEGER: dict[str, Any] = {"type": "integer"}
LIBRARIES = ("llguidance", "xgrammar")
SECONDS, BYTES = 8, 4 << 30


def of_object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A schema of an object that has all of these and nothing else."""
    closed = {"type": "object", "required": [*properties], "additionalProperties": False}
    return {"properties": properties, **closed, **more}


TREE = {"name": STRING, "of": {"type": "array", "items": {"$ref": "#/$defs/t"}, "maxItems": 2}}
CASES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "person": (
        of_object(
            {"name": STRING, "age": INTEGER, "tags": {"type": "array", "items": STRING, "maxItems": 2}}
        ),
        ['{"name": "Zoë 東京 🎉", "age": 30, "tags": ["a", "b"]}', '{"name": "", "age": -1, "tags": []}'],
        [
            '{"name": 1, "age": 30, "tags": []}',
            '{"name": "a", "age": 3, "tags": ["a", "b", "c"]}',
            '{"age": 1}',
        ],
    ),
    "any JSON": (
        {"type": "object"},
        ['{"a": [1, 2.5e3, {"b": null}], "c": "text that goes on for a while, as answers do"}', "{}"],
        ["[]", '{"a": 01}', '{"a": 1,}', '{"a": "\n"}'],
    ),
    "range": (
        {"type": "number", "minimum": -1.5, "exclusiveMaximum": 2.25},
        ["-1.5", "0.001", "2.2", "2.2499"],
        ["-1.51", "2.25", "3", "-2"],
    ),
    "integer range": (
        {"type": "integer", "minimum": 5, "maximum": 120},
        ["5", "99", "120"],
        ["4", "121", "-7"],
    ),
    "multiple": ({"type": "integer", "multipleOf": 7}, ["7", "0", "700"], ["8", "71"]),
    "pattern": (
        {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
        ['"AB-123"'],
        ['"AB-12"', '"ab-123"', '"AB-1234"'],
    ),
    "pattern anywhere": ({"type": "string", "pattern": "b+c"}, ['"abbc x"', '"bc"'], ['"ab"', '"cb"']),
    "pattern and length": (
        {"type": "string", "pattern": "^[a-z]+$", "minLength": 3, "maxLength": 5},
        ['"abc"', '"abcde"'],
        ['"ab"', '"abcdef"', '"AB3"'],
    ),
    "date": ({"type": "string", "format": "date"}, ['"2024-02-29"'], ['"2024-13-01"', '"2024-2-1"']),
    "tree": (
        {"$defs": {"t": of_object(TREE)}, "$ref": "#/$defs/t"},
        ['{"name": "a", "of": [{"name": "b", "of": []}]}'],
        ['{"name": "a", "of": [1]}', '{"name": "a"}'],
    ),
    "all of": (
        {
            "allOf": [
                of_object({"a": INTEGER}) | {"additionalProperties": True},
                {"required": ["b"], "properties": {"b": STRING}},
            ]
        },
        ['{"a": 1, "b": "x"}'],
        ['{"a": 1}', '{"a": "x", "b": "x"}'],
    ),
    "one of": (
        {"oneOf": [of_object({"k": {"const": "cat"}, "n": INTEGER}), of_object({"k": {"const": "dog"}})]},
        ['{"k": "cat", "n": 1}', '{"k": "dog"}'],
        ['{"k": "dog", "n": 1}', '{"k": "cow"}'],
    ),
    "optional": (
        {
            "type": "object",
            "properties": {"a": INTEGER, "b": INTEGER, "c": INTEGER},
            "additionalProperties": False,
        },
        ["{}", '{"b": 1}', '{"a": 1, "c": 2}'],
        ['{"d": 1}', '{"a": "x"}', '{"b": 1 "c": 2}'],
    ),
    "open": (
        {"type": "object", "properties": {"a": INTEGER}, "required": ["a"]},
        ['{"a": 1, "more": [1]}'],
        ['{"more": 1}'],
    ),
    "tuple": (
        {"type": "array", "prefixItems": [INTEGER, {"const": "x"}], "items": False},
        ['[1, "x"]'],
        ['[1, "y"]', '[1, "x", 2]'],
    ),
    "keys": (
        {"type": "object", "patternProperties": {"^a[0-9]$": INTEGER}, "additionalProperties": False},
        ['{"a1": 1}'],
        ['{"b1": 1}', '{"a1": "x"}'],
    ),
    "enum of 1,000": (
        {"enum": [f"value {i}" for i in range(1000)]},
        ['"value 7"', '"value 999"'],
        ['"value 1000"'],
    ),
    "300 properties": (
        of_object({f"p{i}": INTEGER for i in range(300)}),
        [json.dumps({f"p{i}": i for i in range(300)})],
        ['{"p1": 1}'],
    ),
    "unique (not supported)": (
        {"type": "array", "items": INTEGER, "uniqueItems": True},
        ["[1, 2]"],
        ["[1, 1]"],
    ),
    "not (not supported)": ({"type": "integer", "not": {"const": 3}}, ["4"], ["3"]),
}

EXPLODING: dict[str, Callable[[], dict[str, Any]]] = {
    "10,000 optional properties": lambda: {
        "type": "object",
        "properties": {f"p{i}": STRING for i in range(10_000)},
    },
    "10,000 required properties": lambda: of_object({f"p{i}": STRING for i in range(10_000)}),
    "enum of 10,000": lambda: {"enum": [f"value {i} of many" for i in range(10_000)]},
    "a pattern in a pattern": lambda: STRING | {"pattern": "^((a{1,100}){1,100}){1,100}$"},
    "a pattern far back": lambda: STRING | {"pattern": "^.*a.{2000}$"},
    "10,000,000 items": lambda: {"type": "array", "items": STRING, "minItems": 10_000_000},
    "1,000,000 letters": lambda: STRING | {"minLength": 1_000_000, "maxLength": 10**9},
    "references doubled 40 times": lambda: {
        "$defs": {"n0": STRING}
        | {f"n{i}": {"anyOf": [{"$ref": f"#/$defs/n{i - 1}"}] * 2} for i in range(1, 40)},
        "$ref": "#/$defs/n39",
    },
    "1,000 patterns of keys": lambda: {"patternProperties": {f"^a{i}_[a-z]+$": STRING for i in range(1000)}},
    "multiples of 999,983": lambda: INTEGER | {"multipleOf": 999_983},
    "10 MB": lambda: {"const": "x" * 10_000_000},
}


class LLGuidance:
    """llguidance, as `sakuin.server.constraints.grammars` uses it; without what is checked before."""

    def __init__(self, pieces: list[bytes | None], ends: list[int], encode: Encode) -> None:
        import llguidance

        self._lib = llguidance

        class Tokens:
            def __init__(self) -> None:
                self.tokens = [piece or b"\xff" + str(i).encode() for i, piece in enumerate(pieces)]
                self.special_token_ids = [i for i, piece in enumerate(pieces) if piece is None]
                self.bos_token_id, self.eos_token_id = None, ends[0]

            def __call__(self, text: bytes) -> list[int]:
                return encode(text)

        self._tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Tokens()), eos_token=ends)
        self._words = np.zeros((len(pieces) + 31) // 32, np.int32)

    def begin(self, schema: dict[str, Any]) -> Any:
        said = json.dumps({**schema, "x-guidance": {"whitespace_pattern": r"[ ]|\n[ ]{0,24}"}})
        matcher = self._lib.LLMatcher(
            self._tokenizer, self._lib.LLMatcher.grammar_from_json_schema(said), log_level=0
        )
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return matcher

    def mask(self, state: Any) -> np.ndarray[Any, Any]:
        state.unsafe_compute_mask_ptr(self._words.ctypes.data, self._words.nbytes)
        if state.is_error():
            raise ValueError(state.get_error())
        return self._words

    def take(self, state: Any, token: int) -> None:
        state.consume_token(token)


class XGrammar:
    """xgrammar, with at most 25 blanks in a row."""

    def __init__(self, pieces: list[bytes | None], ends: list[int], _: Encode) -> None:
        import xgrammar

        self._lib = xgrammar
        tokens = xgrammar.TokenizerInfo([piece or b"" for piece in pieces], stop_token_ids=ends)
        self._compiler = xgrammar.GrammarCompiler(tokens, max_threads=1, cache_enabled=False)
        self._words = xgrammar.allocate_token_bitmask(1, len(pieces))

    def begin(self, schema: dict[str, Any]) -> Any:
        return self._lib.GrammarMatcher(
            self._compiler.compile_json_schema(schema, strict_mode=False, max_whitespace_cnt=25)
        )

    def mask(self, state: Any) -> np.ndarray[Any, Any]:
        if not state.fill_next_token_bitmask(self._words):
            self._words.fill_(-1)
        found: np.ndarray[Any, Any] = self._words[0].numpy()
        return found

    def take(self, state: Any, token: int) -> None:
        state.accept_token(token)


def library(name: str, pieces: list[bytes | None], ends: list[int], encode: Encode) -> Any:
    return {"llguidance": LLGuidance, "xgrammar": XGrammar}[name](pieces, ends, encode)


def followed(held: Any, schema: dict[str, Any], ids: list[int], end: int, times: list[float]) -> bool:
    """Whether an answer may be given; microseconds of each token."""
    state = held.begin(schema)
    for token in [*ids, end]:
        start = perf_counter()
        words = held.mask(state)
        times.append((perf_counter() - start) * 1e6)
        if not words[token // 32] >> (token % 32) & 1:
            return False
        if token != end:
            start = perf_counter()
            held.take(state, token)
            times[-1] += (perf_counter() - start) * 1e6
    return True


def measured(name: str, held: Any, vocabulary: Any, model: str) -> dict[str, Any]:
    """All cases by one library over one vocabulary."""
    end, compiled, times = min(vocabulary.end_tokens), {}, list[float]()
    right = wrong_refused = fit = unfit = 0
    mistaken = []
    for case, (schema, good, bad) in CASES.items():
        start, slow = perf_counter(), list[float]()
        try:
            held.begin(schema)
        except Exception:
            mistaken.append(f"{case}: refused")
            fit, unfit = fit + len(good), unfit + len(bad)
            continue
        compiled[case] = (perf_counter() - start) * 1e3
        answers = [followed(held, schema, vocabulary.encode(text).ids, end, times) for text in good]
        refusals = [not followed(held, schema, vocabulary.encode(text).ids, end, slow) for text in bad]
        fit, unfit, right = fit + len(good), unfit + len(bad), right + sum(answers)
        wrong_refused += sum(refusals)
        if not all(answers + refusals):
            mistaken.append(
                f"{case}: {len(answers) - sum(answers)} fit, {len(refusals) - sum(refusals)} do not"
            )
    ordered = sorted(times)
    return {
        "library": name,
        "model": model,
        "tokens": len(vocabulary.token_bytes()),
        "compile_ms": median(compiled.values()),
        "compile_most_ms": max(compiled.values()),
        "mask_us": median(times),
        "mask_99_us": ordered[int(0.99 * len(ordered))],
        "mask_most_us": ordered[-1],
        "fitting_allowed": f"{right}/{fit}",
        "unfitting_refused": f"{wrong_refused}/{unfit}",
        "mistaken": mistaken,
    }


def explode(name: str, case: str, tokens: str) -> None:
    """Compile one and make its first masks; prints how it ended."""
    pieces, ends = pickle.loads(Path(tokens).read_bytes())
    of_bytes = {piece[0]: i for i, piece in enumerate(pieces) if piece and len(piece) == 1}
    held = library(name, pieces, ends, lambda text: [of_bytes[byte] for byte in text])
    schema = EXPLODING[case]()
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, perf_counter()
    try:
        held.mask(held.begin(schema))
        ended = "compiled"
    except Exception:
        ended = "refused"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"ended": ended, "seconds": perf_counter() - start, "mb": grown / 1024}))


def exploded(name: str, case: str, tokens: str) -> dict[str, Any]:
    """`explode` in a process that ends after a time, or with too much memory."""
    command = [sys.executable, "-m", "benchmarks.speed.constraints", "--explode", name, case, tokens]

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))

    found: dict[str, Any] = {"library": name, "schema": case}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS + 12, preexec_fn=bounded
        )
    except subprocess.TimeoutExpired:
        return found | {"ended": "not within the time", "seconds": float(SECONDS), "mb": None}
    if done.returncode:
        return found | {"ended": "ended the process", "seconds": None, "mb": None}
    return found | json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    if sys.argv[1:2] == ["--explode"]:
        explode(*sys.argv[2:5])
        return
    import sakuin
    from benchmarks.common import argument_parser, command, console, show, write
    from sakuin.backends.open import vocabulary_of

    parser = argument_parser(__doc__)
    parser.add_argument("--models", nargs="+", default=["smollm2", "gemma3-270m"])
    chosen = parser.parse_args()
    results, pairs = [], list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens"
        for model in chosen.models:
            vocabulary = vocabulary_of(sakuin.load(model, device="cpu", backend="llama.cpp")[1])
            pieces, ends = vocabulary.token_bytes(), sorted(vocabulary.end_tokens)
            if not tokens.exists():
                tokens.write_bytes(pickle.dumps((pieces, ends)))

            def encode(text: bytes, vocabulary: Any = vocabulary) -> list[int]:
                found: list[int] = vocabulary.encode(text.decode()).ids
                return found

            for name in LIBRARIES:
                console.print(f"{name}, {model}")
                results.append(measured(name, library(name, pieces, ends, encode), vocabulary, model))
        pairs = [exploded(name, case, str(tokens)) for case in EXPLODING for name in LIBRARIES]
    show("schemas", results[0], (result.values() for result in results))
    show("schemas that explode", pairs[0], (pair.values() for pair in pairs))
    content = {"command": command(), "versions": {name: version(name) for name in LIBRARIES}}
    write(
        "constraints", {**content, "threads": torch.get_num_threads(), "results": results, "exploding": pairs}
    )


if __name__ == "__main__":
    main()
