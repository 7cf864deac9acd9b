"""Names in WordprocessingML: `w:p` for an element's long name, and its attributes and children by them."""

from __future__ import annotations

from functools import cache
from typing import Any

SPACES = {
    "w": "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
    "w14": "http://schemas.microsoft.com/office/word/2010/wordml",
    "r": "http://schemas.openxmlformats.org/officeDocument/2006/relationships",
    "m": "http://schemas.openxmlformats.org/officeDocument/2006/math",
    "mc": "http://schemas.openxmlformats.org/markup-compatibility/2006",
    "wp": "http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing",
    "a": "http://schemas.openxmlformats.org/drawingml/2006/main",
    "c": "http://schemas.openxmlformats.org/drawingml/2006/chart",
    "dgm": "http://schemas.openxmlformats.org/drawingml/2006/diagram",
    "v": "urn:schemas-microsoft-com:vml",
}
_PREFIXES = {space: prefix for prefix, space in SPACES.items()}
_OFF = ("0", "false", "off", "none")


@cache
def long(name: str) -> str:
    """The long name that `w:p` is short for."""
    prefix, _, local = name.partition(":")
    return f"{{{SPACES[prefix]}}}{local}"


@cache
def _short(name: str) -> str:
    space, _, local = name[1:].partition("}")
    return f"{_PREFIXES.get(space, '?')}:{local}"


def tag(element: Any) -> str:
    """The short name of an element; of a name space that means nothing here, `?:name`."""
    name = element.tag
    return _short(name) if isinstance(name, str) and name[:1] == "{" else ""


def child(element: Any, name: str) -> Any:
    """The first child of this short name, or None; None of None."""
    return None if element is None else element.find(long(name))


def value(element: Any, name: str = "w:val") -> str | None:
    """An attribute by its short name; None where there is none, or no element."""
    return None if element is None else element.get(long(name))


def child_value(element: Any, name: str) -> str | None:
    """The `w:val` of the first child of this short name."""
    return value(child(element, name))


def number(text: str | None, default: int) -> int:
    """A number as Word writes one; `default` for anything else."""
    try:
        return int(text or "")
    except ValueError:
        return default


def form_of_numbers(around: Any) -> str | None:
    """The form of the numbers (`w:numFmt`) in an element: Word's name for it, or its first numbers where it
    is one that Word has no name for ("001, 002, 003, ..."); None where it says none."""
    form = child(around, "w:numFmt")
    if form is None:
        choice = child(child(around, "mc:AlternateContent"), "mc:Choice")
        form = child(choice, "w:numFmt")
    if form is None:
        form = child(child(child(around, "mc:AlternateContent"), "mc:Fallback"), "w:numFmt")
    said = value(form)
    return value(form, "w:format") or "decimal" if said == "custom" else said


def is_on(element: Any, attribute: str = "w:val") -> bool:
    """Whether a switch such as `<w:strike/>` is there and on."""
    return element is not None and (element.get(long(attribute)) or "1") not in _OFF
