"""From the bytes of an e-mail (.eml) or a web archive (.mht) to a document: headers as lines, its text, and
the messages in it. Of a text that is there twice the plain one is read, else the page."""

from __future__ import annotations

import email
from email.message import Message

from sakuin.documents.document import Document, Mark
from sakuin.documents.html import file as html
from sakuin.documents.mail import decoding
from sakuin.errors import SakuinError
from sakuin.quantities import counted

_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_DEEPEST = 24
_MOST_PARTS = 5000
_NAMED = 8


def read(data: bytes, name: str, encoding: str | None) -> Document:
    """The document in the e-mail `data`. encoding : of parts that name none."""
    try:
        message = email.message_from_bytes(data)
        reader = _Reader(name, None if encoding == "auto" else encoding)
        reader.message(message)
    except RecursionError:
        raise SakuinError(
            f"{name} nests its parts too deeply to be read; save its text from a mail program."
        ) from None
    if not reader.has_words:
        lacks = f" (but {said})" if (said := reader.files_said()) else ""
        raise SakuinError(
            f"{name} has no text that can be read{lacks}; open it in a mail program and save what it shows."
        )
    return Document(name, "".join(reader.pieces), tuple(reader.marks), tuple(reader.notes()))


class _Reader:
    """Reads a message and those in it. has_words : whether there was more than headers."""

    def __init__(self, name: str, encoding: str | None) -> None:
        self.pieces: list[str] = []
        self.marks: list[Mark] = []
        self.has_words = False
        self._name, self._encoding = name, encoding
        self._length = self._depth = self._parts = self._bad = self._embedded = 0
        self._files: list[str] = []
        self._notes: list[str] = []

    def message(self, message: Message) -> None:
        """Its headers as lines, and what it says."""
        said = {each: decoding.header(message, each.lower()) for each in _HEADERS}
        if said["From"].startswith("<Saved by "):  # of a web archive: the browser
            said["From"] = ""
        lines = [f"{each}: {words}" for each, words in said.items() if words]
        if lines:
            self._say("\n".join(lines), (Mark(0, heading=said["Subject"] or None),))
        self._part(message)

    def notes(self) -> list[str]:
        """Sentences on what was replaced, and on what is not in the text."""
        notes = list(dict.fromkeys(self._notes))
        if self._bad:
            are = "is" if self._bad == 1 else "are"
            notes.append(
                f"{counted(self._bad, 'place')} of {self._name} {are} not in the encoding that it "
                "names; U+FFFD stands there."
            )
        if said := self.files_said():
            notes.append(f"not read of {self._name}: {said}.")
        return notes

    def files_said(self) -> str:
        """The files in the message, which are not read."""
        named, more = self._files[:_NAMED], len(self._files) - _NAMED
        names = ", ".join(named) + (f" and {more:,} more" if more > 0 else "")
        said = [f"{counted(len(self._files), 'attachment')} ({names})"] if self._files else []
        said += [counted(self._embedded, "embedded file")] if self._embedded else []
        return " and ".join(said)

    def _part(self, part: Message) -> None:
        self._parts += 1
        if self._depth >= _DEEPEST:
            raise RecursionError
        if self._parts > _MOST_PARTS:
            raise SakuinError(
                f"{self._name} has more than {_MOST_PARTS:,} parts, and no more are read; split it."
            )
        self._depth += 1
        kind = part.get_content_type()
        inside = part.get_payload()
        parts = [each for each in inside if isinstance(each, Message)] if isinstance(inside, list) else None
        if kind == "message/rfc822" and parts:
            self._say("Message in this one:")
            self.message(parts[0])
        elif parts is not None and kind == "multipart/alternative":
            self._alternative(parts)
        elif parts is not None and kind == "multipart/related":
            self._related(part, parts)
        elif parts is not None:
            for each in parts:
                self._part(each)
        elif part.get_content_disposition() == "attachment" or kind not in ("text/plain", "text/html"):
            self._files.append(decoding.file_name(part))
        else:
            self._text(part, kind)
        self._depth -= 1

    def _alternative(self, parts: list[Message]) -> None:
        """The same several times: the plain text, else what has words."""
        for each in sorted(parts, key=lambda each: each.get_content_type() != "text/plain"):
            before = len(self.pieces)
            self._part(each)
            if len(self.pieces) > before:
                return

    def _related(self, around: Message, parts: list[Message]) -> None:
        """A page and what it is made of: pictures, style sheets, frames."""
        start = str(around.get_param("start") or "")
        root = next(
            (each for each in parts if start and str(each.get("Content-ID") or "").strip() == start), None
        )
        root = root if root is not None else parts[0] if parts else None
        for each in parts:
            if each is root:
                self._part(each)
            elif each.get_content_disposition() == "attachment":
                self._files.append(decoding.file_name(each))
            else:
                self._embedded += 1

    def _text(self, part: Message, kind: str) -> None:
        data = decoding.content(part)
        charset = part.get_content_charset()
        if kind == "text/plain":
            text, bad = decoding.decoded(data, charset or self._encoding)
            text = text.replace("\0", "").replace("\r\n", "\n").strip("\n")
            if str(part.get_param("format") or "").lower() == "flowed":
                text = decoding.unfolded(text)
            self._words(text, bad)
            return
        try:
            if charset is None and self._encoding is None:
                document = html.read(data, self._name, "auto")  # as the page declares
                bad = 0
            else:
                text, bad = decoding.decoded(data, charset or self._encoding)
                document = html.lay_out(text, self._name)
        except SakuinError:
            if data.strip():
                self._notes.append(f"a page in {self._name} has no text that can be seen and was left out.")
            return
        self._notes += document.notes
        self._words(document.text, bad, document.marks)

    def _words(self, text: str, bad: int, marks: tuple[Mark, ...] = ()) -> None:
        if text.strip():
            self._bad += bad
            self.has_words = True
            self._say(text, marks)

    def _say(self, text: str, marks: tuple[Mark, ...] = ()) -> None:
        between = "\n\n" if self.pieces else ""
        start = self._length + len(between)
        self.marks += [Mark(start + mark.start, mark.page, mark.heading) for mark in marks]
        self.pieces.append(between + text)
        self._length = start + len(text)
