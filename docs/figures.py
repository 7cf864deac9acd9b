"""The README's figures and the pages' tables, from the JSON files that the benchmarks wrote. Called by
docs/generate.py.

What was not measured is not there: each benchmark writes its file, and each file has its paragraph or table.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from goal_tables import TABLES as GOALS
from tables import TABLES

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
MARKED = re.compile(r"(<!-- (figures|table ([\w-]+)): begin -->\n).*?(<!-- \2: end -->\n)", re.DOTALL)


def inserted(page: str) -> str:
    """`page` with what belongs between its marks: the README's figures, or the table that they name."""

    def filled(mark: re.Match[str]) -> str:
        return mark[1] + ("\n".join(figures()) if mark[3] is None else table(mark[3])) + mark[4]

    return MARKED.sub(filled, page)


def table(name: str) -> str:
    """A table of docs/tables.py and where it comes from; nothing if nothing was measured."""
    pattern, made = TABLES[name]
    found = _results(pattern)
    if not found:
        return ""
    if name in GOALS:
        return made(*found)
    by_machine: dict[str, dict[str, None]] = {}
    for result in found:
        by_machine.setdefault(_machine(result), {})[f"`{result['command']}`"] = None
    said = "; ".join(f"{', '.join(commands)} ({machine})" for machine, commands in by_machine.items())
    return f"{said}:\n\n{made(*found)}"


def _results(pattern: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob(f"{pattern}.json"))]


def figures() -> list[str]:
    """Markdown of every result that there is."""
    parts = []
    for pattern, paragraph in (
        ("decode_depth", _decode),
        ("evaluation-fidelity-*", _fidelity),
        ("evaluation-ruler-*", _ruler),
        ("sketch_step-*", _step),
    ):
        found = _results(pattern)
        if found:
            parts.append(paragraph(found))
    return parts


def _machine(result: dict[str, Any]) -> str:
    m = result["machine"]
    commit = f", commit {m['commit']}" if m.get("commit") else ""
    return f"{m['cpu']}, {m['threads']} threads, kernels {m['isa']}, torch {m['torch']}, {m['date']}{commit}"


def _decode(results: list[dict[str, Any]]) -> str:
    (result,) = results
    dtypes = result["results"]
    lines = [
        "Decode of SmolLM2-135M, milliseconds a token (median), with sakuin beside transformers' own `sdpa`, "
        f"in one run (`{result['command']}`; {_machine(result)}):\n",
        "| tokens | " + " | ".join(f"{d} sakuin | {d} sdpa" for d in dtypes) + " |",
        "|---:|" + "---:|---:|" * len(dtypes),
    ]
    for rows in zip(*(each["depths"] for each in dtypes.values()), strict=True):
        cells = " | ".join(f"{row['sakuin_ms']:.0f} | {row['sdpa_ms']:.0f}" for row in rows)
        lines.append(f"| {rows[0]['depth']} | {cells} |")
    return "\n".join(lines) + "\n"


def _fidelity(results: list[dict[str, Any]]) -> str:
    rows = [
        (result["model"], f"{int(length):,}", row)
        for result in results
        for length, found in result["by_length"].items()
        for row in found
        if row["configuration"] == "balanced"
    ]
    lines = [
        "The next token against full attention, over seven kinds of text that end in questions about facts "
        "planted in them, fp32: KL divergence in nats; *lost* are tokens of the answers that full attention "
        "has right; *touched* is what is read of index and offloaded keys and values, as a share of these at "
        "2 bytes a number (`sakuin eval fidelity`, "
        "[commands and machines](docs/fidelity.md#what-was-found)):\n",
        "| model | context | tokens | mean | worst token | likeliest token the same | lost | touched |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {model} | {length} | {row['tokens']:,} | {row['kl']:.5f} | {row['kl_worst']:.4f} | "
        f"{row['top1']:.1%} | {row['lost']} of {row['retrieved']} | {row['touched_share']:.1%} |"
        for model, length, row in rows
    ]
    return "\n".join(lines) + "\n"


def _ruler(results: list[dict[str, Any]]) -> str:
    lines = [
        "RULER, thirteen tasks on long texts, mean score of 100 with `balanced` beside full attention, fp32 "
        "(`sakuin eval ruler`, [commands, tasks and machines](docs/ruler.md#what-was-found)):\n",
        "| model | context | samples | full attention | sakuin | difference (95 %) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        for row in result["rows"]:
            if row["task"] is None and row["length"] is not None and row["configuration"] == "balanced":
                loss = row["loss"]
                cells = (
                    result["about"]["model"],
                    f"{row['length']:,}",
                    str(loss["pairs"]),
                    f"{row['full']:.1f}",
                    f"{row['score']:.1f}",
                    f"{loss['mean']:+.1f} ({loss['low']:+.1f} to {loss['high']:+.1f})",
                )
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _step(results: list[dict[str, Any]]) -> str:
    lines = [
        "One attention step over 128K keys (head_dim 64, a group of 7, real keys with jitter), each after "
        "256 MB of other memory were read and a step over 4,096 other tokens was done (data cold, code warm);"
        " median milliseconds, mean over layers and queries, and the ratio of the shortest times "
        "(`python benchmarks/sketch_step.py --isa ISA`; "
        f"{_machine(results[-1])}):\n",
        "| kernels | our exact `flat` | `sketch` | ratio | of the shortest |",
        "|---|---:|---:|---:|---:|",
    ]
    for result in results:
        rows = result["results"]
        flat, sketch = (sum(row[f"{name}_ms"] for row in rows) / len(rows) for name in ("flat", "sketch"))
        isa = result["command"].split()[-1]
        lines.append(
            f"| {isa} | {flat:.2f} | {sketch:.2f} | {result['flat_over_sketch']:.1f} | "
            f"{result['flat_over_sketch_best']:.1f} |"
        )
    return "\n".join(lines) + "\n"
