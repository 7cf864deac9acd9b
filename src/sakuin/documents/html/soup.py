"""HTML taken apart: the tree of what can be seen, in time that grows with the page's length and no faster.

To take an element out, Beautiful Soup walks over all its siblings: a page of a million comments would take
hours. So what is not to be read never enters the tree, and what is only read for its words, such as a field
of a form, enters it as words. `layout` lays the tree out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from bs4 import BeautifulSoup
from bs4.element import NavigableString, PreformattedString, Tag

from sakuin.documents.boxes import EMPTY, TICKED
from sakuin.documents.html import signs
from sakuin.documents.html.forms import FIELD, Choice, Choices, Forms
from sakuin.documents.html.looks import Look, Sheets

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_UNSEEN = ("script", "style", "template", "head", "svg", "object", "datalist", "rp", "select", "textarea")
_TAKEN = ("title", "style", "svg", "select", "textarea")
"""Elements whose words are gathered and not laid out as they stand."""

_LINES = (
    "address", "aside", "center", "details", "fieldset", "footer", "form", "header", "hgroup", "legend",
    "main", "nav", "search", "summary",
)  # fmt: skip
_BLOCKS = dict.fromkeys(_LINES, "div") | {"menu": "ul", "dir": "ul"} | {"menu": "ul", "dir": "ul"}
"""Elements that are lines of their own on the page, which the layout would join, by what they are like."""

_ELSEWHERE = ("iframe", "frame", "video", "audio", "embed", "canvas", "object")
_BOXES = ("checkbox", "radio", "switch", "menuitemcheckbox", "menuitemradio")
"""Roles of elements that a page draws as boxes itself."""

_HIDING = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
_BLANKS = re.compile(r"[\t \r\n]{2,}|[\t\r]")
_COUNTS = {
    "colspan": re.compile(r"[0-9]{1,4}"),
    "rowspan": re.compile(r"[0-9]{1,5}"),
    "start": re.compile(r"-?[0-9]{1,9}"),
    "value": re.compile(r"-?[0-9]{1,9}"),
}
"""Attributes that are read as numbers, and which numbers are believed."""

_TABLE_PARTS = ("tbody", "thead", "tfoot", "tr", "td", "th")


@dataclass
class _Open:
    """An element that is open. hides : whether it keeps what is in it out of the tree. taken : its words,
    where they are gathered."""

    name: str
    look: Look
    attributes: dict[str, str]
    hides: bool = False
    taken: list[str] | None = None


class Page(BeautifulSoup):
    """The tree of what can be seen of a page.

    pictures, embedded, passages_hidden : how many there are of pictures, of pages and films in the page, and
    of elements with words that the page hides. title_words : the page's title. forms : its fields.
    """

    pictures = embedded = passages_hidden = 0

    def reset(self) -> None:
        super().reset()
        self.pictures = self.embedded = self.passages_hidden = 0
        self.title_words = ""
        self.forms = Forms()
        self.sheets = Sheets()
        self._open: list[_Open] = []
        self._hiding = 0  # open elements that hide
        self._hides_words = False
        self._labels: list[tuple[str, list[str]]] = []
        self._choices: Choices | None = None

    def handle_starttag(
        self, name: str, namespace: Any, nsprefix: Any, attrs: Any, *more: Any, **named: Any
    ) -> Any:
        self.endData()
        name = _BLOCKS.get(name, name)
        look = self.sheets.look(name, attrs).within(self._open[-1].look if self._open else Look())
        one = _Open(name, look, attrs)
        self._open.append(one)
        by_page = "hidden" in attrs or _HIDING.search(attrs.get("style") or "") is not None
        by_page = by_page or (name == "dialog" and "open" not in attrs)
        self.embedded += name in _ELSEWHERE and not by_page and not self._hiding
        if self._hiding or name in _UNSEEN or by_page:
            one.hides = True
            self._hiding += 1
            drawn = any(each.name == "svg" for each in self._open[:-1]) if name == "title" else False
            if name in _TAKEN and not drawn and (not by_page or name == "style"):
                one.taken = []
                self._choices = self._new_choices(attrs) if name == "select" else self._choices
            elif name == "option" and self._choices is not None:
                one.taken = []
            elif name == "optgroup" and self._choices is not None:
                self._choices.group = attrs.get("label") or ""
            return None
        if name == "label":
            self._labels.append((attrs.get("for") or "", []))
        if name in ("img", "input"):  # their words are read where they stand
            self._say(self._picture(attrs) if name == "img" else self._entry(attrs))
            return None
        for attribute, number in _COUNTS.items():
            if attribute in attrs and not number.fullmatch(attrs[attribute]):
                del attrs[attribute]
        element = super().handle_starttag(name, namespace, nsprefix, attrs, *more, **named)
        if (attrs.get("role") or "").lower() in _BOXES and "aria-checked" in attrs:
            self._say(f"{TICKED if attrs['aria-checked'].lower() == 'true' else EMPTY} ")
        return element

    def handle_endtag(self, name: str, nsprefix: Any = None) -> None:
        self.endData()
        name = _BLOCKS.get(name, name)
        one = self._open.pop() if self._open else _Open(name, Look(), {})
        if one.hides:
            self._hiding -= 1
            self._close_hidden(one)
            if not self._hiding:
                self.passages_hidden += self._hides_words and name not in _UNSEEN
                self._hides_words = False
            return
        if name == "label" and self._labels:
            which, words = self._labels.pop()
            if which:
                self.forms.labels.setdefault(which, "".join(words))
        if name not in ("img", "input"):
            super().handle_endtag(name, nsprefix)

    def handle_data(self, data: str) -> None:
        if not self._hiding:
            for _, words in self._labels:
                words.append(data)
            super().handle_data(data)
            return
        if self._open[-1].name in ("script", "template", "style") and self._open[-1].taken is None:
            return
        holder = next((one for one in reversed(self._open) if one.taken is not None), None)
        if holder is not None and holder.taken is not None:
            holder.taken.append(data if holder is self._open[-1] else f" {data}")
        elif data.strip() and not any(one.name in _UNSEEN for one in self._open if one.hides):
            self._hides_words = True

    def endData(self, containerClass: Any = None) -> None:
        if containerClass is not None and issubclass(containerClass, PreformattedString):
            self.current_data = []  # a comment, a declaration, an instruction
        elif self.current_data:
            data = "".join(self.current_data)
            if not self.open_tag_counter.get("pre"):
                # As a browser shows it, and as markdownify will, which takes long for long runs.
                data = _BLANKS.sub(_blank, data)
            look = self._open[-1].look if self._open else Look()
            self.current_data = [signs.marked(data, look)]
        super().endData(containerClass)

    def _say(self, words: str) -> None:
        if words:
            super().handle_data(words)
            self.endData()

    def _picture(self, attributes: dict[str, str]) -> str:
        self.pictures += attributes.get("alt") != ""
        words = " ".join((attributes.get("alt") or attributes.get("title") or "").split())
        return f"[{words}]" if words else ""

    def _entry(self, attributes: dict[str, str]) -> str:
        return self.forms.entry(attributes, bool(self._labels))

    def _new_choices(self, attributes: dict[str, str]) -> Choices:
        spoken = "" if self._labels else attributes.get("aria-label") or ""
        lines = re.match(r"\s*\+?0*([1-9][0-9]{0,3})", attributes.get("size") or "")
        shown = int(lines[1]) if lines else 1
        return Choices(attributes.get("id") or "", spoken, "multiple" in attributes, shown)

    def _close_hidden(self, one: _Open) -> None:
        """An element whose words were gathered ends: say what of them is seen."""
        if one.name == "optgroup" and self._choices is not None:
            self._choices.group = ""
        if one.taken is None:
            return
        words = "".join(one.taken)
        line = " ".join(words.split())
        if one.name == "title":
            self.title_words = self.title_words or line
        elif one.name == "style":
            self.sheets.add(words)
        elif one.name == "option" and self._choices is not None:
            line = one.attributes.get("label") or line
            line = f"{self._choices.group}: {line}" if self._choices.group and line else line
            around = self._open[-1].attributes if self._open and self._open[-1].name == "optgroup" else {}
            can_be = "disabled" not in one.attributes and "disabled" not in around
            self._choices.choices.append(Choice(line, "selected" in one.attributes, can_be))
        elif not self._hiding and one.name == "svg":
            self.pictures += bool(line)
            self._say(f"[{line}]" if line else "")
        elif one.name == "select" and self._choices is not None:
            if not self._hiding:
                self._say(self.forms.chosen(self._choices))
            self._choices = None
        elif not self._hiding and one.name == "textarea":
            self._say(self.forms.area(one.attributes, words, bool(self._labels)))


def _blank(run: re.Match[str]) -> str:
    return "\n" if "\n" in run[0] or "\r" in run[0] else " "


def open_layout_tables(page: Page) -> None:
    """A table that holds headings or tables lays a page out, unless it says that it has data, by a title, a
    head or cells of heads; as a table it would become one line."""
    layout: set[int] = set()
    of_data = _of_data(page)
    for inner in page.find_all(["table", *HEADINGS]):
        # Whether the table that was passed last does; the headings of pages stand in no cell of data.
        lays_out = inner.name in ("h1", "h2") and getattr(inner.find_parent(("td", "th")), "name", "") == "td"
        for around in inner.parents:
            if around.name == "table":
                # Those around it are told already, or by the table of data itself.
                if id(around) in layout or (id(around) in of_data and not lays_out):
                    break
                layout.add(id(around))
                lays_out = True
    if not layout:
        return
    found = [page.find_all("table"), page.find_all(_TABLE_PARTS)]
    opened = [table for table in found[0] if id(table) in layout]
    opened += [part for part in found[1] if id(part.find_parent("table")) in layout]
    for element in opened:
        element.name = "div"


def _of_data(page: Page) -> set[int]:
    """The tables of more than one column that have a title, a head or cells of heads."""
    said: set[int] = set()
    wide: set[int] = set()  # one column is a frame
    for part in page.find_all(("caption", "thead", "th", "td")):
        table = part.find_parent("table")
        if table is None or str(table.get("role") or "").lower() in ("presentation", "none"):
            continue
        if part.name != "td":
            said.add(id(table))
        if part.name in ("th", "td") and part.find_previous_sibling(("th", "td")) is not None:
            wide.add(id(table))
    return said & wide


def mark_headings(page: Page) -> None:
    """Put the signs around the words of each heading that has some."""
    for heading in page.find_all(HEADINGS):
        if heading.find_parent(("td", "th")) is not None:
            heading.name = "p"  # words of a table, which is one passage
        elif heading.get_text(strip=True):
            heading.insert(0, signs.HEADING)
            heading.append(signs.HEADING_END)


def put_boxes_first(page: Page) -> None:
    """A box that stands behind its label is put before it: `Eggs [ ] Nuts [x]` could be read either way.

    Its label is around it, with no other field and no words after it, or just before it and for it.
    """
    met: set[int] = set()  # labels around a box
    for place in page.find_all(string=lambda text: text is not None and FIELD in text):
        box = page.forms.box(str(place))
        if box is None:
            continue
        number, name = box
        label = place.find_parent("label")
        if id(label) in met:
            continue  # it has several fields
        if label is not None:
            met.add(id(label))
            # Words of the label up to the box, of which there must be some, and from it on, of which none.
            strings = list(label.strings)
            at = next(at for at, text in enumerate(strings) if text is place)
            fields = sum(FIELD in text for text in strings)
            words = strings[:at] if fields == 1 and not "".join(strings[at + 1 :]).strip() else []
        else:
            before = place.previous_sibling
            if isinstance(before, NavigableString) and not before.strip():
                before = before.previous_sibling
            words = []
            if name and isinstance(before, Tag) and before.name == "label" and before.get("for") == name:
                words = list(before.strings)
            words = [] if any(FIELD in text for text in words) else words
        first = next((text for text in words if text.strip()), None)
        if first is not None:
            start = len(first) - len(first.lstrip())
            first.replace_with(f"{first[:start]}{page.forms.moved(number)} {first[start:]}")
