"""What is known of a sheet beside the values of its cells, and the sentences on what is lost of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from sakuin.documents.links import bare
from sakuin.documents.sheets.figures import Format
from sakuin.documents.words import struck_out, with_and
from sakuin.errors import SakuinError
from sakuin.quantities import counted, listed

MOST_CELLS = 20_000_000
"""Cells of a sheet, the empty ones in its rectangle included."""

Place = tuple[int, int]
"""Row and column, counted from 0."""

_LONGEST_RANGE = 60
"""Characters of the names of cells and sheets that a note says."""

_UNREAD = ("picture", "chart", "diagram", "embedded file")


@dataclass
class Sheet:
    """Of one sheet, by place: formats of numbers, texts that are more than their value, which cells are
    struck out as a whole, notes on cells and where their links lead. merged : first and last place of cells
    that are one. boxes : what is written in text boxes. height, width : how far filled cells reach."""

    formats: dict[Place, Format] = field(default_factory=dict)
    texts: dict[Place, str] = field(default_factory=dict)
    struck: set[Place] = field(default_factory=set)
    comments: dict[Place, str] = field(default_factory=dict)
    links: dict[Place, str] = field(default_factory=dict)
    merged: list[tuple[Place, Place]] = field(default_factory=list)
    boxes: list[str] = field(default_factory=list)
    height: int = 0
    width: int = 0

    def reach(self, place: Place) -> None:
        """There is a filled cell at this place."""
        self.height, self.width = max(self.height, place[0] + 1), max(self.width, place[1] + 1)


def check_reach(height: int, width: int, name: str) -> None:
    """Raise `SakuinError` where a sheet reaches over more cells than are read."""
    if height * width > MOST_CELLS:
        raise SakuinError(
            f"{name} has a sheet of {counted(height, 'row')} and {counted(width, 'column')}, and at most "
            f"{MOST_CELLS:,} cells are read; save the part that matters as CSV."
        )


def add_link(text: str, target: str) -> str:
    """The text of a cell with where its link leads, unless the text says that."""
    said = target.removeprefix("mailto:")
    return text if not text or bare(target) in text.lower() else f"{text} ({said})"


def ruled(cells: str, sheet: str) -> str:
    """Where rules of a sheet strike cells out."""
    cells = " ".join(cells.split())
    short = cells if len(cells) <= _LONGEST_RANGE else f"{cells[:_LONGEST_RANGE].rpartition(' ')[0]} …"
    return f"{short} of {sheet[:_LONGEST_RANGE]!r}".strip()


def notes_on(lacks: Counter[str], name: str, ruled: Iterable[str] = ()) -> list[str]:
    """Sentences on what is hidden in a workbook, struck out, and not read of it.

    ruled : where rules strike cells out, which nothing here works out.
    """
    notes = [struck_out(name, lacks["struck"])] if lacks["struck"] else []
    if where := list(dict.fromkeys(ruled)):
        notes.append(
            f"conditional formatting of {name} strikes cells out in {listed(where)}; it was not worked out, "
            "and none of them is marked for it: save the workbook as PDF to have what it shows."
        )
    hidden = [counted(lacks[each], each) for each in ("hidden row", "hidden column") if lacks[each]]
    if hidden:
        were = "was" if lacks["hidden row"] + lacks["hidden column"] == 1 else "were"
        notes.append(f"{with_and(hidden)} of {name} {were} read too.")
    if without := lacks["formula"]:
        read = "has no stored value and is" if without == 1 else "have no stored value and are"
        notes.append(
            f"{counted(without, 'formula')} of {name} {read} read as empty; open the file in a "
            "spreadsheet and save it."
        )
    if unread := [counted(lacks[each], each) for each in _UNREAD if lacks[each]]:
        notes.append(f"not read of {name}: {with_and(unread)}.")
    return notes
