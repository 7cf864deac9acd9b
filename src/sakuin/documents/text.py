"""Plain text: bytes decoded, and refused in words where they are no text.

Offsets count the characters exactly as decoded: line ends are not translated; only a byte order mark at the
start is taken off. Markdown stays as it is too; its headings are marked.
"""

from __future__ import annotations

import codecs
import re
from itertools import pairwise

from sakuin.documents.document import Document, Mark
from sakuin.documents.frontmatter import blanked
from sakuin.documents.limits import check_length
from sakuin.errors import SakuinError

_BOMS = (  # the longer ones first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LINE_END = re.compile(r"\r\n?|\n")
_MOST_CONTROLS = 0.01
_TEXT_CONTROLS = frozenset("\t\n\v\f\r\x1b")


def read(data: bytes, name: str, encoding: str | None, *, markdown: bool = False) -> Document:
    """The document in `data`; with `markdown`, its headings are marked."""
    text, said = decode_or_guess(data, name, encoding)
    check_length(len(text), name)
    return Document(name, text, _headings(text) if markdown else (), said)


def decode_or_guess(data: bytes, name: str, encoding: str | None) -> tuple[str, tuple[str, ...]]:
    """The text in `data`, and a note on its encoding where "auto" had to guess it."""
    if encoding != "auto":
        return decode(data, name, encoding or "utf-8"), ()
    try:
        return decode(data, name), ()
    except SakuinError:
        likely = guess(data)
        if likely is None:
            raise
    return decode(data, name, likely), (f"{name} is not UTF-8 and was read as {likely}, which is a guess.",)


def check_not_empty(data: bytes, name: str) -> None:
    """Raise `SakuinError` where there is nothing but blanks in `data`."""
    if not data.strip():
        raise SakuinError(f"{name} is empty; there is nothing to ask about.")


def check_encoding(encoding: str | None) -> None:
    """Raise `SakuinError` where Python knows no text encoding of this name."""
    if encoding is None or encoding == "auto":
        return
    try:
        b"x".decode(encoding)
    except UnicodeError:
        pass  # in UTF-16, half a letter
    except LookupError:
        raise SakuinError(
            f"there is no text encoding named {encoding!r}; usual ones are utf-8, cp932, shift_jis, euc_jp, "
            "utf-16 and cp1252, and auto guesses."
        ) from None


def by_mark(data: bytes) -> str | None:
    """The encoding that a byte order mark at the start of `data` names."""
    if data.startswith(codecs.BOM_UTF8):
        return "utf-8"
    return next((name for mark, name in _BOMS if data.startswith(mark)), None)


def _headings(text: str) -> tuple[Mark, ...]:
    from markdown_it import MarkdownIt

    # Without what stands in a line: a heading's words are taken as they are, and this takes the most time.
    tokens = MarkdownIt().disable(["inline", "text_join"]).parse(blanked(text))
    starts = [0]
    starts += [end.end() for end in _LINE_END.finditer(text)]
    return tuple(
        Mark(starts[token.map[0]], heading=" ".join(title.content.split()))
        for token, title in pairwise(tokens)
        if token.type == "heading_open" and token.map and title.content.strip()
    )


def decode(data: bytes, name: str, encoding: str = "utf-8") -> str:
    """The text in `data`; `name` is what errors call it."""
    check_not_empty(data, name)
    check_encoding(encoding)
    try:
        text = data.decode(encoding)
    except UnicodeError as error:
        raise SakuinError(_not_in(data, name, encoding, error)) from None
    text = text.removeprefix("\ufeff")
    if _is_binary(text):
        if (likely := guess(data)) and likely.startswith("utf-"):
            raise SakuinError(
                f"{name} is not {encoding} text; it looks like {likely}: pass --encoding {likely}."
            )
        raise SakuinError(f"{name} is binary, not text; extract its text first.")
    if b"\x1b$" in data and data.isascii() and codecs.lookup(encoding).name == "utf-8" and guess(data):
        # The one encoding of Japanese whose bytes are all ASCII, and therefore UTF-8 without being it.
        raise SakuinError(f"{name} looks like iso2022_jp: pass --encoding iso2022_jp.")
    if not text.strip():
        raise SakuinError(f"{name} holds only blanks; there is nothing to ask about.")
    return text


def _not_in(data: bytes, name: str, encoding: str, error: UnicodeError) -> str:
    where = ""
    if isinstance(error, UnicodeDecodeError):
        where = (
            f" (byte 0x{data[error.start]:02x} at offset {error.start})" if error.start < len(data) else ""
        )
    likely = guess(data)
    if likely is None:
        return f"{name} is not {encoding} text{where} and looks binary; extract its text first."
    return f"{name} is not {encoding} text{where}; it looks like {likely}: pass --encoding {likely}."


def _is_binary(text: str) -> bool:
    if "\0" in text:
        return True
    sample = text[: 1 << 16]
    controls = sum(1 for char in sample if char < " " and char not in _TEXT_CONTROLS)
    return controls > _MOST_CONTROLS * len(sample)


def guess(data: bytes) -> str | None:
    """The encoding that `data`, which is not UTF-8, is likely in; None where it looks binary."""
    for mark, name in _BOMS:
        if data.startswith(mark):
            return name
    sample = data[: 1 << 16]
    if b"\0" in sample:
        return _guess_utf16(sample)
    if b"\x1b$" in sample and max(sample) < 0x80:
        return None if _decoded(sample, "iso2022_jp") is None else "iso2022_jp"
    scores = {name: _japanese(sample, name) for name in ("cp932", "euc_jp")}
    best = max(scores, key=lambda name: scores[name])
    if scores[best] > 0.5:
        return best
    for name in ("utf-8", "cp1252", "latin-1"):
        if (text := _decoded(sample, name)) is not None:
            return None if _is_binary(text) or _letters(text) < 0.5 else name
    return None


def _guess_utf16(sample: bytes) -> str | None:
    """UTF-16 without a mark, of Western text: every other byte is zero."""
    even = sample[: len(sample) // 2 * 2]
    if len(even) < 4:
        return None
    zeros = even[0::2].count(0), even[1::2].count(0)
    name = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    text = _decoded(even, name)
    if text is None or _is_binary(text) or max(zeros) < 0.3 * (len(even) // 2) or _letters(text) < 0.5:
        return None
    return name


def _decoded(sample: bytes, name: str) -> str | None:
    """`sample` decoded, forgiving only a character that its end cuts."""
    decoder = codecs.getincrementaldecoder(name)()
    try:
        return decoder.decode(sample)
    except UnicodeDecodeError:
        return None


def _japanese(sample: bytes, name: str) -> float:
    """How much `sample` looks like Japanese if it is in the encoding `name`, 0 to 1.

    Text in the wrong one of the two encodings comes out as half-width kana and rare signs, and Western text
    has no kana.
    """
    text = _decoded(sample, name)
    foreign = [char for char in text or "" if char > "\x7f"]
    kana = sum(1 for char in foreign if "\u3040" <= char <= "\u30ff")
    if not foreign or kana < 0.05 * len(foreign):
        return 0.0
    usual = sum(
        1
        for char in foreign
        if "\u3000" <= char <= "\u30ff" or "\u4e00" <= char <= "\u9fff" or "\uff01" <= char <= "\uff5e"
    )
    return usual / len(foreign)


def _letters(text: str) -> float:
    """Share of the characters that are letters, digits, blanks or ASCII signs."""
    return sum(1 for char in text if char.isalnum() or char.isspace() or " " <= char <= "~") / max(
        len(text), 1
    )
