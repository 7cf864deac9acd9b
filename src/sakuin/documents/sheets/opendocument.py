"""What a workbook of OpenDocument (ODS) says of its cells beside their values: units, what is struck out,
raised or hidden, notes, links, merged cells, text boxes, errors, formulas."""

from __future__ import annotations

import contextlib
import datetime
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import IO, Any, NamedTuple

from sakuin.documents.pieces import Piece, joined
from sakuin.documents.sheets import figures
from sakuin.documents.sheets.cells import MOST_CELLS, Place, Sheet, check_reach, notes_on, ruled
from sakuin.documents.sheets.figures import PERCENT, Format, Section, around

_SPACE = "urn:oasis:names:tc:opendocument:xmlns:{}:1.0"
_XLINK = "http://www.w3.org/1999/xlink"
_CALC = "{{urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0}}{}"
_ERROR = _CALC.format("value-type")
_RULES = "conditional-format"
_BOXES = ("text-box", "custom-shape", "rect", "ellipse")
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
"""What damaged and encrypted archives raise: calamine says it."""

_UNREAD = {"image": "picture", "object": "chart"}
_ASIDE = ("annotation", "annotation-end", "shapes", "frame", "custom-shape", "rect", "ruby-text")
_SPACES = {"s": " ", "tab": "\t", "line-break": "\n"}


class _Columns(NamedTuple):
    """Columns from the first up to the end, the style of their cells, and whether they are hidden."""

    first: int
    end: int
    style: str
    hidden: bool


class _Look(NamedTuple):
    struck: bool | None = None
    script: str = ""


