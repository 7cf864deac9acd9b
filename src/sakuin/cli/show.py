"""How commands print: the consoles, the progress bar, tables of names and values. Nothing here knows of
models."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

JSON_HELP = "Print one JSON object instead of text."


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Left to `sakuin.cli.errors`, which knows the exit code."""
        raise BrokenPipeError


console = _Console(highlight=False, soft_wrap=True)
"""Results: standard output."""

notes = Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress and remarks: standard error."""


_wide = _Console(highlight=False, soft_wrap=True, width=200)


def show_table(table: Table) -> None:
    """A table on standard output, whole: rich takes 80 columns where that is no terminal, `print` cannot take
    more, and figures cut short say nothing."""
    fits = _wide.measure(table).maximum <= console.width
    (console if fits else _wide).print(table)


def bar(*more: ProgressColumn) -> Progress:
    """A progress bar on standard error, gone when it is done; nothing where that is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        *more,
        TimeRemainingColumn(),
        console=notes,
        transient=True,
        disable=not notes.is_terminal,
    )


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Two columns: names and what they are."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table
