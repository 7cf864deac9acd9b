"""HTML: decoded as the page says, hidden parts taken out, laid out as Markdown by markdownify.

Headings, lists and tables keep their form as Markdown, which models read well; emphasis and links leave only
their words. What a style sheet hides is not known here; what the page's own tags and `style` attributes hide
is. Word documents come through here too, after mammoth has made HTML of them.
"""

from __future__ import annotations

import codecs
import re
import warnings
from typing import TYPE_CHECKING, Any

from sakuin.documents import extra, text
from sakuin.documents.document import Document, Mark
from sakuin.errors import SakuinError

if TYPE_CHECKING:
    from bs4 import BeautifulSoup

_DECLARED = re.compile(
    rb"""<meta\b[^>]*?charset\s*=\s*["']?\s*([-\w.:]+)|\A\s*<\?xml[^>]*?encoding\s*=\s*["']([-\w.:]+)""", re.I
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

_UNSEEN = ("script", "style", "template", "head", "svg", "object", "datalist")
_HIDING = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
_ELSEWHERE = ("iframe", "frame", "video", "audio", "embed", "canvas")
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_OPEN, _CLOSE = "\ue000", "\ue001"
"""Signs of the private use area that travel through the layout around each heading."""


def read(data: bytes, name: str, encoding: str | None) -> Document:
    """The document in the HTML page `data`."""
    extra.need(name, "HTML", "bs4", "markdownify", "lxml")
    page, notes = _decode(data, name, encoding)
    return lay_out(page, name, notes)


def lay_out(page: str, name: str, notes: tuple[str, ...] = ()) -> Document:
    """The text of a page, with its headings marked. Raises `SakuinError` where nothing of it can be seen."""
    from bs4 import BeautifulSoup

    page = page.replace(_OPEN, "").replace(_CLOSE, "")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on XML that is read as HTML
            soup = BeautifulSoup(page, "lxml")
        lacks = _prepare(soup)
        laid = _converter().convert_soup(soup)
    except RecursionError:
        raise SakuinError(
            f"{name} nests its elements too deeply to be read; open it in a browser and save it as text."
        ) from None
    laid = re.sub(r"[ \t]+$", "", laid.replace("\xa0", " "), flags=re.MULTILINE)
    words, marks = _take_marks(re.sub(r"\n{3,}", "\n\n", laid).strip())
    if not words:
        raise SakuinError(
            f"{name} has no text that can be seen{_and(lacks)}; if scripts write it, open it in a browser "
            "and save what it shows."
        )
    if lacks:
        notes = (*notes, f"not read of {name}: {lacks}.")
    return Document(name, words, marks, notes)


def listed(things: list[str]) -> str:
    """Things in a row, the last two joined by "and"."""
    return " and ".join([", ".join(things[:-1]), things[-1]] if len(things) > 1 else things)


def counted(number: int, thing: str) -> str:
    """So many things: "1 picture", "2 pictures"."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


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


def _prepare(soup: BeautifulSoup) -> str:
    """Take out what is not seen, and mark the headings; says what of the page has no text."""
    from bs4 import Comment

    for comment in soup.find_all(string=lambda string: isinstance(string, Comment)):
        comment.extract()
    for element in soup.find_all(_UNSEEN):
        element.decompose()
    hidden = soup.find_all(lambda tag: tag.has_attr("hidden") or _HIDING.search(_style(tag)) is not None)
    for element in hidden:
        if not element.decomposed:
            element.decompose()
    # A table that holds headings or tables lays a page out; as a table it would become one line.
    for table in soup.find_all("table"):
        if table.find(["table", *_HEADINGS]):
            parts = table.find_all(["tbody", "thead", "tfoot", "tr", "td", "th"])
            for part in [*(part for part in parts if part.find_parent("table") is table), table]:
                part.name = "div"
    pictures = soup.find_all("img", alt=lambda alt: alt != "")
    for picture in soup.find_all("img"):
        alt = " ".join(str(picture.get("alt") or "").split())
        picture.replace_with(f"[{alt}]" if alt else "")
    for heading in soup.find_all(_HEADINGS):
        if heading.get_text(strip=True):
            heading.insert(0, _OPEN)
            heading.append(_CLOSE)
    embedded = soup.find_all(_ELSEWHERE)
    lacks = [counted(len(pictures), "picture")] if pictures else []
    lacks += [counted(len(embedded), "embedded page or film")] if len(embedded) == 1 else []
    lacks += [f"{len(embedded):,} embedded pages or films"] if len(embedded) > 1 else []
    return listed(lacks) if lacks else ""


def _style(tag: Any) -> str:
    return str(tag.get("style") or "")


def _converter() -> Any:
    from markdownify import MarkdownConverter

    return MarkdownConverter(
        heading_style="ATX",
        bullets="-",
        escape_asterisks=False,
        escape_underscores=False,
        escape_misc=False,
        table_infer_header=True,
        strip=["a", "b", "strong", "i", "em", "del", "s", "img"],
    )


def _take_marks(laid: str) -> tuple[str, tuple[Mark, ...]]:
    """The text without the signs around its headings, and where these begin."""
    pieces: list[str] = []
    marks: list[Mark] = []
    length = 0
    for number, piece in enumerate(re.split(f"[{_OPEN}{_CLOSE}]", laid)):
        if number % 2 and (heading := " ".join(piece.split())):
            before = pieces[-1].rpartition("\n")[2]
            start = length - len(before) if not before.strip("# ") else length
            marks.append(Mark(start, heading=heading))
        pieces.append(piece)
        length += len(piece)
    return "".join(pieces), tuple(marks)
