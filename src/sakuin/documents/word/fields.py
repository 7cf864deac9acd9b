"""Fields: places that Word fills in. Their instructions are not shown, their results are."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sakuin.documents.boxes import BLANK, EMPTY, TICKED
from sakuin.documents.word.names import child, child_value, is_on, long, number, value
from sakuin.documents.word.symbols import sign

_ARGUMENT = re.compile(r'"([^"]*)"|(\S+)')
_PAGES = ("PAGE", "NUMPAGES", "SECTIONPAGES")
_WORKED_OUT = ("EQ", "LISTNUM", "AUTONUM", "AUTONUMLGL", "AUTONUMOUT")
"""Fields that show something and keep no result."""

_MOST_PARAGRAPHS = 20
"""Over how many an instruction reaches; what never ends would take all that follows with it."""


@dataclass
class Field:
    """A field that is open. in_code : its instruction is being read, not its result. start : the piece of
    its paragraph with which the result begins."""

    data: Any = None
    code: str = ""
    in_code: bool = True
    start: int = 0
    has_result: bool = False
    paragraphs: int = 0
    arguments: list[str] = field(default_factory=list)

    def is_lost(self) -> bool:
        """Whether its instruction, which is not shown, has no end; asked once a paragraph."""
        self.paragraphs += self.in_code
        return self.paragraphs > _MOST_PARAGRAPHS

    def close(self) -> None:
        """The instruction is whole."""
        self.arguments = [quoted or plain for quoted, plain in _ARGUMENT.findall(self.code)]

    @property
    def kind(self) -> str:
        return self.arguments[0].upper() if self.arguments else ""

    @property
    def is_page(self) -> bool:
        """Whether it shows the number of a page, which in a page header is another on each."""
        return self.kind in _PAGES

    @property
    def is_worked_out(self) -> bool:
        return self.kind in _WORKED_OUT and not self.has_result

    def target(self) -> str | None:
        """Where a link leads, outside the document."""
        if self.kind != "HYPERLINK" or len(self.arguments) < 2 or self.arguments[1].startswith("\\"):
            return None
        return self.arguments[1]

    def shown(self, result: str) -> str | None:
        """What stands there instead of the result; None where the result does."""
        if self.kind == "FORMCHECKBOX":
            box = child(self.data, "w:checkBox")
            said = child(box, "w:checked")
            return TICKED if is_on(child(box, "w:default") if said is None else said) else EMPTY
        if self.kind == "FORMDROPDOWN":
            return self._chosen() or result or BLANK
        if self.kind == "FORMTEXT" and not result.strip():
            return BLANK
        if self.kind == "SYMBOL" and not result.strip() and len(self.arguments) > 1:
            return self._symbol()
        return None

    def _chosen(self) -> str:
        choices = child(self.data, "w:ddList")
        entries = (
            [] if choices is None else [value(each) or "" for each in choices.iterfind(long("w:listEntry"))]
        )
        said = child_value(choices, "w:result") or child_value(choices, "w:default")
        at = number(said, 0)
        return entries[at] if 0 <= at < len(entries) else ""

    def _symbol(self) -> str:
        said = self.arguments[1]
        try:
            code = int(said, 16 if said.lower().startswith("0x") else 10)
        except ValueError:
            return said
        after = [argument for before, argument in pairwise(self.arguments) if before == "\\f"]
        return sign(code, after[0] if after else "") or "[symbol]"
