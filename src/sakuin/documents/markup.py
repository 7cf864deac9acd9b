"""HTML: decoded as the page says, hidden parts left out, laid out as Markdown (`soup`).

Headings, lists and tables keep their form as Markdown, which models read well; emphasis and links leave only
their words. What a style sheet hides is not known here; what the page's own tags and `style` attributes hide
is. Word documents come through here too, after mammoth has made HTML of them.
"""

from __future__ import annotations

import codecs
import re
import warnings

from sakuin.documents import soup, text
from sakuin.documents.document import Document, Mark
from sakuin.documents.words import counted, listed
from sakuin.errors import SakuinError

_DECLARED = re.compile(
    rb"""<meta\b[^>]*?charset\s*=[\s"']*([-\w.:]+)|\A\s*<\?xml[^>]*?encoding\s*=\s*["']([-\w.:]+)""", re.I
)
_DECLARED_WITHIN = 4096
_MEANT = {  # the web's names mean these supersets
    "shift_jis": "cp932",
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
}
_UNKNOWN = {"windows-31j": "cp932", "x-sjis": "cp932", "windows-949": "cp949", "x-euc-jp": "euc_jp"}
"""Names on the web that Python does not know."""

_ELSEWHERE = ("iframe", "frame", "video", "audio", "embed", "canvas")


def read(data: bytes, name: str, encoding: str | None) -> Document:
    """The document in the HTML page `data`."""
    page, notes = _decode(data, name, encoding)
    return lay_out(page, name, notes)


def lay_out(page: str, name: str, notes: tuple[str, ...] = ()) -> Document:
    """The text of a page, with its headings marked. Raises `SakuinError` where nothing of it can be seen."""
    page = page.replace(soup.OPEN, "").replace(soup.CLOSE, "")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on XML that is read as HTML
            tree = soup.Page(page, "lxml")
        lacks = _prepare(tree)
        laid = soup.Layout().convert_soup(tree)
    except RecursionError:
        raise SakuinError(
            f"{name} nests its elements too deeply to be read; open it in a browser and save it as text."
        ) from None
    laid = "\n".join(line.rstrip(" \t") for line in laid.replace("\xa0", " ").split("\n"))
    words, marks = _take_marks(re.sub(r"\n{3,}", "\n\n", laid).strip())
    if not words:
        raise SakuinError(
            f"{name} has no text that can be seen{_and(lacks)}; if scripts write it, open it in a browser "
            "and save what it shows."
        )
    if lacks:
        notes = (*notes, f"not read of {name}: {lacks}.")
    return Document(name, words, marks, notes)


def _and(lacks: str) -> str:
    return f" (but {lacks})" if lacks else ""


def _decode(data: bytes, name: str, encoding: str | None) -> tuple[str, tuple[str, ...]]:
    if encoding is not None and encoding != "auto":
        return text.decode(data, name, encoding), ()
    if marked := text.by_mark(data):
        return text.decode(data, name, marked), ()
    declared = _declared(data)
    try:
        data.decode("utf-8")
        # Bytes outside ASCII that are UTF-8 by chance are next to impossible, a wrong declaration is not.
        if declared is None or declared == "utf-8" or not data.isascii():
            said = f"{name} declares {declared} and is UTF-8, as which it was read."
            return text.decode(data, name), () if declared in (None, "utf-8") else (said,)
    except UnicodeDecodeError:
        pass
    if declared is None or (declared == "utf-8" and encoding == "auto"):
        return text.decode_or_guess(data, name, encoding)
    try:
        return text.decode(data, name, declared), ()
    except SakuinError:
        likely = text.guess(data)
        if encoding == "auto" and likely not in (None, declared):
            said = f"{name} declares {declared}, which it is not, and was read as {likely}, which is a guess."
            return text.decode(data, name, str(likely)), (said,)
        remedy = (
            "convert it to UTF-8 first"
            if likely in (None, declared)
            else f"it looks like {likely}: pass --encoding {likely}"
        )
        raise SakuinError(f"{name} declares {declared} and is not {declared} text; {remedy}.") from None


def _declared(data: bytes) -> str | None:
    """The encoding that a page declares, by Python's name; None where it declares none that there is."""
    found = _DECLARED.search(data[:_DECLARED_WITHIN])
    if not found:
        return None
    said = (found[1] or found[2]).decode("ascii", "replace").lower()
    try:
        name = codecs.lookup(_UNKNOWN.get(said, said)).name
    except LookupError:
        return None
    # A page whose declaration could be read as ASCII is in no encoding of two bytes a letter.
    return "utf-8" if name.startswith(("utf-16", "utf-32")) else _MEANT.get(name, name)


def _prepare(page: soup.Page) -> str:
    """Open tables that are none, and mark the headings; says what of the page has no text."""
    soup.open_layout_tables(page)
    soup.mark_headings(page)
    embedded = len(page.find_all(_ELSEWHERE))
    lacks = [counted(page.pictures, "picture")] if page.pictures else []
    lacks += [counted(embedded, "embedded page or film")] if embedded == 1 else []
    lacks += [f"{embedded:,} embedded pages or films"] if embedded > 1 else []
    return listed(lacks) if lacks else ""


def _take_marks(laid: str) -> tuple[str, tuple[Mark, ...]]:
    """The text without the signs around its headings, and where these begin."""
    pieces: list[str] = []
    marks: list[Mark] = []
    length = 0
    for number, piece in enumerate(re.split(f"[{soup.OPEN}{soup.CLOSE}]", laid)):
        if number % 2 and (heading := " ".join(piece.split())):
            before = pieces[-1].rpartition("\n")[2]
            start = length - len(before) if not before.strip("# ") else length
            marks.append(Mark(start, heading=heading))
        pieces.append(piece)
        length += len(piece)
    return "".join(pieces), tuple(marks)
