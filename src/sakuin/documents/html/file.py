"""HTML: decoded as the page says, hidden parts left out (`soup`), laid out as Markdown (`layout`).

Headings, lists and tables keep their form as Markdown, which models read well; emphasis and links leave only
their words. What a style sheet hides is read; what the page's own tags and `style` attributes hide is not.
"""

from __future__ import annotations

import codecs
import re
import warnings

from sakuin.documents import encodings, text
from sakuin.documents.boxes import boxes
from sakuin.documents.document import Document, Mark
from sakuin.documents.html import signs, soup
from sakuin.documents.html.layout import Layout
from sakuin.documents.words import struck_out, with_and
from sakuin.errors import SakuinError
from sakuin.quantities import counted

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
_NOT_SEEN = str.maketrans({"\xad": None, "\u200b": None, "\xa0": " ", "\u202f": " "})
"""Soft hyphens and such; what keeps words in one line."""

_UNKNOWN = {"windows-31j": "cp932", "x-sjis": "cp932", "windows-949": "cp949", "x-euc-jp": "euc_jp"}
"""Names on the web that Python does not know."""


def read(data: bytes, name: str, encoding: str | None) -> Document:
    """The document in the HTML page `data`."""
    page, notes = _decode(data, name, encoding)
    return lay_out(page, name, notes)


def lay_out(page: str, name: str, notes: tuple[str, ...] = ()) -> Document:
    """The text of a page, with its headings marked. Raises `SakuinError` where nothing of it can be seen."""
    page = page.translate(signs.ALL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on XML that is read as HTML
            tree = soup.Page(page, "lxml")
        soup.put_boxes_first(tree)
        soup.open_layout_tables(tree)
        soup.mark_headings(tree)
        laid = Layout(tree.sheets).convert_soup(tree)
    except RecursionError:
        raise SakuinError(
            f"{name} nests its elements too deeply to be read; open it in a browser and save it as text."
        ) from None
    laid, struck = signs.written(boxes(laid.translate(_NOT_SEEN)))
    laid = tree.forms.filled(laid.replace(signs.LINE, " "))
    laid = "\n".join(line.rstrip(" \t") for line in laid.split("\n"))
    words, marks = _take_marks(re.sub(r"\n{3,}", "\n\n", laid).strip())
    lacks = _lacks(tree)
    if not words:
        raise SakuinError(
            f"{name} has no text that can be seen{_and(lacks)}; if scripts write it, open it in a browser "
            "and save what it shows."
        )
    words, marks = _titled(tree.title_words, words, marks)
    if struck:
        notes = (*notes, struck_out(name, struck))
    if lacks:
        notes = (*notes, f"not read of {name}: {lacks}.")
    return Document(name, words, marks, notes)


def _titled(title: str, words: str, marks: tuple[Mark, ...]) -> tuple[str, tuple[Mark, ...]]:
    """The page with its title as the first heading, unless one of its headings says the same."""
    title = " ".join(boxes(title.translate(signs.ALL).translate(_NOT_SEEN)).split())
    if not title or any((mark.heading or "").casefold() == title.casefold() for mark in marks):
        return words, marks
    before = f"# {title}\n\n"
    later = (Mark(mark.start + len(before), mark.page, mark.heading) for mark in marks)
    return before + words, (Mark(0, heading=title), *later)


def _and(lacks: str) -> str:
    return f" (but {lacks})" if lacks else ""


def _decode(data: bytes, name: str, encoding: str | None) -> tuple[str, tuple[str, ...]]:
    if encoding is not None and encoding != "auto":
        return text.decode(data, name, encoding), ()
    if marked := text.by_mark(data):
        return text.repaired(data, name, marked)
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
        return text.repaired(data, name, declared)
    except SakuinError:
        found = encodings.likely(data)
        likely = found[0] if len(found) == 1 else None
        if encoding == "auto" and likely not in (None, declared):
            said = f"{name} declares {declared}, which it is not, and was read as {likely}, which is a guess."
            return text.decode(data, name, str(likely)), (said,)
        remedy = text.remedy(found) if found and likely != declared else "convert it to UTF-8 first"
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


def _lacks(page: soup.Page) -> str:
    """What of the page is not in its text."""
    embedded, left_out = page.embedded, page.forms.left_out
    lacks = [counted(page.pictures, "picture")] if page.pictures else []
    lacks += [counted(embedded, "embedded page or film")] if embedded == 1 else []
    lacks += [f"{embedded:,} embedded pages or films"] if embedded > 1 else []
    lacks += [counted(page.passages_hidden, "hidden passage")] if page.passages_hidden else []
    lacks += [f"{counted(left_out, 'choice')} of long lists"] if left_out else []
    return with_and(lacks) if lacks else ""


def _take_marks(laid: str) -> tuple[str, tuple[Mark, ...]]:
    """The text without the signs around its headings, and where these begin."""
    pieces: list[str] = []
    marks: list[Mark] = []
    length = 0
    for number, piece in enumerate(re.split(f"[{signs.HEADING}{signs.HEADING_END}]", laid)):
        if number % 2 and (heading := " ".join(piece.split())):
            before = pieces[-1].rpartition("\n")[2]
            start = length - len(before) if not before.strip("# ") else length
            marks.append(Mark(start, heading=heading))
        pieces.append(piece)
        length += len(piece)
    return "".join(pieces), tuple(marks)
