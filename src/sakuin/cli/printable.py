"""What of a text may reach a terminal: its characters, none that steer it.

A document, an answer, a name of a file or an error can hold codes that clear the screen, set titles and
links, write to the clipboard or turn the direction of what follows. They are taken out here, whole: of a
title not only its first byte. Newlines and tabs stay.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

_BODY = r"[^\x00-\x1f\x7f-\x9f]*"
_CSI, _STRING = r"(?:\x1b\[|\x9b)[0-?]*[ -/]*", rf"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f]){_BODY}"
_SEQUENCE = re.compile(
    rf"{_STRING}(?:\x07|\x1b\\|\x9c)"  # titles, links, the clipboard, device control
    rf"|{_CSI}[@-~]?"  # colours, the cursor, the screen
    r"|\x1b[ -/]*[0-~]?"
    r"|\r(?=\n)"
)
"""Sequences; one that is begun and not ended loses its beginning, so that nobody hides a text behind it."""

_BEGUN = re.compile(rf"(?:\r|\x1b[ -/]*|{_CSI}|{_STRING}\x1b?)\Z")
"""At a text's end, what may become a sequence with what follows."""

_MOST_HELD = 4096
"""Characters of a sequence that are waited for."""

_PARTING = re.compile(r"[\x0b\x0c\r\x85]")
_UNSEEN = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""C0, C1, DEL, and what overrides or isolates the direction of writing."""

_HALF = re.compile(r"[\ud800-\udfff]")
_JSON_UNSEEN = re.compile(r"[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` without escape sequences and control characters; half a character becomes U+FFFD."""
    if text.isascii() and text.isprintable():  # nearly every token and name
        return text
    text = _PARTING.sub(" ", _SEQUENCE.sub("", text))
    return _HALF.sub("\ufffd", _UNSEEN.sub("", text))


def one_line(text: str) -> str:
    """`printable` text in one line, as names and remarks are printed: no name forges a line of ours."""
    return " ".join(printable(text).split())


class Stream:
    """`printable` for a text that comes in pieces, which may cut a sequence anywhere."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be printed now."""
        text = self._held + piece
        begun = _BEGUN.search(text)
        if begun is None or len(text) - begun.start() > _MOST_HELD:
            self._held = ""
            return printable(text)
        self._held = text[begun.start() :]
        return printable(text[: begun.start()])

    def end(self) -> str:
        """What is left at the end."""
        text, self._held = self._held, ""
        return printable(text)


def as_json(value: Any) -> str:
    """`value` as one line of JSON that keeps every character and lets none reach the terminal: control
    characters and halves of characters are escaped, and all but ASCII where standard output has no other."""
    text = json.dumps(value, ensure_ascii=False)
    text = _JSON_UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return json.dumps(value)
    return text
