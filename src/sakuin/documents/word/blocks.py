"""Paragraphs and tables, one block each, in the order in which they stand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from sakuin.documents import grid
from sakuin.documents.boxes import EMPTY, TICKED
from sakuin.documents.equations import omml
from sakuin.documents.grid import Cell
from sakuin.documents.word.found import Found
from sakuin.documents.word.inline import Inline
from sakuin.documents.word.names import child, child_value, is_on, number, tag, value
from sakuin.documents.word.numbering import Label, Numbering
from sakuin.documents.word.styles import Styles

_AROUND = ("w:customXml", "w:smartTag", "w:ins", "w:moveTo", "w:sdtContent", "mc:Choice")
_DEEPEST = 32
"""Tables in tables, boxes in boxes."""

_INDENT = "  "


@dataclass
class Block:
    """A block of text. rows : of a table, whose text is written already."""

    text: str
    kind: Literal["text", "list", "heading", "table"] = "text"
    heading: str | None = None
    rows: list[list[Cell]] = field(default_factory=list)


class Blocks:
    """Reads what holds paragraphs: the running text, a cell, a note, a page header."""

    def __init__(self, styles: Styles, numbering: Numbering, inline: Inline, found: Found) -> None:
        self._styles, self._numbering, self._inline, self._found = styles, numbering, inline, found
        self._depth = 0

    def read(self, around: Any) -> list[Block]:
        """All blocks in an element."""
        return [block for group in self.groups(around) for block in group]

    def plain(self, around: Any, between: str = " / ") -> str:
        """The words of an element in one line."""
        said = (grid.flat(block.rows) if block.rows else block.text for block in self.read(around))
        return between.join(" ".join(words.split()) for words in said if words.strip())

    def groups(self, around: Any) -> Iterator[list[Block]]:
        """The blocks of each paragraph and table in an element, in its order."""
        if self._depth >= _DEEPEST:
            raise RecursionError
        self._depth += 1
        carried = ""
        for each in self._elements(around):
            name = tag(each)
            if name == "w:tbl":
                yield self._table(each)
            elif name == "w:p":
                blocks, carried = self._paragraph(each, carried)
                yield blocks
            elif name == "w:sdt":
                yield self._control(each)
            elif name == "m:oMathPara":
                yield [Block(omml(each))]
            elif name == "w:altChunk":
                self._found.parts += 1
        if carried.strip():
            yield [Block(carried.strip())]
        self._depth -= 1

    def _elements(self, around: Any, *, in_table: bool = False) -> Iterator[Any]:
        """Paragraphs and tables, or what a table is made of, whatever is around them."""
        for each in around:
            name = tag(each)
            if name in _AROUND or (name == "w:sdt" and (in_table or not _is_special(each))):
                yield from self._elements(each, in_table=in_table)
            elif name == "mc:AlternateContent":
                yield from self._elements(each[:1], in_table=in_table)
            else:
                yield each

    def _control(self, control: Any) -> list[Block]:
        properties = child(control, "w:sdtPr")
        if (box := child(properties, "w14:checkbox")) is not None:
            return [Block(TICKED if is_on(child(box, "w14:checked"), "w14:val") else EMPTY)]
        said = self.plain(child(control, "w:sdtContent"), " ")
        self._found.prompts += bool(said)
        return [Block(f"[{said}]")] if said else []

    def _paragraph(self, paragraph: Any, carried: str) -> tuple[list[Block], str]:
        """The blocks of a paragraph, and what of it belongs to the next one."""
        properties = child(paragraph, "w:pPr")
        style = self._styles.of_paragraph(properties)
        text = carried + self._inline.text(paragraph, style)
        boxes, self._inline.boxes = self._inline.boxes, []
        mark = child(properties, "w:rPr")
        blocks: list[Block] = []
        joins = any(child(mark, name) is not None for name in ("w:del", "w:moveFrom"))
        if not joins and value(child(properties, "w:framePr"), "w:dropCap") in ("drop", "margin"):
            text, joins = text.strip(), True  # a large first letter
        if not joins and (text.strip() or not self._styles.look(mark, style).hidden):
            label = self._numbering.label(properties, style)
            blocks += self._written(text.strip(), label, style, self._styles.outline(properties, style))
        for box in boxes:
            blocks += self.read(box)
        return blocks, text if joins else ""

    def _written(self, text: str, label: Label | None, style: str, outline: int | None) -> list[Block]:
        if not text and (label is None or label.bullet):
            return []
        before = f"{label.text} " if label and label.text else ""
        if outline is not None and text:
            words = " ".join(f"{before if label and not label.bullet else ''}{text}".split())
            return [Block(f"{'#' * min(outline + 1, 6)} {words}", "heading", words)]
        if label is not None:
            indent = _INDENT * label.level
            lines = f"{before}{text}".rstrip().replace("\n", "\n" + indent + " " * len(before))
            return [Block(indent + lines, "list")]
        return [Block(text, "list" if self._styles.name(style).startswith("toc ") else "text")]

    def _table(self, table: Any) -> list[Block]:
        read: list[list[tuple[Cell, list[Block]]]] = []
        reaching: dict[int, Cell] = {}
        for row in self._elements(table, in_table=True):
            if tag(row) != "w:tr":
                continue
            properties = child(row, "w:trPr")
            if child(properties, "w:del") is not None:
                self._found.deletions += 1
            elif is_on(child(properties, "w:hidden")):
                self._found.hidden += 1
            else:
                read.append(self._row(row, properties, reaching))
        filled = [[blocks for _, blocks in row if blocks] for row in read]
        if max((len(row) for row in filled), default=0) <= 1 and all(len(row) <= 1 for row in read):
            return [block for row in filled for blocks in row for block in blocks]  # a frame around text
        opens = any(block.kind in ("heading", "table") for row in filled for cell in row for block in cell)
        if len(read) == 1 and opens:
            return [block for row in filled for blocks in row for block in blocks]  # it lays out a page
        rows = [[cell for cell, _ in row] for row in read]
        text = grid.written(rows)
        return [Block(text, "table", rows=rows)] if text else []

    def _row(self, row: Any, properties: Any, reaching: dict[int, Cell]) -> list[tuple[Cell, list[Block]]]:
        before = min(number(child_value(properties, "w:gridBefore"), 0), 64)
        read: list[tuple[Cell, list[Block]]] = [(Cell("", before), [])] if before > 0 else []
        column = max(before, 0)
        for cell in self._elements(row, in_table=True):
            if tag(cell) != "w:tc":
                continue
            said = child(cell, "w:tcPr")
            columns = min(max(number(child_value(said, "w:gridSpan"), 1), 1), 64)
            blocks = self.read(cell) if child(said, "w:cellDel") is None else []
            vertical, horizontal = child(said, "w:vMerge"), child(said, "w:hMerge")
            if horizontal is not None and value(horizontal) != "restart" and read:
                read[-1][0].columns += columns
            elif (
                vertical is not None and value(vertical) != "restart" and _goes_on(reaching, column, columns)
            ):
                reaching[column].rows += 1
            else:
                new = Cell("\n".join(_in_cell(block) for block in blocks), columns)
                read.append((new, blocks))
                for each in range(column, column + columns):
                    reaching.pop(each, None)
                if vertical is not None:
                    reaching[column] = new
            column += columns
        return read


def _goes_on(reaching: dict[int, Cell], column: int, columns: int) -> bool:
    return column in reaching and reaching[column].columns == columns


def _in_cell(block: Block) -> str:
    if block.kind == "table":
        return grid.flat(block.rows)
    return block.heading or block.text


def _is_special(control: Any) -> bool:
    properties = child(control, "w:sdtPr")
    return child(properties, "w14:checkbox") is not None or is_on(child(properties, "w:showingPlcHdr"))
