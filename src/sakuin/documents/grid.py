"""Tables as Markdown, one line a row, each cell in its column whatever is merged.

A cell that reaches over rows or columns is said again in each, as far as it is short: every row then stands
for itself. One that takes its whole row, such as a title between rows, is said once.
"""

from __future__ import annotations

from dataclasses import dataclass

_MOST_COLUMNS = 1000
_SAID_AGAIN = 100
"""Characters of a merged cell up to which it is said again."""


@dataclass
class Cell:
    """A cell of a table. rows, columns : over how many it reaches."""

    text: str
    columns: int = 1
    rows: int = 1


def written(rows: list[list[Cell]]) -> str:
    """The rows as a Markdown table, whose first line is its head; "" where nothing is in it.

    A row without cells is no line, but cells above it reach over it.
    """
    placed, starts = _placed(rows)
    # Columns in which no cell begins are only the width of others.
    columns = sorted(starts)
    lines = [
        [row.get(column, "") for column in columns] for row, own in zip(placed, rows, strict=True) if own
    ]
    if not any(any(line) for line in lines):
        return ""
    head, *body = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([head, "| " + " | ".join(["---"] * len(columns)) + " |", *body])


def _placed(rows: list[list[Cell]]) -> tuple[list[dict[int, str]], set[int]]:
    """By row, the text in each column; and the columns in which a cell begins."""
    starts: set[int] = set()
    placed: list[dict[int, str]] = []
    reaching: dict[int, tuple[int, str]] = {}  # by column: for how many more rows, and the text
    widest = max((sum(cell.columns for cell in row) for row in rows), default=0)
    for row in rows:
        line = {column: text for column, (_, text) in reaching.items()}
        left = {column: (more - 1, text) for column, (more, text) in reaching.items() if more > 1}
        column = 0
        for cell in row:
            while column in line:
                column += 1
            if column >= _MOST_COLUMNS:
                break
            text = in_a_cell(cell.text)
            alone = len(row) == 1 and not reaching and cell.columns >= widest
            again = "" if alone or len(text) > _SAID_AGAIN else text
            starts.add(column)
            for offset in range(min(cell.columns, _MOST_COLUMNS - column)):
                if offset and column + offset in line:
                    break
                line[column + offset] = again if offset else text
                if cell.rows > 1:
                    left[column + offset] = (cell.rows - 1, "" if len(text) > _SAID_AGAIN else text)
            column += 1
        placed.append(line)
        reaching = left
    return placed, starts


def in_a_cell(text: str) -> str:
    """A text in one line: its own lines are parted by `<br>`, and a bar in it is none of the table's."""
    lines = (" ".join(line.split()) for line in text.strip().split("\n"))
    return "<br>".join(line for line in lines if line).replace("|", "\\|")


def flat(rows: list[list[Cell]]) -> str:
    """A table inside another one's cell: its cells parted by commas, its rows by semicolons."""
    lines = (", ".join(" ".join(cell.text.split()) for cell in row if cell.text.strip()) for row in rows)
    return "; ".join(line for line in lines if line)
