"""Puts what was measured into the pages: findings, each a paragraph, and tables. They come from the JSON
files that the benchmarks wrote. Called by tools/docs/generate.py.

What was not measured is not there: each benchmark writes its file, and each file has its paragraph or table.
"""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any

from commands import today
from findings import FINDINGS
from goal_tables import TABLES as GOALS
from markdown_parts import table as markdown
from places import RESULTS
from tables import TABLES as OF_PAGES

MARKED = re.compile(r"(<!-- (finding|table) ([\w-]+): begin -->\n).*?(<!-- \2 \3: end -->\n)", re.DOTALL)

Row = dict[str, Any]


def inserted(page: str) -> str:
    """`page` with what belongs between its marks: the findings and tables that they name."""

    def filled(mark: re.Match[str]) -> str:
        return mark[1] + (finding if mark[2] == "finding" else table)(mark[3]) + mark[4]

    return MARKED.sub(filled, page)


def finding(name: str) -> str:
    """A paragraph of tools/docs/findings.py; nothing if nothing was measured."""
    pattern, made = FINDINGS[name]
    found = _results(pattern)
    if not found:
        return ""
    words = " ".join(made(*found).split())
    return textwrap.fill(words, 118, break_long_words=False, break_on_hyphens=False) + "\n"


def table(name: str) -> str:
    """A table and what wrote it; nothing if nothing was measured."""
    pattern, made = TABLES[name]
    found = _results(pattern)
    if not found:
        return ""
    if name in GOALS:
        return made(*found)
    by_machine: dict[str, dict[str, None]] = {}
    for result in found:
        by_machine.setdefault(_machine(result), {})[f"`{today(result['command'])}`"] = None
    said = "; ".join(f"{', '.join(commands)} ({machine})" for machine, commands in by_machine.items())
    return f"{said}:\n\n{made(*found)}"


def _results(pattern: str) -> list[Row]:
    return [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob(f"{pattern}.json"))]


def _machine(result: Row) -> str:
    m = result["machine"]
    commit = f", commit {m['commit']}" if m.get("commit") else ""
    return f"{m['cpu']}, {m['threads']} threads, kernels {m['isa']}, torch {m['torch']}, {m['date']}{commit}"


def _decode(result: Row) -> str:
    """Milliseconds a token by context length, as in the README's picture."""
    dtypes = result["results"]
    columns = {"tokens": "r"} | {f"{dtype} {name}": "r" for dtype in dtypes for name in ("sakuin", "sdpa")}
    lengths = zip(*(found["depths"] for found in dtypes.values()), strict=True)
    rows = [
        [
            f"{each[0]['depth']:,}",
            *(f"{row[f'{name}_ms']:.0f}" for row in each for name in ("sakuin", "sdpa")),
        ]
        for each in lengths
    ]
    return markdown(columns, rows)


TABLES = {"decode": ("decode_depth", _decode), **OF_PAGES}
"""All tables."""
