"""What an XLSX workbook says of its cells beside their values: formats, what is struck out, raised or hidden,
notes, links, text boxes, errors, formulas."""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from sakuin.documents.pieces import Piece, joined
from sakuin.documents.sheets.cells import Place, Sheet, notes_on, ruled
from sakuin.documents.sheets.figures import Format, parsed

_CELL = re.compile(r"([A-Z]{1,3})(\d{1,7})")
_HYPERLINK = re.compile(r'HYPERLINK\(\s*"((?:[^"]|"")+)"', re.I)
_UNREAD = (
    ("picture", "xl/media/"),
    ("chart", "xl/charts/chart"),
    ("diagram", "xl/diagrams/data"),
    ("embedded file", "xl/embeddings/"),
)
_SCRIPTS = {"superscript": "^", "subscript": "_"}


class _Style(NamedTuple):
    """How cells look: their format, and whether they are struck out."""

    form: Format | None = None
    struck: bool = False


class _Run(NamedTuple):
    """A run of a text. struck : None where it is as its cell."""

    text: str
    struck: bool | None = None
    script: str = ""


class Workbook:
    """The XML of an XLSX workbook."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._inside = frozenset(archive.namelist())
        self._lacks: Counter[str] = Counter()
        self._paths: dict[str, str] = {}
        self._styles: list[_Style] = []
        self._texts: dict[int, list[_Run]] = {}
        self._striking: set[str] = set()  # numbers of looks that rules give cells
        self._ruled: list[str] = []
        self._open()

    def sheet(self, name: str) -> Sheet:
        """What there is to know of the sheet of this name."""
        found = Sheet()
        path = self._paths.get(name)
        if path is None or path not in self._inside:
            return found
        relations = dict(self._relations(path))
        columns: list[tuple[int, int]] = []
        row, column = -1, -1
        with self._archive.open(path) as file:
            for tag, element in _elements(file, ("c", "row", "col", "hyperlink", "conditionalFormatting")):
                if tag == "c":
                    above = element.getparent().get("r", "")
                    here = int(above) - 1 if above.isdecimal() else row + 1
                    place = _place(element.get("r", "")) or (here, column + 1)
                    column = place[1]
                    self._cell(element, place, found)
                    continue
                if tag == "row":
                    number = element.get("r", "")
                    row, column = int(number) - 1 if number.isdecimal() else row + 1, -1
                elif tag == "hyperlink":
                    self._link(element, relations, found)
                    continue
                elif tag == "conditionalFormatting":
                    if any(self._strikes(rule) for rule in element.iterchildren("{*}cfRule")):
                        cells = element.get("sqref") or element.findtext("{*}sqref") or ""
                        self._ruled.append(ruled(cells, name))
                    continue
                if element.get("hidden") not in ("1", "true"):
                    continue
                if tag == "row":
                    self._lacks["hidden row"] += 1
                else:
                    columns.append((int(element.get("min", "1")) - 1, int(element.get("max", "1"))))
        for first, end in columns:  # those beyond what is filled are often hidden all
            self._lacks["hidden column"] += max(min(end, found.width) - first, 0)
        for kind, target in relations.values():
            if kind.endswith("/comments") and target in self._inside:
                self._comments(target, found)
            elif kind.endswith("/drawing") and target in self._inside:
                self._boxes(target, found)
        return found

    def notes(self, name: str) -> list[str]:
        """Sentences on what is hidden in the workbook, and on what is not read of it."""
        for thing, start in _UNREAD:
            self._lacks[thing] = sum(1 for entry in self._inside if entry.startswith(start))
        return notes_on(self._lacks, name, self._ruled)

    def _open(self) -> None:
        with self._archive.open("xl/workbook.xml") as file:
            names = [
                (element.get("name"), next((v for k, v in element.items() if k.endswith("}id")), None))
                for _, element in _elements(file, ("sheet",))
            ]
        targets = {number: target for number, (_, target) in self._relations("xl/workbook.xml")}
        self._paths = {str(name): targets[key] for name, key in names if key in targets}
        if "xl/styles.xml" in self._inside:
            self._read_styles()
        if "xl/sharedStrings.xml" in self._inside:
            with self._archive.open("xl/sharedStrings.xml") as file:
                for number, (_, element) in enumerate(_elements(file, ("si",))):
                    if runs := _runs(element):
                        self._texts[number] = runs

    def _read_styles(self) -> None:
        codes: dict[int, str] = {}
        struck: list[bool] = []
        styles: list[_Style] = []
        fonts: list[bool] | None = None  # those after their list are of rules
        looks, seen = 0, 0
        tags = ("numFmt", "font", "fonts", "xf", "cellStyleXfs", "cellXfs", "dxf")
        with self._archive.open("xl/styles.xml") as file:
            for tag, element in _elements(file, tags):
                if tag == "numFmt":
                    codes[int(element.get("numFmtId", "0"))] = element.get("formatCode", "")
                elif tag == "font":
                    struck.append(_is_struck(element))
                elif tag == "fonts":
                    fonts, seen = list(struck), len(struck)
                elif tag == "dxf":
                    if any(struck[seen:]):
                        self._striking.add(str(looks))
                    looks, seen = looks + 1, len(struck)
                elif tag == "xf":
                    form, font = int(element.get("numFmtId", "0")), int(element.get("fontId", "0"))
                    within = fonts is not None and font < len(fonts) and fonts[font]
                    styles.append(_Style(parsed(form, codes.get(form, "")), within))
                elif tag == "cellStyleXfs":  # those before were styles by name, not of cells
                    styles.clear()
                elif tag == "cellXfs":
                    self._styles = list(styles)

    def _strikes(self, rule: Any) -> bool:
        """Whether a rule of conditional formatting strikes out the cells that it holds for."""
        own = (_is_struck(font) for font in rule.iterfind("{*}dxf/{*}font"))  # those of newer kinds
        return rule.get("dxfId") in self._striking or any(own)

    def _cell(self, element: Any, place: Place, found: Sheet) -> None:
        number = element.get("s", "")
        style = (
            self._styles[int(number)] if number.isdecimal() and int(number) < len(self._styles) else _Style()
        )
        tags = {child.tag.rpartition("}")[2]: child for child in element if isinstance(child.tag, str)}
        kind, value = element.get("t"), tags["v"].text if "v" in tags else None
        if value or "is" in tags:
            found.reach(place)
            if style.form is not None:
                found.formats[place] = style.form
            if style.struck:
                found.struck.add(place)
        if "f" in tags:
            if not value and kind != "str":  # its value may be an empty text
                self._lacks["formula"] += 1
            if link := _HYPERLINK.match(tags["f"].text or ""):
                found.links[place] = link[1].replace('""', '"')
        runs: list[_Run] = []
        if kind == "e" and value:
            found.texts[place] = value
        elif kind == "s" and value and value.isdecimal():
            runs = self._texts.get(int(value), [])
        elif "is" in tags:
            runs = _runs(tags["is"])
        if runs and (style.struck or any(run.struck or run.script for run in runs)):
            found.struck.discard(place)
            pieces = (Piece(text, style.struck if bare is None else bare, up) for text, bare, up in runs)
            found.texts[place], struck = joined(pieces)
            self._lacks["struck"] += struck
        elif place in found.struck:
            self._lacks["struck"] += 1

    def _link(self, element: Any, relations: dict[str, tuple[str, str]], found: Sheet) -> None:
        """Where the links of cells lead, as far as that is outside the workbook."""
        number = next((value for key, value in element.items() if key.endswith("}id")), "")
        place = _place(element.get("ref", "").partition(":")[0])
        if place and number in relations:
            inside = element.get("location", "")
            found.links[place] = relations[number][1] + (f"#{inside}" if inside else "")

    def _boxes(self, path: str, found: Sheet) -> None:
        with self._archive.open(path) as file:
            for _, element in _elements(file, ("txBody",)):
                lines = (
                    "".join(part.text or "" for part in paragraph.iter("{*}t"))
                    for paragraph in element.iter("{*}p")
                )
                words = " ".join(" ".join(lines).split())
                if words and words not in found.boxes[-1:]:  # the same in two forms follow one another
                    found.boxes.append(words)

    def _comments(self, path: str, found: Sheet) -> None:
        with self._archive.open(path) as file:
            for _, element in _elements(file, ("comment",)):
                words = " ".join("".join(
                    part.text or "" for part in element.iter() if str(part.tag).endswith("}t")
                ).split())  # fmt: skip
                if (place := _place(element.get("ref", ""))) and words:
                    found.comments[place] = words

    def _relations(self, path: str) -> Iterator[tuple[str, tuple[str, str]]]:
        """By number, kind and path of what a part of the workbook names."""
        folder, _, file_name = path.rpartition("/")
        where = f"{folder}/_rels/{file_name}.rels"
        if where not in self._inside:
            return
        with self._archive.open(where) as file:
            for _, element in _elements(file, ("Relationship",)):
                target = element.get("Target", "")
                if element.get("TargetMode") != "External":
                    target = target[1:] if target.startswith("/") else posixpath.join(folder, target)
                    target = posixpath.normpath(target)
                yield element.get("Id", ""), (element.get("Type", ""), target)


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


def _runs(text: Any) -> list[_Run]:
    """The runs of a text of which some are struck out or raised; none of others."""
    runs = []
    for run in text.iterchildren("{*}r"):
        words = "".join(part.text or "" for part in run.iterchildren("{*}t"))
        look = next(run.iterchildren("{*}rPr"), None)
        if look is None:
            runs.append(_Run(words))
            continue
        script = next(look.iterchildren("{*}vertAlign"), None)
        sign = _SCRIPTS.get(script.get("val", ""), "") if script is not None else ""
        runs.append(_Run(words, _is_struck(look), sign))
    return runs if any(run.struck is not None for run in runs) else []


def _is_struck(font: Any) -> bool:
    strike = next(font.iterchildren("{*}strike"), None)
    return strike is not None and strike.get("val", "1") not in ("0", "false")


def _place(reference: str) -> Place | None:
    """Row and column, counted from 0, of a cell's name: B3 is (2, 1)."""
    if not (found := _CELL.fullmatch(reference)):
        return None
    column = 0
    for letter in found[1]:
        column = column * 26 + ord(letter) - 64
    return int(found[2]) - 1, column - 1
