"""How a run of text looks, and what a paragraph is, by its style and by what it says itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sakuin.documents.word.names import child, child_value, is_on, long, number, value

_TOGGLES = ("w:strike", "w:dstrike", "w:vanish", "w:caps")
_RAISED = {"superscript": "^", "subscript": "_"}
_MOST_BASED = 32
"""Styles that one is based on, one on the other; Word has eleven at most."""

_LIST = re.compile(r"list (?:bullet |number )?([2-5])", re.I)

_BODY = 9
"""The outline level of what is no heading."""


@dataclass(frozen=True)
class Look:
    """How a run looks. script : "^" raised, "_" lowered, "" neither. font : of its symbols."""

    struck: bool = False
    hidden: bool = False
    capitals: bool = False
    script: str = ""
    font: str = ""


class Styles:
    """The styles of a document; `root` is its part of styles, or None."""

    def __init__(self, root: Any) -> None:
        self._styles: dict[str, Any] = {}
        self._defaults: dict[str, str] = {}
        for style in [] if root is None else root.iterfind(long("w:style")):
            name, kind = value(style, "w:styleId") or "", value(style, "w:type") or "paragraph"
            self._styles.setdefault(name, style)
            if is_on(style, "w:default") and value(style, "w:default"):
                self._defaults[kind] = name
        common = child(child(child(root, "w:docDefaults"), "w:rPrDefault"), "w:rPr")
        self._common = {} if common is None else _said(common)
        self._looks: dict[tuple[str, str], dict[str, Any]] = {}
        self._chains: dict[str, list[Any]] = {}

    def of_paragraph(self, properties: Any) -> str:
        """The id of a paragraph's style."""
        return child_value(properties, "w:pStyle") or self._defaults.get("paragraph", "")

    def name(self, style: str) -> str:
        """A style's name in small letters; those that come with Word have English names everywhere."""
        return (child_value(self._styles.get(style), "w:name") or "").lower()

    def outline(self, properties: Any, style: str) -> int | None:
        """The rank of a heading, counted from 0; None for a paragraph that is none."""
        said = child_value(properties, "w:outlineLvl")
        for each in self._chain(style) if said is None else []:
            said = child_value(child(each, "w:pPr"), "w:outlineLvl")
            if said is not None:
                break
        if said is not None:
            level = number(said, _BODY)
            return level if 0 <= level < _BODY else None
        for each in self._chain(style):
            name = (child_value(each, "w:name") or "").lower()
            if name == "title":
                return 0
            if name.startswith("heading ") and 1 <= number(name[8:], 0) <= _BODY:
                return number(name[8:], 1) - 1
        return None

    def numbering(self, style: str) -> tuple[str | None, int | None, str]:
        """The list of a style's paragraphs, the level, and the style of the chain that says so."""
        level: int | None = None
        for each in self._chain(style):
            said = child(child(each, "w:pPr"), "w:numPr")
            if level is None and child_value(said, "w:ilvl") is not None:
                level = number(child_value(said, "w:ilvl"), 0)
            if (which := child_value(said, "w:numId")) is not None:
                return which, level, value(each, "w:styleId") or ""
        return None, level, ""

    def depth(self, style: str) -> int:
        """How far in the lists that come with Word are by their names, counted from 0: List Bullet 2 is 1."""
        for each in self._chain(style):
            if found := _LIST.fullmatch(child_value(each, "w:name") or ""):
                return int(found[1]) - 1
        return 0

    def look(self, run: Any, paragraph_style: str) -> Look:
        """How a run with these properties (`w:rPr`, or None) looks in a paragraph of this style."""
        key = paragraph_style, child_value(run, "w:rStyle") or ""
        if key not in self._looks:
            self._looks[key] = self._styled(*key)
        said = self._looks[key]
        if run is not None and len(run):
            said = said | _said(run)
        return Look(
            bool(said.get("w:strike") or said.get("w:dstrike")),
            bool(said.get("w:vanish")),
            bool(said.get("w:caps")),
            said.get("script", ""),
            said.get("font", ""),
        )

    def _styled(self, paragraph: str, character: str) -> dict[str, Any]:
        of_paragraph, of_run = self._collected(paragraph), self._collected(character)
        both = self._common | of_paragraph | of_run
        for toggle in _TOGGLES:  # a switch that both styles turn on is off again
            if toggle in of_paragraph and toggle in of_run:
                both[toggle] = of_paragraph[toggle] != of_run[toggle]
        return both

    def _collected(self, style: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for each in reversed(self._chain(style)):
            properties = child(each, "w:rPr")
            found |= {} if properties is None else _said(properties)
        return found

    def _chain(self, style: str) -> list[Any]:
        """The style and those that it is based on, itself first."""
        if style not in self._chains:
            chain: list[Any] = []
            each = self._styles.get(style)
            while each is not None and each not in chain and len(chain) < _MOST_BASED:
                chain.append(each)
                each = self._styles.get(child_value(each, "w:basedOn") or "")
            self._chains[style] = chain
        return self._chains[style]


def _said(properties: Any) -> dict[str, Any]:
    """What run properties say of a look."""
    found: dict[str, Any] = {}
    for toggle in _TOGGLES:
        if (switch := child(properties, toggle)) is not None:
            found[toggle] = is_on(switch)
    if (raised := child_value(properties, "w:vertAlign")) is not None:
        found["script"] = _RAISED.get(raised, "")
    elif (moved := number(child_value(properties, "w:position"), 0)) and child(
        properties, "w:sz"
    ) is not None:
        found["script"] = "^" if moved > 0 else "_"  # raised by hand, and made smaller
    fonts = child(properties, "w:rFonts")
    if font := value(fonts, "w:ascii") or value(fonts, "w:hAnsi"):
        found["font"] = font
    return found
