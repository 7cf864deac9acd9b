"""What an XLSX workbook says of its cells beside their values: formats, what is hidden, notes, formulas."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from sakuin.documents.words import counted, listed

_PERCENT = frozenset((9, 10))
"""Numbers of the formats of percentages that every workbook has without saying so."""

_CURRENCY = re.compile(r"\[\$([^\]-]*)[^\]]*\]")
_ASIDE = re.compile(r"\[[^\]]*\]|[_*].")
_CELL = re.compile(r"([A-Z]{1,3})(\d{1,7})")
_LONGEST_UNIT = 12


@dataclass(frozen=True)
class Format:
    """How a number is shown: as a percentage, with signs before and after it."""

    percent: bool = False
    before: str = ""
    after: str = ""


@dataclass
class Sheet:
    """Of one sheet, by row and column counted from 0: formats of numbers, and notes on cells."""

    formats: dict[tuple[int, int], Format] = field(default_factory=dict)
    comments: dict[tuple[int, int], str] = field(default_factory=dict)


class Workbook:
    """A workbook's XML; of other kinds than XLSX nothing is known."""

    def __init__(self, data: bytes) -> None:
        self._lacks: Counter[str] = Counter()
        self._archive: zipfile.ZipFile | None = None
        self._paths: dict[str, str] = {}
        self._formats: list[Format | None] = []
        if data.startswith(b"PK"):
            archive = zipfile.ZipFile(io.BytesIO(data))
            if "xl/workbook.xml" in archive.namelist():
                self._archive = archive
                self._open()

    def sheet(self, name: str) -> Sheet:
        """What there is to know of the sheet of this name."""
        found = Sheet()
        path = self._paths.get(name)
        if self._archive is None or path is None or path not in self._archive.namelist():
            return found
        with self._archive.open(path) as file:
            for tag, element in _elements(file, ("c", "row", "col")):
                if tag == "c":
                    self._cell(element, found)
                elif element.get("hidden") in ("1", "true"):
                    span = 1
                    if tag == "col":
                        span = int(element.get("max", "1")) - int(element.get("min", "1")) + 1
                    self._lacks[f"hidden {'row' if tag == 'row' else 'column'}"] += span
        for kind, target in self._related(path):
            if kind.endswith("/comments") and target in self._archive.namelist():
                self._comments(target, found)
        return found

    def notes(self, name: str) -> list[str]:
        """Sentences on what is hidden in the workbook, and on what is not read of it."""
        if self._archive is None:
            return []
        notes = []
        hidden = [
            counted(self._lacks[thing], thing)
            for thing in ("hidden row", "hidden column")
            if self._lacks[thing]
        ]
        if hidden:
            notes.append(f"{listed(hidden)} of {name} were read too.")
        if without := self._lacks["formula"]:
            read = "has no stored value and is" if without == 1 else "have no stored value and are"
            notes.append(
                f"{counted(without, 'formula')} of {name} {read} read as empty; open the file in a "
                "spreadsheet and save it."
            )
        inside = self._archive.namelist()
        lacks = [
            counted(count, thing)
            for thing, start in (("picture", "xl/media/"), ("chart", "xl/charts/chart"))
            if (count := sum(1 for entry in inside if entry.startswith(start)))
        ]
        if lacks:
            notes.append(f"not read of {name}: {listed(lacks)}.")
        return notes

    def _open(self) -> None:
        assert self._archive is not None
        targets = {}
        with self._archive.open("xl/workbook.xml") as file:
            names = [
                (element.get("name"), next((v for k, v in element.items() if k.endswith("}id")), None))
                for _, element in _elements(file, ("sheet",))
            ]
        for number, target in self._relations("xl/workbook.xml"):
            targets[number] = target[1]
        self._paths = {str(name): targets[key] for name, key in names if key in targets}
        if "xl/styles.xml" not in self._archive.namelist():
            return
        codes: dict[int, str] = {}
        cells: list[Format | None] = []
        with self._archive.open("xl/styles.xml") as file:
            for tag, element in _elements(file, ("numFmt", "xf", "cellStyleXfs", "cellXfs")):
                if tag == "numFmt":
                    codes[int(element.get("numFmtId", "0"))] = element.get("formatCode", "")
                elif tag == "xf":
                    form = int(element.get("numFmtId", "0"))
                    self._formats.append(_format(form, codes.get(form, "")))
                elif tag == "cellStyleXfs":  # those before were styles by name, not of cells
                    self._formats.clear()
                elif tag == "cellXfs":
                    cells = list(self._formats)
        self._formats = cells

    def _cell(self, element: Any, found: Sheet) -> None:
        place = _place(element.get("r", ""))
        style = element.get("s")
        if place and style and style.isdigit() and int(style) < len(self._formats):
            form = self._formats[int(style)]
            if form is not None:
                found.formats[place] = form
        tags = {child.tag.rpartition("}")[2]: child for child in element}
        value = tags["v"].text if "v" in tags else None
        if "f" in tags and not value and element.get("t") != "str":  # its value may be an empty text
            self._lacks["formula"] += 1

    def _comments(self, path: str, found: Sheet) -> None:
        assert self._archive is not None
        with self._archive.open(path) as file:
            for _, element in _elements(file, ("comment",)):
                words = " ".join("".join(
                    part.text or "" for part in element.iter() if str(part.tag).endswith("}t")
                ).split())  # fmt: skip
                if (place := _place(element.get("ref", ""))) and words:
                    found.comments[place] = words

    def _related(self, path: str) -> Iterator[tuple[str, str]]:
        for _, kind_and_target in self._relations(path):
            yield kind_and_target

    def _relations(self, path: str) -> Iterator[tuple[str, tuple[str, str]]]:
        """By number, kind and path of what a part of the workbook names."""
        assert self._archive is not None
        folder, _, file_name = path.rpartition("/")
        where = f"{folder}/_rels/{file_name}.rels"
        if where not in self._archive.namelist():
            return
        with self._archive.open(where) as file:
            for _, element in _elements(file, ("Relationship",)):
                target = element.get("Target", "")
                target = target[1:] if target.startswith("/") else posixpath.join(folder, target)
                yield element.get("Id", ""), (element.get("Type", ""), posixpath.normpath(target))


