"""A paragraph: its runs, with all that stands between and in them, as one text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from sakuin.documents import links
from sakuin.documents.boxes import BLANK, EMPTY, TICKED, boxes
from sakuin.documents.equations import omml
from sakuin.documents.pieces import Piece, joined
from sakuin.documents.word import drawings
from sakuin.documents.word.fields import Field
from sakuin.documents.word.found import Found
from sakuin.documents.word.names import child, is_on, long, tag, value
from sakuin.documents.word.styles import Look, Styles
from sakuin.documents.word.symbols import is_of_signs, sign

_OPEN = ("w:smartTag", "w:customXml", "w:bdo", "w:dir", "w:sdtContent", "mc:Choice", "mc:Fallback")
"""Elements that are only around others."""

_CHARACTERS = {
    "w:tab": "\t",
    "w:ptab": "\t",
    "w:br": "\n",
    "w:cr": "\n",
    "w:noBreakHyphen": "-",
    "w:pgNum": "#",
}
_NOT_SEEN = str.maketrans({"\xad": None, "\u200b": None, "\xa0": " ", "\u2011": "-", "\u202f": " "})
"""Soft hyphens and such; what keeps words in one line."""


class Marks(Protocol):
    """What says where footnotes, endnotes and comments are."""

    def mark(self, reference: Any) -> str: ...


class Inline:
    """Reads paragraphs, one after another: fields reach over several.

    targets : addresses by the ids of the part's relations. boxes : elements with paragraphs of their own that
    the last paragraphs held. in_margin : whether this is a page header or footer.
    """

    def __init__(
        self, styles: Styles, marks: Marks, found: Found, targets: dict[str, str], *, in_margin: bool = False
    ) -> None:
        self.boxes: list[Any] = []
        self._styles, self._marks, self._found, self._targets = styles, marks, found, targets
        self._in_margin = in_margin
        self._fields: list[Field] = []
        self._pieces: list[Piece] = []
        self._look = Look()
        self._style = ""
        self._hiding = False

    def text(self, paragraph: Any, style: str) -> str:
        """The text of a paragraph of this style. Its own lines are parted by newlines."""
        self._pieces, self._style, self._look, self._hiding = [], style, Look(), False
        self._fields = [each for each in self._fields if not each.is_lost()]
        for each in self._fields:
            each.start = 0
        self._walk(paragraph)
        text, struck = joined(self._pieces)
        self._found.struck += struck
        return text

    def _walk(self, around: Any) -> None:
        for each in around:
            name = tag(each)
            if name == "w:r":
                self._run(each)
            elif name in ("w:ins", "w:moveTo"):
                self._found.insertions += _is_kept(each)
                self._walk(each)
            elif name in ("w:del", "w:moveFrom"):
                self._found.deletions += len(each) > 0
                for part in each.iter(long("w:fldChar")):
                    self._field(part)  # what is deleted may end a field that is not
            elif name in _OPEN:
                self._walk(each)
            elif name == "w:hyperlink":
                start = len(self._pieces)
                self._walk(each)
                self._link(start, self._targets.get(value(each, "r:id") or ""))
            elif name == "w:fldSimple":
                self._open(Field(code=value(each, "w:instr") or "", data=child(each, "w:ffData")))
                self._separate()
                self._walk(each)
                self._end()
            elif name == "w:sdt":
                self._control(each)
            elif name in ("m:oMath", "m:oMathPara"):
                self._look = Look()
                self._say(" ".join(omml(each).split()))
            elif name == "mc:AlternateContent":
                self._alternate(each, self._walk)
            elif name == "w:subDoc":
                self._found.parts += 1

    def _run(self, run: Any) -> None:
        self._look = self._styles.look(child(run, "w:rPr"), self._style)
        if self._look.hidden and run.find(long("w:t")) is not None and not self._in_code:
            self._found.hidden += not self._hiding
        self._hiding = self._look.hidden
        self._parts_of(run)

    def _parts_of(self, run: Any) -> None:
        for part in run:
            name = tag(part)
            if name == "w:fldChar":
                self._field(part)
            elif name == "w:instrText":
                if self._fields and self._fields[-1].in_code:
                    self._fields[-1].code += part.text or ""
            elif self._in_code or self._look.hidden:
                continue
            elif name == "w:t":
                self._letters(part.text or "")
            elif name in _CHARACTERS:
                self._say(_CHARACTERS[name])
            elif name == "w:sym":
                self._symbol(value(part, "w:char") or "", value(part, "w:font") or "")
            elif name in ("w:footnoteReference", "w:endnoteReference", "w:commentReference"):
                self._look = Look(struck=self._look.struck)
                self._say(self._marks.mark(part))
                if is_on(part, "w:customMarkFollows") and value(part, "w:customMarkFollows"):
                    return  # the rest of the run is the mark itself
            elif name in ("w:drawing", "w:pict", "w:object"):
                self._drawing(part)
            elif name == "w:ruby":
                self._ruby(part)
            elif name == "mc:AlternateContent":
                self._alternate(part, self._parts_of_options)

    def _parts_of_options(self, around: Any) -> None:
        for option in around:
            self._parts_of(option)

    @property
    def _in_code(self) -> bool:
        return any(each.in_code for each in self._fields)

    def _say(self, text: str) -> None:
        if text and not self._in_code:
            self._pieces.append(Piece(text, self._look.struck, self._look.script))

    def _letters(self, text: str) -> None:
        if is_of_signs(self._look.font):
            text = "".join(
                char if char.isspace() else self._sign(ord(char), self._look.font) for char in text
            )
        else:
            text = boxes(text).translate(_NOT_SEEN)
        self._say(text.upper() if self._look.capitals else text)

    def _symbol(self, code: str, font: str) -> None:
        try:
            self._say(self._sign(int(code, 16), font))
        except ValueError:
            self._found.signs += 1

    def _sign(self, code: int, font: str) -> str:
        if (found := sign(code, font)) is not None:
            return found
        self._found.signs += 1
        return "[symbol]"

    def _alternate(self, element: Any, read: Callable[[Any], None]) -> None:
        """The first of several forms of the same of which there is something to be read."""
        for option in element:
            before = len(self._pieces), len(self.boxes), vars(self._found).copy()
            read([option])
            if before != (len(self._pieces), len(self.boxes), vars(self._found)):
                return

    def _drawing(self, element: Any) -> None:
        drawing = drawings.look_at(element, self._found)
        self._say(" ".join(drawing.words))
        self.boxes += drawing.boxes

    def _ruby(self, element: Any) -> None:
        """Signs with how they are spoken, which stands in parentheses."""
        for name, form in (("w:rubyBase", "{}"), ("w:rt", "({})")):
            start = len(self._pieces)
            if (part := child(element, name)) is not None:
                self._walk(part)
            said = "".join(piece.text for piece in self._pieces[start:])
            del self._pieces[start:]
            self._say(form.format(said) if said else "")

    def _control(self, control: Any) -> None:
        properties, content = child(control, "w:sdtPr"), child(control, "w:sdtContent")
        if (box := child(properties, "w14:checkbox")) is not None:
            self._look = Look()
            self._say(TICKED if is_on(child(box, "w14:checked"), "w14:val") else EMPTY)
        elif content is not None:
            start = len(self._pieces)
            self._walk(content)
            if is_on(child(properties, "w:showingPlcHdr")):
                said = "".join(piece.text for piece in self._pieces[start:]).strip()
                del self._pieces[start:]
                self._look = Look()
                self._say(f"[{said}]" if said else BLANK)
                self._found.prompts += bool(said)

    def _link(self, start: int, target: str | None) -> None:
        """Say where a link leads, unless its words do."""
        said = "".join(piece.text for piece in self._pieces[start:]).strip()
        if where := links.behind(said, target or ""):
            self._pieces.append(Piece(where, self._pieces[-1].struck))

    def _field(self, part: Any) -> None:
        kind = value(part, "w:fldCharType")
        if kind == "begin":
            self._open(Field(data=child(part, "w:ffData")))
        elif kind == "separate":
            self._separate()
        elif kind == "end":
            self._end()

    def _open(self, field: Field) -> None:
        self._fields.append(field)

    def _separate(self) -> None:
        if self._fields:
            field = self._fields[-1]
            field.close()
            field.in_code, field.has_result, field.start = False, True, len(self._pieces)

    def _end(self) -> None:
        if not self._fields:
            return
        field = self._fields.pop()
        if not field.has_result:
            field.close()
            field.start = len(self._pieces)
        result = "".join(piece.text for piece in self._pieces[field.start :])
        shown = "#" if self._in_margin and field.is_page else field.shown(result)
        if shown is not None:
            del self._pieces[field.start :]
            self._say(shown)
        self._link(field.start, field.target())
        self._found.fields += field.is_worked_out


def _is_kept(insertion: Any) -> bool:
    """Whether something that was inserted was not deleted later."""
    return any(
        tag(each) not in ("w:del", "w:moveFrom") and (tag(each) == "w:r" or _is_kept(each) or not len(each))
        for each in insertion
    )
