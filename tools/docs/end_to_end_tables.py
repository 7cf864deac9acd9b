"""The tables of docs/speed.md that say what asking a long document takes, a column or two for each kind of
machine, from what benchmarks.speed.end_to_end wrote. Called by tables.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markdown_parts import table

Row = dict[str, Any]
KINDS = {
    "amx": "AMX",
    "avx512bf16": "AVX-512 with BF16",
    "avx512": "AVX-512",
    "avx2": "AVX2",
    "portable": "plain",
}
"""Kinds of machine as the benchmark names them, and for people."""
WAYS = ("sakuin", "llama.cpp", "transformers, sdpa", "transformers, OffloadedCache")
FIGURES = (
    ("prefill_per_s", "tokens/s of prefill", ".0f"),
    ("first_answer_s", "s to the first answer", ".1f"),
    ("decode_ms", "ms a token", ".1f"),
)


def goals(*results: Row) -> str:
    """Every ratio with its goal, a column for each kind of machine."""
    columns = {"model": "l", "what": "l"}
    columns |= dict.fromkeys((KINDS[result["kind"]] for result in results), "r")
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for result in results:
        for row in result["goals"]:
            rows.setdefault((row["model"], row["what"]), {})[result["kind"]] = _cell(row)
    kinds = [result["kind"] for result in results]
    return table(columns, [[*key, *(by.get(kind, "") for kind in kinds)] for key, by in rows.items()])


def _cell(row: Row) -> str:
    found = _said(row["found"], row["unit"])
    if row["goal"] is None:
        return found
    sign, missed = "<=" if row["at_most"] else ">=", "" if row["met"] else ", missed"
    return f"{found} ({sign} {_said(row['goal'], row['unit'])}{missed})"


def _said(value: float, unit: str) -> str:
    if unit == "share":
        return f"{100 * value:.0f} %"
    if unit == "bytes":
        return f"{value / 1e6:.0f} MB"
    return f"{value:.2f} {unit}"


def times(*results: Row) -> str:
    """Pictures, and what was measured by model, length and way; three columns for each kind of machine."""
    columns = {"model": "l", "tokens": "r", "way": "l"}
    columns |= {f"{KINDS[r['kind']]}: {title}": "r" for r in results for _, title, _ in FIGURES}
    found: dict[tuple[str, int, str], dict[str, Row]] = {}
    for result in results:
        for model, measured in result["models"].items():
            for row in measured["rows"]:
                found.setdefault((model, row["nominal"], row["way"]), {})[result["kind"]] = row
    models = [model for model, _, _ in found]
    keys = sorted(found, key=lambda key: (models.index(key[0]), key[1], WAYS.index(key[2])))
    rows = []
    for model, nominal, way in keys:
        by = found[model, nominal, way]
        tokens = f"{next(iter(by.values()))['tokens']:,}"
        cells = [_figure(by.get(r["kind"], {}), name, form) for r in results for name, _, form in FIGURES]
        rows.append([model, tokens, way, *cells])
    return "".join(_picture(result["kind"]) for result in results) + table(columns, rows)


def _picture(kind: str) -> str:
    about = f"{KINDS[kind]}: a token, prefill and the first answer against length, sakuin beside its peers"
    return f"![{about}](pictures/end_to_end-{kind}.svg)\n\n"


def _figure(row: Row, name: str, form: str) -> str:
    return f"{row[name]:{form}}" if name in row else ""


def variants(*results: Row) -> str:
    """Which settings of llama.cpp alone work on which machine, and how fast."""
    columns = {"machine": "l", "model": "l", "library": "l", "KV": "l", "weights": "l"}
    columns |= {"tokens/s of prefill": "r", "ms a token": "r"}
    rows = []
    for result in results:
        for model, measured in result["models"].items():
            for row in measured.get("variants", []):
                weights = "repacked" if row["repacked"] else "as in the file"
                cells = ["ended", ""] if row["died"] else ["not numbers", ""]
                if row.get("finite"):
                    cells = [f"{row['near_per_s']:.0f}", f"{row['near_ms']:.1f}"]
                rows.append([KINDS[result["kind"]], model, row["library"], row["kv"], weights, *cells])
    return table(columns, rows)


def _gemv(*results: Row) -> str:
    """Products of a few rows: how many times as fast as llama.cpp's, and as reading the weight."""
    counts = sorted({row["rows"] for result in results for row in result["rows"]})
    columns = {"kernels": "l", "type": "l"}
    columns |= {f"{n} row{'s' * (n > 1)}: ms": "r" for n in counts}
    columns |= {f"llama.cpp / sakuin, {n}": "r" for n in counts} | {"of reading, 1": "r"}
    rows = []
    for result in results:
        by = {(row["type"], row["rows"]): row for row in result["rows"]}
        for name in dict.fromkeys(row["type"] for row in result["rows"]):
            each = [by.get((name, n)) for n in counts]
            rows.append(
                [
                    result["kernels"],
                    name,
                    *(f"{row['ours_ms']:.1f}" if row else "" for row in each),
                    *(f"{row['ratio']:.1f}" if row else "" for row in each),
                    f"{100 * by[name, 1]['of_reading']:.0f} %",
                ]
            )
    return table(columns, rows)


TABLES: dict[str, tuple[str, Callable[..., str]]] = {
    "end-to-end-goals": ("end_to_end-*", goals),
    "end-to-end-times": ("end_to_end-*", times),
    "end-to-end-llama": ("end_to_end-*", variants),
    "gemv": ("gemv-*", _gemv),
}
"""As in tools/docs/tables.py."""
