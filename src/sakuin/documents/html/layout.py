"""A page laid out as Markdown: headings, lists, tables and code keep their form, emphasis and links only
words.

markdownify does it. Where it walks over all siblings again, believes what a page says of itself, or does not
know what a page shows, it is overruled.
"""

from __future__ import annotations

import re
from typing import Any

from markdownify import MarkdownConverter

from sakuin.documents import grid, links, ordinals
from sakuin.documents.equations import mathml
from sakuin.documents.grid import Cell
from sakuin.documents.html import signs
from sakuin.documents.html.looks import BULLETS, Sheets

_TO_THE_END = 65_534
"""Rows over which a cell reaches that says 0."""

_GROUPS = ("thead", "tbody", "tfoot")

_DATE = re.compile(
    r"(?P<year>[0-9]{4})-[0-9]{2}(?:-(?P<day>[0-9]{2})(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9.]{2,9})?"
    r"(?:Z|[-+][0-9]{2}:?[0-9]{2})?)?)?"
)
_FORMS = {"a": "lower-alpha", "A": "upper-alpha", "i": "lower-roman", "I": "upper-roman", "1": "decimal"}


class Layout(MarkdownConverter):
    """Lays out the tree of `sakuin.documents.html.soup`."""

    def __init__(self, sheets: Sheets) -> None:
        super().__init__(
            heading_style="ATX",
            bullets="-",
            escape_asterisks=False,
            escape_underscores=False,
            escape_misc=False,
            table_infer_header=True,
            strip=["b", "strong", "i", "em", "del", "s", "img", "sup", "sub"],
            strip_pre=None,
        )
        self._sheets = sheets
        self._numbers: dict[int, dict[int, str]] = {}
        self._cells: dict[int, str] = {}
        self._spelled_out: set[tuple[str, str]] = set()

    def should_convert_tag(self, tag: str) -> bool:
        """The names of elements become names of methods here, and not every method is one for an element."""
        own = tag in ("soup", "fn_cache", "list") or re.match(r"h\d{2}", tag) is not None
        return not own and bool(super().should_convert_tag(tag))  # type: ignore[misc]

    def convert_pre(self, el: Any, text: str, parent_tags: Any) -> str:
        """Without the blank lines around it, which markdownify looks for in quadratic time."""
        before = len(text) - len(text.lstrip(" \n"))
        text = text[text.rfind("\n", 0, before) + 1 :].rstrip(" \n")
        return str(super().convert_pre(el, text, parent_tags))  # type: ignore[misc]

    def convert_br(self, el: Any, text: str, parent_tags: Any) -> str:
        """A new line, in a cell too."""
        if _is_in_cell(parent_tags):
            return signs.LINE
        return str(super().convert_br(el, text, parent_tags))  # type: ignore[misc]

    def convert_p(self, el: Any, text: str, parent_tags: Any) -> str:
        """A paragraph, which in a cell is a line."""
        if _is_in_cell(parent_tags):
            return f"{signs.LINE}{text}{signs.LINE}"
        return str(super().convert_p(el, text, parent_tags))  # type: ignore[misc]

    convert_div = convert_p

    def convert_li(self, el: Any, text: str, parent_tags: Any) -> str:
        """An item of a list, with the number that a browser shows."""
        parent = el.parent
        if parent is not None and parent.name in ("ol", "ul") and id(parent) not in self._numbers:
            self._numbers[id(parent)] = _numbers(parent, self._sheets)
        if parent is None or not (parent.name == "ol" or self._numbers.get(id(parent))) or not text.strip():
            said = str(super().convert_li(el, text, parent_tags))  # type: ignore[misc]
            return f"{signs.LINE}{said}{signs.LINE}" if _is_in_cell(parent_tags) else said
        bullet = self._numbers[id(parent)].get(id(el), "- ")
        first, *rest = text.strip().split("\n")
        lines = [bullet + first, *(" " * len(bullet) + line if line else "" for line in rest)]
        if _is_in_cell(parent_tags):
            return signs.LINE + " ".join(lines) + signs.LINE
        return "\n".join(lines) + "\n"

    def convert_abbr(self, el: Any, text: str, parent_tags: Any) -> str:
        """What is short, and what it stands for where it is met first."""
        meant, said = " ".join((el.get("title") or "").split()), text.strip()
        if not meant or not said or meant == said or (said, meant) in self._spelled_out:
            return text
        self._spelled_out.add((said, meant))
        return f"{text.rstrip()} ({meant})" + (" " if text[-1:].isspace() else "")

    convert_dfn = convert_acronym = convert_abbr

    def convert_a(self, el: Any, text: str, parent_tags: Any) -> str:
        """The words of a link, and where it leads outside the page."""
        said = links.behind(text.translate(signs.ALL), (el.get("href") or "").translate(signs.ALL))
        if not said or "pre" in parent_tags or "code" in parent_tags:
            return text
        words = text.rstrip(f" \n{signs.LINE}")
        return f"{words}{said}{text[len(words) :]}"

    def convert_time(self, el: Any, text: str, parent_tags: Any) -> str:
        """A date, with the one that the page means where its words do not say it."""
        meant = _DATE.match(el.get("datetime") or "")
        if meant is None or not text.strip():
            return text
        figures = {figure.lstrip("0") for figure in re.findall("[0-9]+", text)}
        if {part.lstrip("0") for part in (meant["year"], meant["day"]) if part} <= figures:
            return text
        return f"{text.rstrip()} ({meant[0]})" + (" " if text[-1:].isspace() else "")

    def convert_rt(self, el: Any, text: str, parent_tags: Any) -> str:
        """How the signs before it are spoken."""
        return f"({text.strip()})" if text.strip() else ""

    def convert_math(self, el: Any, text: str, parent_tags: Any) -> str:
        """An equation, in one line."""
        return " ".join(mathml(el).split())

    def convert_progress(self, el: Any, text: str, parent_tags: Any) -> str:
        """A bar that has no words: how far it is."""
        value, most = el.get("value"), el.get("max")
        return text if text.strip() or not value else f"{value}/{most}" if most else str(value)

    convert_meter = convert_progress

    def convert_caption(self, el: Any, text: str, parent_tags: Any) -> str:
        """The title of a table, which `convert_table` puts above it."""
        self._cells[id(el)] = " ".join(text.split())
        return ""

    def convert_td(self, el: Any, text: str, parent_tags: Any) -> str:
        """A cell: the table is put together when it is whole."""
        self._cells[id(el)] = " ".join(text.split()).replace(signs.LINE, "\n")
        return ""

    convert_th = convert_td

    def convert_tr(self, el: Any, text: str, parent_tags: Any) -> str:
        """A row whose table is no table leaves its cells' words."""
        if el.find_parent("table") is not None:
            return text
        cells = (self._cells.get(id(cell), "") for cell in el.find_all(("td", "th"), recursive=False))
        return " ".join([*cells, text]).replace("\n", " ").strip() + "\n\n"

    def convert_table(self, el: Any, text: str, parent_tags: Any) -> str:
        """The table, its title above it."""
        titles: list[str] = []
        rows: list[list[Cell]] = []
        groups: list[int | None] = []  # by row, in which thead, tbody or tfoot it lies
        for part in el.find_all(("caption", "tr", "td", "th")):
            if part.find_parent("table") is not el:
                continue  # of a table in a cell, which is written already
            if part.name == "caption":
                titles.append(self._cells.get(id(part), ""))
            elif part.name == "tr":
                rows.append([])
                groups.append(id(part.parent) if part.parent.name in _GROUPS else None)
            else:
                if not rows:
                    rows, groups = [[]], [None]
                down = int(part.get("rowspan") or 1) or _TO_THE_END
                rows[-1].append(
                    Cell(self._cells.get(id(part), ""), max(int(part.get("colspan") or 1), 1), down)
                )
        if _is_in_cell(parent_tags):
            inner = (*titles, grid.flat(rows), " ".join(text.split()))
            return signs.LINE + " ".join(part for part in inner if part) + signs.LINE
        whole = [*titles, grid.written(_ended(rows, groups))]
        return "\n\n" + "\n\n".join(part for part in (*whole, text.strip()) if part) + "\n\n"


