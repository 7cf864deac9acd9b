"""Documents that the tests read, made on the spot by other libraries than those that read them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from docx import Document as new_word
from docx.opc.packuri import PackURI
from docx.opc.part import Part
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls, nsmap, qn
from reportlab.pdfgen import canvas

FACT = "The support contract with Halden ends on: 14 March 2031."

_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
nsmap |= {
    "w14": "http://schemas.microsoft.com/office/word/2010/wordml",
    "dgm": "http://schemas.openxmlformats.org/drawingml/2006/diagram",
}

Draw = Callable[[canvas.Canvas], None]


def pdf(path: Path, *pages: Draw, **options: Any) -> Path:
    """A PDF of one page for each function that draws one."""
    sheet = canvas.Canvas(str(path), **options)
    for draw in pages:
        draw(sheet)
        sheet.showPage()
    sheet.save()
    return path


def lines(
    texts: Sequence[str],
    head: str = "",
    foot: str = "",
    heading: str = "",
    font: str = "Helvetica",
    bookmark: bool = False,
) -> Draw:
    """A page with these lines, and a running head, a running foot and a heading in a larger font."""

    def draw(sheet: canvas.Canvas) -> None:
        sheet.setFont("Helvetica", 8)
        if head:
            sheet.drawString(72, 800, head)
        if foot:
            sheet.drawString(290, 40, foot)
        y = 740
        if heading:
            sheet.setFont("Helvetica-Bold", 15)
            sheet.drawString(72, y, heading)
            if bookmark:
                sheet.bookmarkPage(heading)
                sheet.addOutlineEntry(heading.lstrip("0123456789. "), heading, 0)
            y -= 30
        sheet.setFont(font, 11)
        for text in texts:
            sheet.drawString(72, y, text)
            y -= 14

    return draw


def picture(sheet: canvas.Canvas) -> None:
    """A page that is one picture, as a scanner makes it."""
    from PIL import Image
    from reportlab.lib.utils import ImageReader

    sheet.drawImage(ImageReader(Image.new("RGB", (60, 80), (200, 190, 180))), 50, 50, 400, 600)


def contract(path: Path, bookmark: bool = False) -> Path:
    """A contract of five pages, with the fact on its third, under the heading "3. Term"."""
    titles = ("1. Parties", "2. Services", "3. Term", "4. Fees", "5. Notices")
    said = {
        "1. Parties": "The parties are Aldous Ltd of Ghent and the Halden company of Oslo.",
        "2. Services": "Aldous keeps the pumps of the works in order and answers calls within a day.",
        "3. Term": FACT,
        "4. Fees": "The fee is paid every quarter, within thirty days of the bill.",
        "5. Notices": "Notices are sent by letter to the seat of the other party.",
    }
    filler = (
        "Both parties keep the papers of the other to themselves and hand them back",
        "when they are no longer needed. Each party bears the costs of its own staff,",
        "and neither may pass on what follows from this agreement without consent.",
    )
    pages = [
        lines(
            [*filler, said[title], *filler],
            head="Support Agreement",
            foot=f"Page {number} of {len(titles)}",
            heading=title,
            bookmark=bookmark,
        )
        for number, title in enumerate(titles, 1)
    ]
    return pdf(path, *pages)


def font_of_many_scripts() -> str:
    """The name of a font with Hebrew and Arabic letters, which matplotlib brings."""
    import matplotlib
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    pdfmetrics.registerFont(TTFont("Many", str(path)))
    return "Many"


def bare_pdf(content: bytes, stream: bytes = b"") -> bytes:
    """A PDF of one page with this content stream, put together by hand; `stream` says how it is packed."""
    objects = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R"
        b"/Resources<</Font<</F1<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>",
        b"<</Length %d%s>>stream\n" % (len(content), stream) + content + b"\nendstream",
    )
    body = b"".join(b"%d 0 obj\n%s\nendobj\n" % (number, each) for number, each in enumerate(objects, 1))
    return b"%PDF-1.4\n" + body + b"trailer<</Root 1 0 R>>\n%%EOF"


def word(path: Path, fill: Callable[[Any], None]) -> Path:
    """A Word document that `fill` writes into."""
    document = new_word()
    fill(document)
    document.save(str(path))
    return path


def _spaces() -> str:
    return (
        nsdecls("w", "wp", "a", "m", "r", "c", "w14", "dgm", "pic")
        + ' xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
        + ' xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape"'
        + ' xmlns:v="urn:schemas-microsoft-com:vml" xmlns:o="urn:schemas-microsoft-com:office:office"'
    )


def word_xml(document: Any, inner: str) -> None:
    """A paragraph of raw WordprocessingML at the end of a document."""
    word_blocks(document, f"<w:p>{inner}</w:p>")


def word_blocks(document: Any, xml: str) -> None:
    """Paragraphs and tables of raw WordprocessingML at the end of a document."""
    body = document.element.body
    for each in list(parse_xml(f"<w:body {_spaces()}>{xml}</w:body>")):
        body.insert(len(body) - 1, each)


def word_part(document: Any, kind: str, xml: str) -> None:
    """A part of raw WordprocessingML that the text of a document refers to: "footnotes", "endnotes"."""
    blob = f"<w:{kind} {_spaces()}>{xml}</w:{kind}>".encode()
    media = f"application/vnd.openxmlformats-officedocument.wordprocessingml.{kind}+xml"
    part = Part(PackURI(f"/word/{kind}.xml"), media, blob, document.part.package)
    document.part.relate_to(part, f"{_RELATIONS}/{kind}")


def word_list(document: Any, which: int, levels: str, overrides: str = "") -> None:
    """A numbered list `which`, with the pattern of these levels (`w:lvl`)."""
    numbering = document.part.numbering_part.element
    first = numbering.find(qn("w:num"))
    pattern = f"<w:abstractNum {_spaces()} w:abstractNumId='{which}'>{levels}</w:abstractNum>"
    first.addprevious(parse_xml(pattern))
    word_num(document, which, which, overrides)


def word_num(document: Any, which: int, pattern: int, overrides: str = "") -> None:
    """One more list of a pattern."""
    xml = f"<w:num {_spaces()} w:numId='{which}'><w:abstractNumId w:val='{pattern}'/>{overrides}</w:num>"
    document.part.numbering_part.element.append(parse_xml(xml))


def repacked(path: Path, change: Callable[[str, bytes], bytes]) -> bytes:
    """The zip archive at `path` with each entry changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out.getvalue()
