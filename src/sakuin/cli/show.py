"""How commands print: the consoles, the progress bar, tables of names and values. Nothing here knows of
models.

All that a command prints goes through here, and nothing that is printed is believed: no text is markup or the
name of a picture, and what could steer the terminal is taken out (`sakuin.cli.printable`). Styles of our own
are given as `style`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.table import Table
from rich.text import Text

from sakuin.cli.printable import Stream, as_json, one_line, printable

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

JSON_HELP = "Print one JSON object instead of text."

_NARROWEST = 20
"""Columns of the narrowest terminal that is laid out for: rich prints nothing at all into none."""


class _Status(Status):
    """What is being done: one line, which is no markup."""

    def update(self, status: RenderableType | None = None, **how: Any) -> None:
        super().update(_plain(status) if isinstance(status, str) else status, **how)


class _Console(Console):
    """Prints what it is given as it is, but for what would steer the terminal."""

    def __init__(self, **how: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True, **how)

    @property
    def size(self) -> ConsoleDimensions:
        found = super().size
        return ConsoleDimensions(max(found.width, _NARROWEST), found.height)

    @size.setter
    def size(self, new: tuple[int, int]) -> None:
        self._width, self._height = new

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(printable(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        # Whatever came as rich's own `Text`, and not as a string, is seen here for the first time.
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)

    def status(self, status: RenderableType, **how: Any) -> Status:
        if not self.encoding.startswith("utf"):
            how["spinner"] = "line"
        return _Status(_plain(status) if isinstance(status, str) else status, console=self, **how)

    def on_broken_pipe(self) -> None:
        """Left to `sakuin.cli.errors`, which knows the exit code."""
        raise BrokenPipeError


console = _Console()
"""Results: standard output."""

notes = _Console(stderr=True)
"""Progress and remarks: standard error."""


_wide = _Console(width=200)


def say(text: str) -> None:
    """One line of a result on standard output, at once."""
    _write(one_line(text) + "\n")


def say_json(value: Any) -> None:
    """One line of JSON on standard output, at once."""
    _write(as_json(value) + "\n")


def tell(text: str) -> None:
    """A remark on standard error, in one line."""
    notes.print(one_line(text), style="dim")


def complain(text: str, end: str = "\n") -> None:
    """A line on standard error, at once, whatever state that is in."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # nobody reads it
            print(printable(text), end=end, file=sys.stderr, flush=True)


class Written:
    """An answer on standard output as it grows."""

    def __init__(self) -> None:
        self._stream = Stream()
        self.anything = False

    def __call__(self, piece: str) -> None:
        self.anything = True
        _write(self._stream.feed(piece))

    def end(self) -> None:
        """The answer is whole: end its line, if there is one."""
        rest = self._stream.end()
        if self.anything:
            _write(rest + "\n")


def show_table(table: Table) -> None:
    """A table on standard output, whole: rich takes 80 columns where that is no terminal, `print` cannot take
    more, and figures cut short say nothing."""
    fits = _wide.measure(table).maximum <= console.width
    (console if fits else _wide).print(table)


def bar(*more: ProgressColumn) -> Progress:
    """A progress bar on standard error, gone when it is done; nothing where that is no terminal."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
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
        table.add_row(one_line(name), one_line(value))
    return table


def _plain(text: str) -> Text:
    return Text(one_line(text))


def _write(text: str) -> None:
    """Characters that standard output has no bytes for become question marks."""
    out = sys.stdout
    if out is None:  # closed by whoever started us
        return
    try:
        out.write(text)
    except UnicodeEncodeError:
        encoding = out.encoding or "ascii"
        out.write(text.encode(encoding, "replace").decode(encoding))
    out.flush()