def _is_in_cell(parent_tags: Any) -> bool:
    return "td" in parent_tags or "th" in parent_tags


def _ended(rows: list[list[Cell]], groups: list[int | None]) -> list[list[Cell]]:
    """The rows with cells that end where the group of their row does. groups : by row, its group."""
    left = 0
    for at in range(len(rows) - 1, -1, -1):
        left = left + 1 if at + 1 < len(rows) and groups[at] == groups[at + 1] else 1
        for cell in rows[at]:
            cell.rows = min(cell.rows, left)
    return rows


def _numbers(parent: Any, sheets: Sheets) -> dict[int, str]:
    """What stands before each item of a list that has numbers."""
    form = _form(parent, sheets) or ("" if parent.name == "ul" else _FORMS.get(parent.get("type"), "decimal"))
    items = parent.find_all("li", recursive=False)
    down = "reversed" in parent.attrs
    number = int(parent.get("start") or (len(items) if down else 1))
    found: dict[int, str] = {}
    for item in items:
        if item.get("value"):
            number = int(item["value"])
        own = _form(item, sheets) or _FORMS.get(item.get("type") or "") or form
        if own and own not in BULLETS:
            found[id(item)] = f"{ordinals.written(number, own)}. "
        number += -1 if down else 1
    return found


def _form(element: Any, sheets: Sheets) -> str:
    """The form of a list's numbers that its style or a style sheet says."""
    attributes = {name: element.get(name) or "" for name in ("style", "id")}
    attributes["class"] = " ".join(element.get("class") or [])
    return sheets.look(element.name, attributes).numbers
