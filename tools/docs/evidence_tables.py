"""The tables of docs/evidence.md, from benchmarks/answers/evidence.py and
unanswered.py, and benchmarks/speed/evidence_cost.py. Called by tools/docs/tables.py."""

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


def unanswered(result: Row) -> str:
    """Whether texts of other kinds are doubted where they do not answer."""
    columns = {"model": "l", "right answers that are doubted": "r"}
    columns |= {"near questions that are doubted": "r", "far ones": "r"}
    return table(
        columns,
        (
            [one["model"], *(f"{one[f'{kind}_doubted']} of {one[kind]}" for kind in ("right", "near", "far"))]
            for one in result["results"]
        ),
    )


def cost(result: Row) -> str:
    """What evidence and support add to a short question of a stored context."""
    columns = {"model, tokens": "l", "tokens of the answer": "r", "seconds": "r", "without": "r"}
    columns |= {"more (median; quartiles)": "r"}
    return table(
        columns,
        (
            [
                f"{one['model']}, {one['tokens']:,}",
                f"{one['new_tokens']}",
                f"{one['seconds']:.2f}",
                f"{one['bare_seconds']:.2f}",
                f"{percent(one['more'])} ({' to '.join(map(percent, one['more_quartiles']))})",
            ]
            for one in result["results"]
        ),
    )


TABLES: dict[str, tuple[str, Callable[..., str]]] = {
    "evidence-leading": ("evidence-*", leading),
    "evidence-unanswered": ("unanswered", unanswered),
    "evidence-cost": ("evidence_cost", cost),
}
"""As in tools/docs/tables.py."""
