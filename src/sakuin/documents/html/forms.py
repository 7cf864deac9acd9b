"""Forms on a page: what is ticked, chosen and filled in, beside its label.

Where a field stands, the layout carries a sign and the field's number; what it says is put there when the
text is laid out, and its label before it where the page has the label elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sakuin.documents.boxes import BLANK, EMPTY, TICKED

FIELD, FIELD_END = "\ue006", "\ue007"
"""Signs around a field's number."""

_MOST_CHOICES = 12
"""Choices of a list up to which those that were not taken are named too."""

_MOST_LABEL = 200
_NEAR = 300
"""Characters around a field within which its label counts as beside it."""

_LONGEST_ROW = 2000
_OPENING = " \t\n([\ue000\ue002"
"""Signs after which no blank is needed."""


_PLACE = re.compile(f"{FIELD}([0-9]{{1,9}}){FIELD_END}")
_UNSEEN = ("hidden",)
_BUTTONS = {"submit": "Submit", "reset": "Reset", "button": "", "image": ""}


@dataclass
class Choice:
    """One of the choices of a list."""

    words: str
    taken: bool = False
    can_be_taken: bool = True


@dataclass
class Choices:
    """A list to choose from, as it is read. many : whether several can be chosen; shown : how many lines of
    it are shown, 1 of a list that opens."""

    name: str
    spoken: str
    many: bool
    shown: int = 1
    choices: list[Choice] = field(default_factory=list)
    group: str = ""

    def take(self) -> list[str]:
        """What is chosen; a list that opens shows the first that can be where the page says nothing."""
        taken = [choice for choice in self.choices if choice.taken]
        if not self.many:
            first = [choice for choice in self.choices if choice.can_be_taken] if self.shown == 1 else []
            taken = taken[-1:] or first[:1]
            for choice in self.choices:
                choice.taken = choice in taken
        return [choice.words for choice in taken]


@dataclass
class _Field:
    text: str
    name: str
    spoken: str
    is_box: bool = False
    is_moved: bool = False


class Forms:
    """The fields of a page, and the labels by the names of their fields. left_out : choices that were not
    taken and are not in the text."""

    def __init__(self) -> None:
        self.labels: dict[str, str] = {}
        self.left_out = 0
        self._fields: list[_Field] = []

    def entry(self, attributes: dict[str, str], in_label: bool) -> str:
        """The sign for an `input`; "" where nobody sees it."""
        kind = (attributes.get("type") or "text").lower()
        said, name = attributes.get("value"), attributes.get("id") or ""
        if kind in _UNSEEN:
            return ""
        if kind in _BUTTONS:
            words = attributes.get("alt") if kind == "image" else said
            words = words or _BUTTONS[kind]
            return f"[{' '.join(words.split())}]" if words else ""
        spoken = "" if in_label else attributes.get("aria-label") or attributes.get("title") or ""
        if kind in ("checkbox", "radio"):
            return self._sign(_Field(TICKED if "checked" in attributes else EMPTY, name, spoken, is_box=True))
        if kind == "password":
            said = "****" if said else ""
        return self._sign(_Field(" ".join((said or "").split()) or BLANK, name, spoken))

    def area(self, attributes: dict[str, str], text: str, in_label: bool) -> str:
        """The sign for a `textarea` that holds `text`."""
        lines = (" ".join(line.split()) for line in text.strip().split("\n"))
        spoken = "" if in_label else attributes.get("aria-label") or ""
        return self._sign(_Field("\n".join(lines) or BLANK, attributes.get("id") or "", spoken))

    def chosen(self, choices: Choices) -> str:
        """The sign for a `select`."""
        taken = choices.take()
        if len(choices.choices) <= _MOST_CHOICES:
            each = (f"{TICKED if one.taken else EMPTY} {one.words}" for one in choices.choices if one.words)
            text = " ".join(each)
        else:
            text = ", ".join(taken)
            self.left_out += len(choices.choices) - len(taken)
        return self._sign(_Field(text or BLANK, choices.name, choices.spoken))

    def box(self, sign: str) -> tuple[int, str] | None:
        """The number of the box that `sign` stands for, and its name; None where it stands for none."""
        match = _PLACE.fullmatch(sign)
        if match is None or int(match[1]) >= len(self._fields):
            return None
        one = self._fields[int(match[1])]
        return (int(match[1]), one.name) if one.is_box and not one.is_moved else None

    def moved(self, number: int) -> str:
        """The sign for a box that is to stand elsewhere than on the page, beside its label."""
        one = self._fields[number]
        one.is_moved = True
        return self._sign(_Field(one.text, "", "", is_box=True))

    def _without_moved(self, text: str) -> str:
        def kept(match: re.Match[str]) -> str:
            if int(match[1]) >= len(self._fields) or not self._fields[int(match[1])].is_moved:
                return match[0]
            return " " if text[match.end() : match.end() + 1].isalnum() else ""

        return re.sub(f" ?{_PLACE.pattern}", kept, text)

    def filled(self, text: str) -> str:
        """The text of a page with what each field says in its place."""
        text = self._without_moved(text)

        def fill(match: re.Match[str]) -> str:
            if int(match[1]) >= len(self._fields):
                return ""
            one = self._fields[int(match[1])]
            label = (self.labels.get(one.name, "") if one.name else "") or one.spoken
            label = " ".join(label.split())[:_MOST_LABEL]
            around = text[max(match.start() - _NEAR, 0) : match.end() + _NEAR]
            said = one.text
            before = " " if match.start() and text[match.start() - 1] not in _OPENING else ""
            after = " " if text[match.end() : match.end() + 1].isalnum() else ""
            line = text.rfind("\n", max(match.start() - _LONGEST_ROW, 0), match.start()) + 1
            if "\n" in said and text.startswith("|", line):
                said = said.replace("\n", "<br>")  # a table has one line a row
            if not label or label in " ".join(_PLACE.sub("", around).split()):
                return before + said + after
            labelled = f"{said} {label}" if one.is_box else f"{label.rstrip(':')}: {said}"
            return before + labelled + after

        return _PLACE.sub(fill, text)

    def _sign(self, one: _Field) -> str:
        self._fields.append(one)
        return f"{FIELD}{len(self._fields) - 1}{FIELD_END}"
