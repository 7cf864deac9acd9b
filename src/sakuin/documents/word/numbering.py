"""The numbers of lists, as Word shows them: they go on after other text, and begin anew where the file says.

A paragraph names a list (`w:num`), which names a pattern (`w:abstractNum`). Lists of one pattern count
together; a list that overrides the start begins anew where it is met first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from sakuin.documents.ordinals import written
from sakuin.documents.word.names import child, child_value, form_of_numbers, is_on, long, number, value
from sakuin.documents.word.styles import Styles

_LEVELS = 9
_PLACE = re.compile(r"%([1-9])")


@dataclass
class _Level:
    """One level of a pattern. pattern : `%1.%2` and the like. restarts : by which level, counted from 1;
    0 never."""

    start: int = 1
    form: str = "decimal"
    pattern: str = ""
    restarts: int | None = None
    legal: bool = False
    styles: str = ""


@dataclass(frozen=True)
class Label:
    """What stands before a paragraph of a list. level : counted from 0. bullet : a sign and no number."""

    text: str
    level: int
    bullet: bool = False


class Numbering:
    """The lists of a document, counting: each paragraph is told once, in order."""

    def __init__(self, root: Any, styles: Styles) -> None:
        self._styles = styles
        self._patterns: dict[str, dict[int, _Level]] = {}
        self._links: dict[str, str] = {}  # a pattern, and the style that has the true one
        self._lists: dict[str, tuple[str, dict[int, _Level], dict[int, int]]] = {}
        for each in [] if root is None else root.iterfind(long("w:abstractNum")):
            name = value(each, "w:abstractNumId") or ""
            self._patterns[name] = _levels(each)
            if link := child_value(each, "w:numStyleLink"):
                self._links[name] = link
        for each in [] if root is None else root.iterfind(long("w:num")):
            starts: dict[int, int] = {}
            own: dict[int, _Level] = {}
            for override in each.iterfind(long("w:lvlOverride")):
                level = number(value(override, "w:ilvl"), 0)
                own |= _levels(override)
                if (start := child_value(override, "w:startOverride")) is not None:
                    starts[level] = number(start, 1)
            self._lists[value(each, "w:numId") or ""] = (
                child_value(each, "w:abstractNumId") or "", own, starts,
            )  # fmt: skip
        self._counts: dict[str, list[int | None]] = {}
        self._met: set[tuple[str, int]] = set()

    def label(self, properties: Any, style: str) -> Label | None:
        """What stands before a paragraph with these properties (`w:pPr`, or None); counts it."""
        said = child(properties, "w:numPr")
        which, level = child_value(said, "w:numId"), child_value(said, "w:ilvl")
        of_style = ""
        at = number(level, 0) if level is not None else None
        if which is None:
            which, styled, of_style = self._styles.numbering(style)
            at = styled if at is None else at
        if which is None or which not in self._lists:
            return None
        pattern, levels, starts = self._resolved(which)
        if at is None:
            at = next((n for n, one in levels.items() if of_style and one.styles == of_style), 0)
        at = min(max(at, 0), _LEVELS - 1)
        if at not in levels:
            return None
        self._count(which, pattern, levels, starts, at)
        label = self._shown(pattern, levels, at)
        # Each of the lists that come with Word has one level, and its name says how far in that is.
        depth = self._styles.depth(style) if said is None else 0
        return label if label is None or label.level >= depth else replace(label, level=depth)

    def _resolved(self, which: str) -> tuple[str, dict[int, _Level], dict[int, int]]:
        pattern, own, starts = self._lists[which]
        if pattern in self._links:
            other = self._styles.numbering(self._links[pattern])[0]
            if other in self._lists:
                pattern = self._lists[other][0]
        return pattern, {**self._patterns.get(pattern, {}), **own}, starts

    def _count(
        self, which: str, pattern: str, levels: dict[int, _Level], starts: dict[int, int], at: int
    ) -> None:
        counts = self._counts.setdefault(pattern, [None] * _LEVELS)
        for level in range(at):  # those above that were left out count as begun
            if counts[level] is None and level in levels:
                counts[level] = starts.get(level, levels[level].start)
        now = counts[at]
        if at in starts and (which, at) not in self._met:
            counts[at] = starts[at]
        else:
            counts[at] = starts.get(at, levels[at].start) if now is None else now + 1
        self._met.add((which, at))
        for below in range(at + 1, _LEVELS):
            by = levels[below].restarts if below in levels else None
            if by != 0 and (by is None or at < by):
                counts[below] = None

    def _shown(self, pattern: str, levels: dict[int, _Level], at: int) -> Label | None:
        level, counts = levels[at], self._counts[pattern]
        if level.form == "bullet":
            return Label("-", at, bullet=True)

        def number_of(match: re.Match[str]) -> str:
            which = int(match[1]) - 1
            count = counts[which]
            form = levels[which].form if which in levels else "decimal"
            if level.legal and which < at and form not in ("none", "bullet"):
                form = "decimal"
            return "" if count is None or form == "bullet" else written(count, form)

        text = _PLACE.sub(number_of, level.pattern).strip()
        return Label(text, at) if text else None


def _levels(around: Any) -> dict[int, _Level]:
    found: dict[int, _Level] = {}
    for each in around.iterfind(long("w:lvl")):
        restarts = child_value(each, "w:lvlRestart")
        found[number(value(each, "w:ilvl"), 0)] = _Level(
            number(child_value(each, "w:start"), 0 if child(each, "w:start") is None else 1),
            form_of_numbers(each) or "decimal",
            child_value(each, "w:lvlText") or "",
            None if restarts is None else number(restarts, 0),
            is_on(child(each, "w:isLgl")),
            child_value(each, "w:pStyle") or "",
        )
    return found
