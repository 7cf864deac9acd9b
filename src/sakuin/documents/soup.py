"""HTML taken apart and laid out, in time that grows with its length and no faster.

To take an element out, Beautiful Soup walks over all its siblings: a page of a million comments would take
hours. So what is not to be read never enters the tree. markdownify lays out the rest; where it walks over all
siblings again, or believes what a page says of itself, it is overruled.
"""

from __future__ import annotations

import re
from typing import Any

from bs4 import BeautifulSoup
from bs4.element import PreformattedString
from markdownify import MarkdownConverter

OPEN, CLOSE = "\ue000", "\ue001"
"""Signs of the private use area that travel through the layout around each heading."""

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_UNSEEN = ("script", "style", "template", "head", "svg", "object", "datalist")
_HIDING = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
_BLANKS = re.compile(r"[\t \r\n]{2,}|[\t\r]")
_COUNTS = {"colspan": re.compile(r"[0-9]{1,4}"), "start": re.compile(r"[0-9]{1,9}")}
"""Attributes that are read as numbers, and which numbers are believed."""

_TABLE_PARTS = ("tbody", "thead", "tfoot", "tr", "td", "th")


class Page(BeautifulSoup):
    """The tree of what can be seen of a page. pictures : how many have no words, and how many have some."""

    pictures = 0
    _hidden = 0  # elements that are open and hidden, the outermost included

    def reset(self) -> None:
        super().reset()
        self.pictures = 0
        self._hidden = 0

    def handle_starttag(
        self, name: str, namespace: Any, nsprefix: Any, attrs: Any, *more: Any, **named: Any
    ) -> Any:
        self.endData()
        if self._hidden or name in _UNSEEN or "hidden" in attrs or _HIDING.search(attrs.get("style") or ""):
            self._hidden += 1
            return None
        if name == "img":  # its words are read where it stands
            self.pictures += attrs.get("alt") != ""
            if words := " ".join((attrs.get("alt") or "").split()):
                self.handle_data(f"[{words}]")
                self.endData()
            return None
        for attribute, number in _COUNTS.items():
            if attribute in attrs and not number.fullmatch(attrs[attribute]):
                del attrs[attribute]
        return super().handle_starttag(name, namespace, nsprefix, attrs, *more, **named)

    def handle_endtag(self, name: str, nsprefix: Any = None) -> None:
        if self._hidden:
            self._hidden -= 1
        elif name != "img":
            super().handle_endtag(name, nsprefix)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            super().handle_data(data)

    def endData(self, containerClass: Any = None) -> None:
        if containerClass is not None and issubclass(containerClass, PreformattedString):
            self.current_data = []  # a comment, a declaration, an instruction
        elif self.current_data and not self.open_tag_counter.get("pre"):
            # As a browser shows it, and as markdownify will, which takes long for long runs.
            self.current_data = [_BLANKS.sub(_blank, "".join(self.current_data))]
        super().endData(containerClass)


def _blank(run: re.Match[str]) -> str:
    return "\n" if "\n" in run[0] or "\r" in run[0] else " "


def open_layout_tables(page: Page) -> None:
    """A table that holds headings or tables lays a page out; as a table it would become one line."""
    layout: set[int] = set()
    for inner in page.find_all(["table", *HEADINGS]):
        for around in inner.parents:
            if around.name == "table":
                if id(around) in layout:
                    break  # and so are those around it
                layout.add(id(around))
    if not layout:
        return
    found = [page.find_all("table"), page.find_all(_TABLE_PARTS)]
    opened = [table for table in found[0] if id(table) in layout]
    opened += [part for part in found[1] if id(part.find_parent("table")) in layout]
    for element in opened:
        element.name = "div"


def mark_headings(page: Page) -> None:
    """Put the signs around the words of each heading that has some."""
    for heading in page.find_all(HEADINGS):
        if heading.get_text(strip=True):
            heading.insert(0, OPEN)
            heading.append(CLOSE)


class Layout(MarkdownConverter):
    """A page as Markdown: headings, lists, tables and code keep their form; emphasis and links only words."""

    def __init__(self) -> None:
        super().__init__(
            heading_style="ATX",
            bullets="-",
            escape_asterisks=False,
            escape_underscores=False,
            escape_misc=False,
            table_infer_header=True,
            strip=["a", "b", "strong", "i", "em", "del", "s", "img"],
            strip_pre=None,
        )
        self._numbers: dict[int, dict[int, int]] = {}

    def should_convert_tag(self, tag: str) -> bool:
        """The names of elements become names of methods here, and not every method is one for an element."""
        own = tag in ("soup", "fn_cache", "list") or re.match(r"h\d{2}", tag) is not None
        return not own and bool(super().should_convert_tag(tag))  # type: ignore[misc]

    def convert_pre(self, el: Any, text: str, parent_tags: Any) -> str:
        """Without the blank lines around it, which markdownify looks for in quadratic time."""
        before = len(text) - len(text.lstrip(" \n"))
        text = text[text.rfind("\n", 0, before) + 1 :].rstrip(" \n")
        return str(super().convert_pre(el, text, parent_tags))  # type: ignore[misc]

    def convert_li(self, el: Any, text: str, parent_tags: Any) -> str:
        """An item of a numbered list; markdownify counts those before it, each time anew."""
        parent = el.parent
        if parent is None or parent.name != "ol" or not text.strip():
            return str(super().convert_li(el, text, parent_tags))  # type: ignore[misc]
        if id(parent) not in self._numbers:
            items = parent.find_all("li", recursive=False)
            self._numbers[id(parent)] = {id(item): number for number, item in enumerate(items)}
        bullet = f"{int(parent.get('start') or 1) + self._numbers[id(parent)][id(el)]}. "
        first, *rest = text.strip().split("\n")
        lines = [bullet + first, *(" " * len(bullet) + line if line else "" for line in rest)]
        return "\n".join(lines) + "\n"
