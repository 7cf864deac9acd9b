"""What a run of `benchmarks.speed.end_to_end` found, held against its goals: ratios in one run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Result = dict[str, Any]
OURS, LLAMA = "sakuin", "llama.cpp"
GOAL_MODEL, LARGE_MODEL = "0.5b", "3b"
"""Models that have goals; of the others the same ratios are shown."""

DECODE = {
    "amx": {8192: 3.5, 16384: 5.5, 32768: 8.0, 131072: 15.0},
    "avx512bf16": {8192: 1.7, 16384: 2.5, 32768: 3.5, 131072: 6.0},
}
PREFILL = {
    "amx": {1024: 4.0, 8192: 7.0, 16384: 9.0, 32768: 12.0},
    "avx512bf16": {1024: 1.5, 8192: 3.0, 16384: 4.0, 32768: 5.0},
    "avx2": {1024: 1.2, 8192: 2.0, 16384: 2.5, 32768: 3.0},
}
"""Times as fast as llama.cpp, by kind of machine and tokens. Those without a line of their own have the
nearest's: AVX2 decodes as AVX-512 with BF16, AVX-512 without BF16 prefills as AVX2."""


def kind(flags: frozenset[str], isa: str) -> str:
    """The kind of machine, as goals and files are named: `amx`, else the kernels' name."""
    return "amx" if "amx_bf16" in flags else isa


def goals(result: Result) -> list[Result]:
    """Of each ratio: `model`, `what`, `unit`, `found`, `goal` (None without one), `at_most` and `met` (None
    without a goal)."""
    return [row for name, model in result["models"].items() for row in _of_model(name, model, result["kind"])]


def _of_model(name: str, model: Result, machine: str) -> Iterator[Result]:
    def row(what: str, found: float, goal: float | None, unit: str = "x", at_most: bool = False) -> Result:
        if name not in (GOAL_MODEL, LARGE_MODEL):
            goal = None
        met = None if goal is None else found <= goal if at_most else found >= goal
        return {
            "model": name,
            "what": what,
            "unit": unit,
            "found": found,
            "goal": goal,
            "at_most": at_most,
            "met": met,
        }

    decode, prefill = _values(model, "decode_ms"), _values(model, "prefill_s")
    for library, found in model.get("libraries", {}).items():
        ratio = found[OURS] / found[LLAMA]
        yield row(f"decode at 1K over llama.cpp's time ({library})", ratio, 0.95, at_most=True)
    for tokens, by in sorted(decode.items()):
        if OURS in by and LLAMA in by:
            goal = DECODE.get(machine, DECODE["avx512bf16"]).get(tokens)
            yield row(f"decode at {_k(tokens)}, faster than llama.cpp", by[LLAMA] / by[OURS], goal)
    yield from _flat(name, decode, row)
    for tokens, by in sorted(prefill.items()):
        if OURS in by and LLAMA in by:
            goal = PREFILL.get(machine, PREFILL["avx2"]).get(tokens)
            yield row(f"prefill at {_k(tokens)}, faster than llama.cpp", by[LLAMA] / by[OURS], goal)
    yield from _shares(model, row)
    yield from _rest(model, row)


def _flat(name: str, decode: dict[int, dict[str, float]], row: Any) -> Iterator[Result]:
    """How much slower a token becomes from 1K to the longest context that has a goal."""
    at, goal = (32768, 1.2) if name == LARGE_MODEL else (131072, 2.5)
    if OURS in decode.get(at, {}) and OURS in decode.get(1024, {}):
        ratio = decode[at][OURS] / decode[1024][OURS]
        yield row(f"decode at {_k(at)} over 1K", ratio, goal, at_most=True)


def _shares(model: Result, row: Any) -> Iterator[Result]:
    for each in model["rows"]:
        if each["way"] == OURS and each["nominal"] == 8192 and "matrix_share" in each:
            yield row("share of the matrix rate in prefill at 8K", each["matrix_share"], 0.75, "share")
        if each["way"] == OURS and each["nominal"] == 1024 and "attention_share" in each:
            yield row("sakuin's share of a step at 1K", each["attention_share"], 0.08, "share", True)


def _rest(model: Result, row: Any) -> Iterator[Result]:
    if "memory" in model:
        yield row("peak over file, KV and index", model["memory"]["over"], 300e6, "bytes", True)
    if OURS in model.get("load_s", {}):
        yield row("load", model["load_s"][OURS], 1.5, "s", True)
    if "together" in model:
        found = model["together"]
        ratio = found["together_per_s"] / found["alone_per_s"]
        yield row(f"{found['sequences']} sequences together over one by one", ratio, 2.5)


def _values(model: Result, value: str) -> dict[int, dict[str, float]]:
    """By nominal tokens and way."""
    found: dict[int, dict[str, float]] = {}
    for row in model["rows"]:
        if value in row:
            found.setdefault(row["nominal"], {})[row["way"]] = row[value]
    return found


def _k(tokens: int) -> str:
    return f"{tokens // 1024}K"


def said(row: Result, value: str) -> str:
    """`found` or `goal` of a row of `goals`, in words; "" where there is none."""
    found = row[value]
    if found is None:
        return ""
    sign = ("<= " if row["at_most"] else ">= ") if value == "goal" else ""
    if row["unit"] == "share":
        return f"{sign}{100 * found:.0f} %"
    if row["unit"] == "bytes":
        return f"{sign}{found / 1e6:.0f} MB"
    return f"{sign}{found:.2f} {row['unit']}"
