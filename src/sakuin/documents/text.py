"""Plain text: bytes decoded, and refused in words where they are no text.

Offsets count the characters exactly as decoded: line ends are not translated; only byte order marks and NULs
are taken out. Where nearly all is text, the few bytes that are none become U+FFFD, and a note says how many.
Markdown stays as it is too; its headings are marked.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_right
from itertools import pairwise

from sakuin.documents import encodings
from sakuin.documents.document import Document, Mark
from sakuin.documents.frontmatter import blanked
from sakuin.documents.limits import check_length
from sakuin.errors import SakuinError

_LINE_END = re.compile(r"\r\n?|\n")
_MOST_BAD = 0.001
"""Share of the characters that may be bad in a text of an encoding."""

_LONG = 1000
"""Bytes of a text of ASCII from which one letter of another encoding in it is damage."""

_MOST_NUL_RUNS = 0.01
"""Runs of NULs to each character of text; a run may be as long as it likes: a log that was never written."""

_NUL_RUN = re.compile("\0+")
_NUL_BLOCK = re.compile(r"(?<=[^\r\n\0])\0{16,}(?=[^\r\n\0])")
"""A block within a line: what stands before it and behind it are two lines."""

_OF_WINDOWS = re.compile(
    rb"(?<=[A-Za-z])[\xc0-\xd6\xd8-\xf6\xf8-\xfd]|[\xc0-\xd6\xd8-\xf6\xf8-\xfd](?=[a-z])"
    rb"|[\x80\x85\x91-\x97\xa3\xa7\xab\xb0\xbb]"
)
"""What letters and signs of print are in cp1252, where it is likely one."""

_INNER_MARK = re.compile(r"(?<=[\r\n])\ufeff")
_FOREIGN = re.compile(r"[^\x00-\x7f\ufffd]")


def read(data: bytes, name: str, encoding: str | None, *, markdown: bool = False) -> Document:
    """The document in `data`; with `markdown`, its headings are marked."""
    text, said = decode_or_guess(data, name, encoding)
    check_length(len(text), name)
    return Document(name, text, _headings(text) if markdown else (), said)


def decode_or_guess(data: bytes, name: str, encoding: str | None) -> tuple[str, tuple[str, ...]]:
    """The text in `data`, and notes on what of it is no text, and on its encoding where that was guessed.

    encoding : None is UTF-8, or what a byte order mark says; "auto" guesses where it is neither.
    """
    marked = by_mark(data) if encoding in (None, "auto") else None
    named = marked or ("utf-8" if encoding in (None, "auto") else str(encoding))
    try:
        return repaired(data, name, named)
    except SakuinError:
        likely = encodings.guess(data)
        if encoding != "auto" or likely is None or likely == named:
            raise
    text, said = repaired(data, name, likely)
    return text, (f"{name} is not UTF-8 and was read as {likely}, which is a guess.", *said)


def repaired(data: bytes, name: str, encoding: str) -> tuple[str, tuple[str, ...]]:
    """The text in `data` without its NULs, and with U+FFFD for the few bytes that are bad, of both of which
    notes are returned. `SakuinError` where it is no text, or of another encoding."""
    check_not_empty(data, name)
    check_encoding(encoding)
    text, notes = _replaced(data, name, encoding)
    if "\0" in text:
        text, dropped = _without_nuls(data, text, name)
        notes += dropped
    checked(data, text, name, encoding)
    return text, notes


def _replaced(data: bytes, name: str, encoding: str) -> tuple[str, tuple[str, ...]]:
    """The text, where few bytes are bad with U+FFFD in their place and a note; else a `SakuinError`."""
    try:
        return without_marks(data.decode(encoding)), ()
    except UnicodeError as error:
        first, said = error, _not_in(data, name, encoding, error)
    if not isinstance(first, UnicodeDecodeError):
        raise SakuinError(said)
    try:
        text = data.decode(encoding, "replace")
    except UnicodeError:  # some encodings have no such way
        raise SakuinError(said) from None
    bad = text.count("\ufffd") - data.count("\ufffd".encode(encoding, "ignore") or b"\0never")
    if bad < 1 or not _is_nearly_all(data, text, bad, encoding):
        raise SakuinError(said)
    before = data[: first.start].decode(encoding, "replace")
    line = 1 + sum(1 for _ in _LINE_END.finditer(before))
    shown = "".join(f"\\x{byte:02x}" for byte in data[first.start : first.start + 1])
    many = "1 byte" if bad == 1 else f"{bad:,} places"
    return without_marks(text), (
        f"{name} is {encoding} but for {many}, the first on line {line:,} (byte {shown} at offset "
        f"{first.start:,}); U+FFFD stands there.",
    )


def _is_nearly_all(data: bytes, text: str, bad: int, encoding: str) -> bool:
    """Whether a text with so many bad places is in this encoding all the same."""
    few = bad <= max(1, _MOST_BAD * len(text))
    if codecs.lookup(encoding).name != "utf-8":
        return few
    if foreign := len(_FOREIGN.findall(text)):
        # Bytes outside ASCII are UTF-8 by chance next to never: these are, and the others are damaged.
        return foreign >= bad and encodings.guess(data) not in ("cp932", "euc_jp")
    letters = len(_OF_WINDOWS.findall(data))
    if letters >= bad:  # each would be a letter or a quotation mark in the encoding of Western Windows
        return bad == 1 and len(data) >= _LONG
    return few


def _without_nuls(data: bytes, text: str, name: str) -> tuple[str, tuple[str, ...]]:
    """The text without its NULs, and a note; as it was where they stand all over it, as they do in data and
    in text of two bytes a letter."""
    rest = text.replace("\0", "")
    runs = len(_NUL_RUN.findall(text))
    likely = encodings.guess(data)
    if (
        runs > max(_MOST_NUL_RUNS * len(rest), 1)
        or encodings.is_binary(rest)
        or (likely or "").startswith("utf-16")
    ):
        return text, ()
    count = text.count("\0")
    line = 1 + sum(1 for _ in _LINE_END.finditer(text[: text.index("\0")]))
    said = "1 NUL, which was left out" if count == 1 else f"{count:,} NULs, which were left out"
    return _NUL_BLOCK.sub("\n", text).replace("\0", ""), (
        f"{name} holds {said}; the first is on line {line:,}.",
    )


def without_marks(text: str) -> str:
    """A text without the byte order mark at its start, and those that joined files have within them, at the
    start of a line."""
    text = text.removeprefix("\ufeff")
    return _INNER_MARK.sub("", text) if "\ufeff" in text else text


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
    return next((name for mark, name in encodings.BOMS if data.startswith(mark)), None)


def _headings(text: str, most: int = 1 << 20) -> tuple[Mark, ...]:
    """The headings. most : characters that are parsed at once, where no block is longer: what the parser
    makes of a text takes fifty times its memory."""
    from markdown_it import MarkdownIt

    # Without what stands in a line: a heading's words are taken as they are, and this takes the most time.
    parser = MarkdownIt().disable(["inline", "text_join"])
    starts = [0]
    starts += [end.end() for end in _LINE_END.finditer(text)]
    starts += [len(text)] * (starts[-1] < len(text))
    found: list[Mark] = []
    size, plain = most, len(blanked(text))
    # The lines of the front matter, which is blanked, hold no headings.
    first = next((k for k, start in enumerate(starts) if plain - k == len(text) - start), 0)
    while first < len(starts) - 1:
        last = max(bisect_right(starts, starts[first] + size) - 1, first + 1)
        tokens = parser.parse(text[starts[first] : starts[last]])
        done = last - first
        if last < len(starts) - 1:
            # No later line changes a block that another has followed; the last one may go on.
            blocks = [token.map[0] for token in tokens if token.map and not token.level]
            done = blocks[-1] if blocks else done
            if not done:
                size *= 2
                continue
        found += [
            Mark(starts[first + token.map[0]], heading=" ".join(title.content.split()))
            for token, title in pairwise(tokens)
            if token.type == "heading_open" and token.map and token.map[0] < done and title.content.strip()
        ]
        first, size = first + done, most
    return tuple(found)


def decode(data: bytes, name: str, encoding: str = "utf-8") -> str:
    """The text in `data`; `name` is what errors call it."""
    check_not_empty(data, name)
    check_encoding(encoding)
    try:
        text = data.decode(encoding)
    except UnicodeError as error:
        raise SakuinError(_not_in(data, name, encoding, error)) from None
    text = without_marks(text)
    checked(data, text, name, encoding)
    return text


def checked(data: bytes, text: str, name: str, encoding: str) -> None:
    """Raise `SakuinError` where what was decoded is no text, or of another encoding."""
    if encodings.is_binary(text):
        if (likely := encodings.guess(data)) and likely.startswith("utf-"):
            raise SakuinError(
                f"{name} is not {encoding} text; it looks like {likely}: pass --encoding {likely}."
            )
        raise SakuinError(f"{name} is binary, not text; extract its text first.")
    if (
        b"\x1b$" in data
        and data.isascii()
        and codecs.lookup(encoding).name == "utf-8"
        and encodings.guess(data)
    ):
        # The one encoding of Japanese whose bytes are all ASCII, and therefore UTF-8 without being it.
        raise SakuinError(f"{name} looks like iso2022_jp: pass --encoding iso2022_jp.")
    if not text.strip():
        raise SakuinError(f"{name} holds only blanks; there is nothing to ask about.")


def _not_in(data: bytes, name: str, encoding: str, error: UnicodeError) -> str:
    where = ""
    if isinstance(error, UnicodeDecodeError):
        where = (
            f" (byte 0x{data[error.start]:02x} at offset {error.start})" if error.start < len(data) else ""
        )
    likely = encodings.likely(data)
    if len(likely) == 1 and codecs.lookup(likely[0]).name == codecs.lookup(encoding).name:
        return f"{name} begins as {encoding} text and is damaged{where}; get it once more."
    if not likely and encodings.looks_binary(data):
        return f"{name} is not {encoding} text{where} and looks binary; extract its text first."
    return f"{name} is not {encoding} text{where}; {remedy(likely)}."


def remedy(likely: tuple[str, ...]) -> str:
    """What to do with a text that is in one of these encodings, likeliest first."""
    if not likely:
        return "which encoding it is in cannot be told: pass --encoding NAME, or convert it to UTF-8"
    if len(likely) == 1:
        return f"it looks like {likely[0]}: pass --encoding {likely[0]}"
    several = ", ".join(likely[:-1]) + f" or {likely[-1]}"
    return f"it may be {several}: pass --encoding {likely[0]}, and look at the text before you use it"
