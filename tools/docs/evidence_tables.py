"""The tables of docs/evidence.md, from benchmarks/answers/evidence.py. Called by tools/docs/tables.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markdown_parts import percent, table

Row = dict[str, Any]


def leading(*results: Row) -> str:
    """Whose first passage is the sentence that says it, and how support parts what is there from the rest."""
    columns = {"model, tokens": "l", "documents": "r", "answered right": "r", "the sentence leads": "r"}
    columns |= {"AUC": "r", "support, there": "r", "support, taken out": "r"}
    columns |= {"right and doubted": "r", "taken out, not doubted": "r"}
    return table(
        columns,
        (
            [
                f"{result['model']}, {row['length']:,}",
                f"{row['documents']}",
                f"{row['right']}",
                f"{row['leads']} of {row['right']}",
                f"{row['auc']:.3f}",
                f"{row['there']:.2f}",
                f"{row['gone']:.2f}",
                percent(row["doubted"]),
                percent(row["believed"]),
            ]
            for result in results
            for row in result["results"]
        ),
    )


def cost(*results: Row) -> str:
    """What evidence and support add to a short question of a stored context."""
    columns = {"model, tokens": "l", "tokens of the answer": "r", "seconds": "r", "without": "r"}
    columns |= {"more (median; least and most)": "r"}
    return table(
        columns,
        (
            [
                f"{result['model']}, {one['tokens']:,}",
                f"{one['new_tokens']}",
                f"{one['seconds']:.2f}",
                f"{one['bare_seconds']:.2f}",
                f"{percent(one['more'])} ({percent(one['more_least'])} to {percent(one['more_most'])})",
            ]
            for result in results
            if (one := result["cost"])
        ),
    )


TABLES: dict[str, tuple[str, Callable[..., str]]] = {
    "evidence-leading": ("evidence-*", leading),
    "evidence-cost": ("evidence-*", cost),
}
"""As in tools/docs/tables.py."""