def _elements(file: IO[bytes], tags: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """The elements of these names, one after another; each is emptied when the next is asked for. Damage ends
    them: the cells themselves are calamine's."""
    from lxml import etree

    try:
        for _, element in etree.iterparse(
            file,
            events=("end",),
            tag=[f"{{*}}{tag}" for tag in tags],
            resolve_entities=False,
            no_network=True,
        ):
            yield element.tag.rpartition("}")[2], element
            if element.tag.rpartition("}")[2] != "xf":
                element.clear()
            while element.getparent() is not None and element.getprevious() is not None:
                del element.getparent()[0]
    except etree.XMLSyntaxError:
        return


def _format(number: int, code: str) -> Format | None:
    """What a format adds to a number; None where nothing."""
    if number in _PERCENT:
        return Format(percent=True)
    section = code.split(";")[0]
    section = _ASIDE.sub("", _CURRENCY.sub(lambda found: f'"{found[1]}"', section))
    signs = {"before": "", "after": ""}
    side = "before"
    for piece in re.findall(r'"[^"]*"|\\.|.', section):
        if piece in "0#?":
            side = "after"
        elif piece[0] == '"':
            signs[side] += piece[1:-1]
        elif piece[0] == "\\":
            signs[side] += piece[1:]
        elif piece in "$€£¥ ":
            signs[side] += piece
    if side == "before":  # a date, or a text
        return None
    percent = "%" in re.sub(r'"[^"]*"', "", section)
    before, after = signs["before"].lstrip(), signs["after"].rstrip()
    if len(before) > _LONGEST_UNIT or len(after) > _LONGEST_UNIT or not (percent or before or after):
        return Format(percent=True) if percent else None
    return Format(percent, before, after)


def _place(reference: str) -> tuple[int, int] | None:
    """Row and column, counted from 0, of a cell's name: B3 is (2, 1)."""
    if not (found := _CELL.fullmatch(reference)):
        return None
    column = 0
    for letter in found[1]:
        column = column * 26 + ord(letter) - 64
    return int(found[2]) - 1, column - 1
