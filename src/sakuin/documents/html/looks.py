"""What a page's styles say of an element: struck out, raised, lowered, in capitals.

Of a style sheet only rules for tags, classes and ids are believed, and only these looks: what it hides a
script may show, so that it is read.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LOOKED_AT = 1 << 20
"""Characters of style sheets that are read."""

_COMMENT = re.compile(r"/\*.*?\*/", re.S)
_SIMPLE = re.compile(r"(?:[a-z][a-z0-9]*)?(?:[.#][\w-]+)?", re.I)
_STRUCK = re.compile(r"text-decoration(?:-line)?\s*:[^;]*line-through", re.I)
_SCRIPT = re.compile(r"vertical-align\s*:\s*(super|sub)\b", re.I)
_LENGTH = r"(?=[0-9.]*[1-9])[0-9]{0,9}\.?[0-9]{1,9}(?:[a-z]{1,4}|%)"
_UP = re.compile(rf"(?<![\w-])vertical-align\s*:\s*(?:(?:text-)?top\b|\+?{_LENGTH})", re.I)
_MOVED = re.compile(rf"(?<![\w-])(?:top\s*:\s*-{_LENGTH}|bottom\s*:\s*\+?{_LENGTH})", re.I)
_RELATIVE = re.compile(r"(?<![\w-])position\s*:\s*relative\b", re.I)
_LARGER = re.compile(
    r"(?<![\w-])font-size\s*:\s*(?:larger|x+-large|0*(?:[2-9]|1[0-9]|1\.0*[1-9])[0-9.]{0,9}r?em"
    r"|0*(?:[2-9][0-9]{2}|1(?!00\b)[0-9]{2})[0-9.]{0,9}%)",
    re.I,
)
_CAPITALS = re.compile(r"text-transform\s*:\s*uppercase", re.I)
_LIST = re.compile(
    r"list-style(?:-type)?\s*:[^;]*?\b((?:lower|upper)-[a-z]+|decimal-leading-zero|decimal|disc|circle|square)\b",
    re.I,
)
BULLETS = ("disc", "circle", "square")
"""Styles of lists that have a sign and no number."""

_TAGS = {"s": "struck", "strike": "struck", "del": "struck", "sup": "^", "sub": "_"}


class Look(NamedTuple):
    """How an element looks, all that is around it counted in.

    script : "^" raised, "_" lowered, "" neither; "'" moved up by some length: figures after a
    figure are raised then, but a button may be moved for its looks.
    """

    struck: bool = False
    script: str = ""
    capitals: bool = False
    numbers: str = ""

    def within(self, around: Look) -> Look:
        """This look on an element that stands in one of the look `around`."""
        return Look(
            self.struck or around.struck,
            _stronger(self.script, around.script),
            self.capitals or around.capitals,
            self.numbers,
        )


_PLAIN = Look()


class Sheets:
    """The looks that the style sheets of a page give to tags, classes and ids."""

    def __init__(self) -> None:
        self._rules: dict[str, Look] = {}
        self._left = _LOOKED_AT

    def add(self, sheet: str) -> None:
        """Take in a sheet's rules; such as hold only on some devices are left out."""
        sheet, self._left = sheet[: self._left], max(self._left - len(sheet), 0)
        depth, begin, selectors = 0, 0, ""
        sheet = _COMMENT.sub(" ", sheet)
        for match in re.finditer(r"[{}]", sheet):
            if match[0] == "{":
                depth += 1
                if depth == 1:
                    selectors = sheet[begin : match.start()].rpartition(";")[2].strip()
            else:
                if depth == 1 and not selectors.startswith("@"):
                    self._rule(selectors, sheet[begin : match.start()])
                depth = max(depth - 1, 0)
            begin = match.end()

    def look(self, name: str, attributes: dict[str, str]) -> Look:
        """The look of an element by itself."""
        style, own = attributes.get("style"), _TAGS.get(name)
        found = _PLAIN if own is None else Look(own == "struck", own if own in ("^", "_") else "")
        if self._rules:
            for one in (name, *self._named(name, attributes)):
                if one in self._rules:
                    found = _both(found, self._rules[one])
        return _both(found, _said(style)) if style else found

    def _named(self, name: str, attributes: dict[str, str]) -> list[str]:
        which = [f".{one}" for one in str(attributes.get("class") or "").split()]
        which += [f"#{attributes['id']}"] if attributes.get("id") else []
        return [one for each in which for one in (each, name + each)]

    def _rule(self, selectors: str, said: str) -> None:
        look = _said(said)
        for selector in selectors.split(",") if look != _PLAIN else []:
            selector = selector.strip()
            if selector and _SIMPLE.fullmatch(selector):
                self._rules[selector] = _both(self._rules.get(selector, _PLAIN), look)


def _said(style: str) -> Look:
    found, numbers = _SCRIPT.search(style), _LIST.search(style)
    if found is None:
        script = "'" if _is_lifted(style) else ""
    else:
        script = "^" if found[1].lower() == "super" else "_"
    return Look(
        _STRUCK.search(style) is not None,
        script,
        _CAPITALS.search(style) is not None,
        "" if numbers is None else numbers[1].lower(),
    )


def _is_lifted(style: str) -> bool:
    """Whether a style moves an element up by a length, in a font that is not larger."""
    if _UP.search(style) is None and (_RELATIVE.search(style) is None or _MOVED.search(style) is None):
        return False
    return _LARGER.search(style) is None


def _stronger(script: str, other: str) -> str:
    return other if script in ("", "'") and other else script


def _both(one: Look, other: Look) -> Look:
    return Look(
        one.struck or other.struck,
        _stronger(other.script, one.script),
        one.capitals or other.capitals,
        other.numbers or one.numbers,
    )
