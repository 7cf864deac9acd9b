"""Headers and parts of an e-mail as text, whatever they are encoded in. Nothing here raises on what a
stranger wrote: what cannot be decoded becomes U+FFFD, and is counted."""

from __future__ import annotations

import codecs
import re
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message

from sakuin.documents import encodings

_MEANT = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "euc_kr": "cp949",
}
"""What is written under a name: these hold all that the named ones do."""

_ENCODED = re.compile(r"=\?[^?\s]{1,60}\?[bq]\?", re.I)
_FOLD = re.compile(r"\s+")
_MOST_HEADER = 4000


def known(charset: str | None) -> str | None:
    """Python's name for an encoding of text; None where there is none."""
    try:
        found = codecs.lookup((charset or "").strip("'\" "))
    except (LookupError, ValueError):
        return None
    if not getattr(found, "_is_text_encoding", True):
        return None
    return _MEANT.get(found.name, found.name)


def decoded(data: bytes, charset: str | None) -> tuple[str, int]:
    """The text in `data`, and in how many places U+FFFD stands for what is none. charset : as the message
    names it, or None."""
    named = known(charset)
    # What is UTF-8 beyond ASCII is so whatever else is said.
    for name in ("utf-8" if not data.isascii() else None, named or encodings.guess(data)):
        try:
            if name is not None:
                return data.decode(name), 0
        except UnicodeError:
            continue
    text = data.decode(named or "cp1252", "replace")
    return text, text.count("\ufffd")


def header(message: Message, name: str) -> str:
    """A header in one line; "" where there is none."""
    for key, raw in message.raw_items():
        if key.lower() == name:
            return words(str(raw))
    return ""


def words(raw: str) -> str:
    """The text of a header as it stands in the file."""
    raw = _FOLD.sub(" ", raw[:_MOST_HEADER]).strip()
    if not raw.isascii():
        raw = decoded(raw.encode("utf-8", "surrogateescape"), None)[0]
    if _ENCODED.search(raw):
        try:
            parts = decode_header(raw)
        except (HeaderParseError, ValueError):
            return raw
        raw = "".join(part if isinstance(part, str) else decoded(part, charset)[0] for part, charset in parts)
    return _FOLD.sub(" ", raw.replace("\0", "")).strip()


def content(part: Message) -> bytes:
    """The bytes of a part, without what they were packed in for the way."""
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def file_name(part: Message) -> str:
    """What a part that is a file is called; its kind where it has no name."""
    try:
        name = part.get_filename()
    except (LookupError, ValueError, TypeError):
        name = None
    return words(name)[:80] if name else part.get_content_type()


def unfolded(text: str) -> str:
    """A text of `format=flowed`: lines that end with a blank go on in the next."""
    found: list[str] = []
    before, depth = "", 0
    for line in text.split("\n"):
        quoted = len(line) - len(line.lstrip(">"))
        if before.endswith(" ") and before.strip("> ") not in ("", "--") and quoted == depth:
            found.append(line[quoted:].removeprefix(" "))
        else:
            found.append(f"\n{line}")
        before, depth = line, quoted
    return "".join(found)[1:]