class OpenDocument:
    """The XML of an ODS workbook."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._lacks: Counter[str] = Counter()
        self._looks: dict[tuple[str, str], tuple[_Look, str]] = {}
        self._sheets: dict[str, Sheet] = {}
        self._columns: list[_Columns] = []
        self._sheet = Sheet()
        self._name = ""
        self._maps: dict[str, None] = {}  # styles that a rule gives cells of another one
        self._ruled: list[str] = []
        self._y = 0
        for path in ("styles.xml", "content.xml"):
            if path in archive.namelist():
                with contextlib.suppress(*_DAMAGE), archive.open(path) as file:
                    self._read(file)

    def sheet(self, name: str) -> Sheet:
        """What there is to know of the sheet of this name."""
        return self._sheets.get(name, Sheet())

    def check_reach(self, name: str) -> None:
        """Raise `SakuinError` where a sheet reaches over more cells than are read."""
        for sheet in self._sheets.values():
            check_reach(sheet.height, sheet.width, name)

    def notes(self, name: str) -> list[str]:
        """Sentences on what is hidden in the workbook, and on what is not read of it."""
        maps = [style for style in self._maps if self._look("table-cell", style).struck]
        return notes_on(self._lacks, name, self._ruled or ["some cells"] * bool(maps))

    def _read(self, file: IO[bytes]) -> None:
        """Read a part from its beginning; rows are forgotten when they have been read. Damage ends it: the
        cells themselves are calamine's."""
        from lxml import etree

        tags = [
            f"{{*}}{tag}"
            for tag in ("table", "table-row", "table-column", "style", _RULES, *_BOXES, *_UNREAD)
        ]
        events = etree.iterparse(
            file, events=("start", "end"), tag=tags, resolve_entities=False, no_network=True,
            remove_comments=True, remove_pis=True,
        )  # fmt: skip
        try:
            for event, element in events:
                self._take(event == "start", element.tag.rpartition("}")[2], element)
        except etree.XMLSyntaxError:
            return

    def _take(self, starts: bool, name: str, element: Any) -> None:
        if name == "table":
            if _is_sheet(element) and starts:
                self._sheet, self._columns, self._y = Sheet(), [], 0
                self._name = _get(element, "table:name")
                self._sheets[self._name] = self._sheet
            elif _is_sheet(element):
                for first, end, _, hidden in self._columns:
                    self._lacks["hidden column"] += hidden * max(min(end, self._sheet.width) - first, 0)
        elif starts:
            return
        elif name == "style":
            self._read_style(element)
        elif name == _RULES:
            looks = (each.get(_CALC.format("apply-style-name"), "") for each in element)
            if any(self._look("table-cell", look).struck for look in looks):
                self._ruled.append(ruled(element.get(_CALC.format("target-range-address"), ""), self._name))
        elif name == "table-column":
            first = self._columns[-1].end if self._columns else 0
            end = first + _times(element, "table:number-columns-repeated")
            style = _get(element, "table:default-cell-style-name")
            self._columns.append(_Columns(first, end, style, _is_hidden(element)))
        elif name == "table-row":
            if any(_is_sheet(each) for each in _around(element)):
                self._row(element)
                element.clear()
                while element.getprevious() is not None:
                    del element.getparent()[0]
        elif name in _UNREAD:
            self._lacks[_UNREAD[name]] += not _is_shadow(element)
        else:
            words = " ".join(self._text(each, _Look())[0] for each in element.iter("{*}p"))
            if words.strip() and not any(
                each.tag.endswith("}annotation") for each in element.iterancestors()
            ):
                self._sheet.boxes.append(" ".join(words.split()))

    def _row(self, row: Any) -> None:
        """Take up the cells of a row."""
        x, y, filled = 0, self._y, False
        times = _times(row, "table:number-rows-repeated")
        style_of_row = _get(row, "table:default-cell-style-name")
        for cell in row.iterchildren("{*}table-cell", "{*}covered-table-cell"):
            across = _times(cell, "table:number-columns-repeated")
            if _is_filled(cell):
                filled = True
                self._sheet.reach((y + times - 1, x + across - 1))
                style = _get(cell, "table:style-name") or style_of_row
                style = style or next((each.style for each in self._columns if x < each.end), "")
                self._cell(cell, style, (y, x), (times, across))
            columns = _times(cell, "table:number-columns-spanned")
            rows = _times(cell, "table:number-rows-spanned")
            if columns > 1 or rows > 1:
                self._sheet.merged.append(((y, x), (y + rows - 1, x + columns - 1)))
            x += across
        if filled and _is_hidden(row):
            self._lacks["hidden row"] += times
        self._y += times

    def _cell(self, cell: Any, style: str, place: Place, times: Place) -> None:
        kind, look = _get(cell, "office:value-type"), self._look("table-cell", style)
        paragraphs = list(cell.iterchildren(_long("text:p")))
        bare = len(paragraphs) == len(cell) and not any(len(each) for each in paragraphs)
        plain = "\n".join("".join(each.itertext()) for each in paragraphs)
        note = link = ""
        struck, form, words = int(look.struck or 0), None, None
        if kind in ("float", "percentage", "currency"):
            form = _format(kind, _get(cell, "office:value"), plain, _get(cell, "office:currency"))
        elif kind == "time":
            words = _length(_get(cell, "office:time-value"))
        elif cell.get(_ERROR) == "error" or (kind in ("", "string") and not bare):
            texts = [self._text(each, look) for each in paragraphs]
            words, struck = "\n".join(text for text, _ in texts), sum(places for _, places in texts)
        if not bare:
            notes = (self._text(each, _Look())[0] for each in cell.iterfind("{*}annotation//{*}p"))
            note = " ".join(" ".join(notes).split())
            links = dict.fromkeys(_get(each, "xlink:href") for each in cell.iterfind("{*}p//{*}a"))
            link = ", ".join(each for each in links if not each.startswith("#"))
        if _get(cell, "table:formula") and not kind and not plain:
            self._lacks["formula"] += times[0] * times[1]
        found = self._sheet
        if found.height * found.width > MOST_CELLS or not (form or words or struck or note or link):
            return  # it is refused, or there is nothing to say
        for at in product(range(place[0], place[0] + times[0]), range(place[1], place[1] + times[1])):
            self._lacks["struck"] += struck
            if form:
                found.formats[at] = form
            if words is not None:
                found.texts[at] = words
            if struck and (words is None or kind == "time"):
                found.struck.add(at)
            if note:
                found.comments[at] = note
            if link:
                found.links[at] = link

    def _text(self, paragraph: Any, look: _Look) -> tuple[str, int]:
        """The text of a paragraph, and in how many places it is struck out."""
        pieces: list[Piece] = []

        def say(text: str | None, look: _Look) -> None:
            if text:
                pieces.append(Piece(text, bool(look.struck), look.script))

        waiting: list[tuple[Any, _Look, bool]] = [(paragraph, look, False)]
        while waiting:
            element, look, after = waiting.pop()
            if after:
                say(element.tail, look)
                continue
            name = element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
            if element is not paragraph:
                waiting.append((element, look, True))
            if name in _ASIDE or not name:
                continue
            if name == "span":
                own = self._look("text", _get(element, "text:style-name"))
                look = _Look(look.struck if own.struck is None else own.struck, own.script or look.script)
            if name in _SPACES:
                say(_SPACES[name] * min(_times(element, "text:c"), 1000), look)
            say(re.sub(r"\s+", " ", element.text or ""), look)
            waiting += [(each, look, False) for each in reversed(element)]
        return joined(pieces)

    def _read_style(self, style: Any) -> None:
        struck, script = None, ""
        for look in style.iterchildren("{*}text-properties"):
            lines = _get(look, "style:text-line-through-style"), _get(look, "style:text-line-through-type")
            if any(lines):
                struck = "none" not in lines
            raised = _get(look, "style:text-position").partition(" ")[0]
            if raised.startswith("super") or re.match(r"[1-9]", raised):
                script = "^"
            elif raised.startswith(("sub", "-")):
                script = "_"
        self._maps |= dict.fromkeys(
            _get(each, "style:apply-style-name") for each in style.iterchildren("{*}map")
        )
        name = _get(style, "style:family"), _get(style, "style:name")
        self._looks[name] = (
            _Look(struck, script if name[0] == "text" else ""),
            _get(style, "style:parent-style-name"),
        )

    def _look(self, family: str, name: str) -> _Look:
        look = _Look()
        for _ in range(20):
            own, above = self._looks.get((family, name), (_Look(), ""))
            look = _Look(own.struck if look.struck is None else look.struck, look.script or own.script)
            if not above:
                break
            name = above
        return look


