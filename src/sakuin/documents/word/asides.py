"""What stands beside the running text: footnotes, endnotes, comments, page headers and footers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sakuin.documents.ordinals import written
from sakuin.documents.word.found import Found
from sakuin.documents.word.names import child, child_value, form_of_numbers, is_on, long, number, tag, value
from sakuin.documents.word.parts import Parts

_SETTINGS = {"footnote": ("w:footnotePr", "decimal"), "endnote": ("w:endnotePr", "lowerRoman")}

ReadPart = Callable[[str, Any, bool], str]
"""The words of an element of the part at a path, in one line; the last says whether it is a page's margin."""


class Asides:
    """Notes and comments by where the text refers to them, and what stands around each page.

    read : set by who reads parts, which takes the asides in its turn.
    """

    def __init__(self, parts: Parts, found: Found) -> None:
        self.read: ReadPart = lambda path, element, in_margin: ""
        self._parts, self._found = parts, found
        settings = parts.related("settings")
        self._both_sides = is_on(child(settings, "w:evenAndOddHeaders"))
        self._notes: dict[str, dict[str, Any]] = {}
        self._forms: dict[str, tuple[str, int]] = {}
        for kind, (said, form) in _SETTINGS.items():
            root = parts.related(f"{kind}s")
            self._notes[kind] = {} if root is None else {value(each, "w:id") or "": each for each in root}
            wanted = child(settings, said)
            start = number(child_value(wanted, "w:numStart"), 1)
            self._forms[kind] = form_of_numbers(wanted) or form, start
        comments = parts.related("comments")
        self._comments = {} if comments is None else {value(each, "w:id") or "": each for each in comments}
        self._met: dict[str, dict[str, str]] = {"footnote": {}, "endnote": {}}
        self._waiting: dict[str, list[tuple[str, Any]]] = {"footnote": [], "endnote": []}

    def mark(self, reference: Any) -> str:
        """What stands in the text where it refers to a note or a comment."""
        kind, name = tag(reference)[2:].removesuffix("Reference"), value(reference, "w:id") or ""
        if kind == "comment":
            return self._comment(name)
        if name not in self._notes[kind]:
            return ""
        if name not in self._met[kind]:
            form, start = self._forms[kind]
            automatic = sum(not said.startswith("*") for said in self._met[kind].values())
            label = written(start + automatic, form)
            if is_on(reference, "w:customMarkFollows") and value(reference, "w:customMarkFollows"):
                label = "*" + "".join(each.text or "" for each in reference.itersiblings(long("w:t"))).lstrip(
                    "*"
                )
            self._met[kind][name] = label
            self._waiting[kind].append((label, self._notes[kind][name]))
        return f"[^{self._met[kind][name]}]"

    def notes(self, kind: str) -> list[str]:
        """The footnotes, or the endnotes, that the text has referred to since they were asked for last."""
        waiting, self._waiting[kind] = self._waiting[kind], []
        path = self._parts.related_path(f"{kind}s") or ""
        return [f"[^{label}]: {self.read(path, element, False)}" for label, element in waiting]

    def margins(self, body: Any) -> tuple[list[str], list[str]]:
        """The page headers, and the page footers, that the sections in the running text name."""
        relations = self._parts.relations(self._parts.main)
        said: dict[str, list[str]] = {"header": [], "footer": []}
        for section in body.iter(long("w:sectPr")):
            for each in section:
                kind = tag(each)[2:].removesuffix("Reference")
                side = value(each, "w:type") or "default"
                seen = side == "default" or (
                    self._both_sides if side == "even" else is_on(child(section, "w:titlePg"))
                )
                path = relations.get(value(each, "r:id") or "", ("", ""))[1]
                root = self._parts.root(path) if kind in said and seen and path else None
                words = "" if root is None else self.read(path, root, True)
                if any(char.isalnum() for char in words) and words not in said[kind]:
                    said[kind].append(words)
        headers, footers = ([f"[page {kind}: {words}]" for words in said[kind]] for kind in said)
        return headers, footers

    def _comment(self, name: str) -> str:
        element = self._comments.get(name)
        if element is None:
            return ""
        self._found.comments += 1
        words = self.read(self._parts.related_path("comments") or "", element, False)
        author = " ".join((value(element, "w:author") or "").split())
        return f" [comment{f' by {author}' if author else ''}: {words}]"
