"""What the tables of the docs are written with. Called by tables.py and fidelity_tables.py."""

from __future__ import annotations

from collections.abc import Iterable


def table(columns: dict[str, str], rows: Iterable[list[str]]) -> str:
    """Markdown; `columns` maps titles to alignments, `l` or `r`."""
    rule = "|".join("---" if side == "l" else "---:" for side in columns.values())
    lines = ["| " + " | ".join(columns) + " |", f"|{rule}|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def percent(share: float) -> str:
    """A share with one decimal."""
    return f"{100 * share:.1f} %"
