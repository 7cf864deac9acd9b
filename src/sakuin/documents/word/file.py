"""From the bytes of a Word file to a document. A Word file has no pages of its own: where one ends depends on
the machine that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sakuin.documents import kinds
from sakuin.documents.document import Document, Mark
from sakuin.documents.word.asides import Asides
from sakuin.documents.word.blocks import Block, Blocks
from sakuin.documents.word.found import Found
from sakuin.documents.word.inline import Inline
from sakuin.documents.word.names import child
from sakuin.documents.word.numbering import Numbering
from sakuin.documents.word.parts import Parts
from sakuin.documents.word.styles import Styles
from sakuin.documents.words import with_and
from sakuin.errors import SakuinError
from sakuin.quantities import listed


def read(data: bytes, name: str) -> Document:
    """The document in the Word file `data`."""
    kinds.check_word(data, name)
    try:
        found, parts = Found(), Parts(data, name)
        blocks = list(_Reader(parts, name, found).blocks())
    except RecursionError:
        raise SakuinError(f"{name} nests its tables too deeply to be read; save it as PDF.") from None
    text, marks = _joined(blocks)
    if not any(char.isalnum() for char in text):
        lacks = found.lacks()
        has = f" and holds only {with_and(lacks)}" if lacks else ""
        raise SakuinError(
            f"{name} has no text{has}; if it is a scan, run text recognition (OCR) over it first."
        )
    notes = found.notes(name)
    if parts.missing:
        notes.append(
            f"{name} is damaged and lacks {listed(parts.missing)}: what it says there of looks, numbers or "
            "notes was not read; open it in Word and save it anew."
        )
    return Document(name, text, marks, tuple(notes))


class _Reader:
    def __init__(self, parts: Parts, name: str, found: Found) -> None:
        self._parts, self._found = parts, found
        self._body = child(parts.root(parts.main), "w:body")
        if self._body is None:
            raise SakuinError(f"{name} is damaged: its text is missing; open it in Word and save it anew.")
        self._styles = Styles(parts.related("styles"))
        self._numbering = Numbering(parts.related("numbering"), self._styles)
        self._asides = Asides(parts, found)
        self._asides.read = self._plain

    def blocks(self) -> Iterator[Block]:
        """Page headers, the running text with each footnote after the block that refers to it, endnotes, page
        footers."""
        headers, footers = self._asides.margins(self._body)
        yield from map(Block, headers)
        for group in self._of(self._parts.main).groups(self._body):
            yield from group
            yield from map(Block, self._asides.notes("footnote"))
        yield from map(Block, self._asides.notes("endnote"))
        yield from map(Block, footers)

    def _plain(self, path: str, element: Any, in_margin: bool) -> str:
        return self._of(path, in_margin).plain(element)

    def _of(self, path: str, in_margin: bool = False) -> Blocks:
        relations = self._parts.relations(path).items()
        links = {name: target for name, (kind, target) in relations if kind == "hyperlink"}
        inline = Inline(self._styles, self._asides, self._found, links, in_margin=in_margin)
        return Blocks(self._styles, self._numbering, inline, self._found)


def _joined(blocks: list[Block]) -> tuple[str, tuple[Mark, ...]]:
    """The text of blocks, lists without blank lines in them, and where the headings are."""
    pieces: list[str] = []
    marks: list[Mark] = []
    length = 0
    for number, block in enumerate(blocks):
        if number:
            tight = block.kind == blocks[number - 1].kind == "list"
            pieces.append("\n" if tight else "\n\n")
            length += len(pieces[-1])
        if block.heading:
            marks.append(Mark(length, heading=block.heading))
        pieces.append(block.text)
        length += len(block.text)
    return "".join(pieces), tuple(marks)