def _is_sheet(table: Any) -> bool:
    """Whether a table is no table inside another."""
    above = table.getparent()
    return table.tag.endswith("}table") and above is not None and above.tag.endswith("}spreadsheet")


def _around(row: Any) -> Iterator[Any]:
    """The nearest table around a row."""
    for each in row.iterancestors():
        if each.tag.endswith(("}table", "}table-cell")):
            yield each
            return


def _is_hidden(element: Any) -> bool:
    return _get(element, "table:visibility") in ("collapse", "filter")


def _is_filled(cell: Any) -> bool:
    return len(cell) > 0 or bool(_get(cell, "office:value-type") or _get(cell, "table:formula"))


def _is_shadow(element: Any) -> bool:
    """Whether it only stands for another: the picture of a chart."""
    return any(each.tag.endswith("}object") for each in element.itersiblings(preceding=True))


@cache
def _long(name: str) -> str:
    """The name with its namespace, as of "table:name"."""
    short, _, rest = name.partition(":")
    return f"{{{_XLINK if short == 'xlink' else _SPACE.format(short)}}}{rest}"


def _get(element: Any, name: str) -> str:
    return str(element.get(_long(name), ""))


def _times(element: Any, name: str) -> int:
    said = _get(element, name)
    return max(int(said), 1) if said.isdecimal() and len(said) < 12 else 1


def _length(value: str) -> str | None:
    """A length of time of a day or more; None where it is a time of day, which calamine tells."""
    found = re.fullmatch(r"(-?)PT(\d{1,6})H(\d{1,2})M(\d{1,2}(?:[.,]\d+)?)S", value)
    if not found or not (found[1] or int(found[2]) >= 24):
        return None
    seconds = int(found[2]) * 3600 + int(found[3]) * 60 + float(found[4].replace(",", "."))
    return figures.length(datetime.timedelta(seconds=-seconds if found[1] else seconds), None)


def _format(kind: str, value: str, shown: str, currency: str) -> Format | None:
    """What stands around a number, as the sheet shows it or its kind says."""
    if kind == "percentage":
        return PERCENT
    if kind == "float" and shown == value:
        return None
    try:
        section = around(shown, float(value))
    except ValueError:
        section = None
    if kind == "currency" and not (section and (section.before or section.after)):
        section = Section(after=f" {currency}") if currency else section
    return Format((section,)) if section and section != Section() else None
