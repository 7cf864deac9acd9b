"""What was put on the pages of a PDF is read where it belongs: typed-on text, notes, marks, fields, links."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made
import pytest

from sakuin.documents import Document, read

LINES = (
    (72, 700, b"The rent is 900 euros a month and is due on the first."),
    (72, 680, b"Pets may be kept with consent."),
    (72, 660, b"Name of the tenant:"),
    (72, 640, b"Winter service"),
    (200, 640, b"Garden"),
)


def page(path: Path, *annotations: bytes, content: bytes = b"", extra: bytes = b"") -> Document:
    """The document of a page of five lines in Courier, whose letters are 6 points wide, with these on it.

    extra : goes into the catalog; with "FORM" for the numbers of the annotations.
    """
    drawn = b"".join(b"BT /F1 10 Tf %d %d Td (%s) Tj ET\n" % line for line in LINES) + content
    first = 6
    numbers = b" ".join(b"%d 0 R" % (first + n) for n in range(len(annotations)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R%s>>" % extra.replace(b"FORM", numbers),
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Annots[%s]"
        b"/Resources<</Font<</F1 5 0 R>>>>>>" % numbers,
        b"<</Length %d>>stream\n%s\nendstream" % (len(drawn), drawn),
        b"<</Type/Font/Subtype/Type1/BaseFont/Courier>>",
        *(b"<</Type/Annot/P 3 0 R%s>>" % each for each in annotations),
    ]
    body = b"".join(b"%d 0 obj\n%s\nendobj\n" % (number, each) for number, each in enumerate(objects, 1))
    path.write_bytes(b"%PDF-1.7\n" + body + b"trailer<</Root 1 0 R>>\n%%EOF")
    return read(path)


def quad(left: float, bottom: float, right: float, top: float) -> bytes:
    points = (left, top, right, top, left, bottom, right, bottom)
    box = b"/Rect[%f %f %f %f]" % (left, bottom, right, top)
    return box + b"/QuadPoints[%s]" % b" ".join(b"%f" % each for each in points)


RENT = quad(72 + 12 * 6, 697, 72 + 21 * 6, 709)
"""Over the words "900 euros"."""


def test_the_given_case_keeps_what_was_typed_on_and_the_note(tmp_path: Path) -> None:
    def order(sheet: Any) -> None:
        sheet.setFont("Helvetica", 16)
        sheet.drawString(72, 770, "Repair order")
        sheet.setFont("Helvetica", 11)
        sheet.drawString(72, 732, "Customer name:")
        sheet.drawString(72, 712, "Bicycle frame number:")
        sheet.freeTextAnnotation("Harbour Bakery", "(/Helv 11 Tf)", (220, 728, 420, 744))
        sheet.freeTextAnnotation("KX-20471", "(/Helv 11 Tf)", (220, 708, 420, 724))
        sheet.textAnnotation("Do not start before Friday.", (400, 766, 416, 782))

    got = read(made.pdf(tmp_path / "a.pdf", order))
    assert got.text == (
        "Repair order\n[note: Do not start before Friday.]\nCustomer name: Harbour Bakery\n"
        "Bicycle frame number: KX-20471"
    )
    assert got.marks[-1].heading == "Repair order"
    assert got.notes == ()


@pytest.mark.parametrize(
    ("annotation", "line"),
    [
        (b"/Subtype/FreeText/Rect[220 656 400 672]/Contents(Ada Boe)", "Name of the tenant: Ada Boe"),
        (
            b"/Subtype/FreeText/Rect[220 656 400 672]/RC(<body><p>Ada &amp; Boe</p></body>)",
            "Name of the tenant: Ada & Boe",
        ),
        (b"/Subtype/StrikeOut" + RENT, "The rent is ~~900 euros~~ a month and is due on the first."),
        (
            b"/Subtype/StrikeOut/T(Ann)/Contents(now 950)" + RENT,
            "The rent is ~~900 euros~~ [note by Ann: now 950] a month and is due on the first.",
        ),
        (
            b"/Subtype/Highlight/T(Ann)/Contents(is that right?)" + RENT,
            "The rent is 900 euros [note by Ann: is that right?] a month and is due on the first.",
        ),
        (
            b"/Subtype/Link/A<</S/URI/URI(https://example.org/rents)>>" + RENT,
            "The rent is 900 euros (https://example.org/rents) a month and is due on the first.",
        ),
        (b"/Subtype/Text/Rect[20 676 40 696]/T(B. Ott)/Contents(Not dogs.)", "[note by B. Ott: Not dogs.]"),
        (b"/Subtype/Text/Rect[20 676 40 696]/T(C)/IRT 3 0 R/Contents(Cats?)", "[reply by C: Cats?]"),
        (b"/Subtype/Stamp/Rect[300 670 400 690]/Name/NotApproved", "[stamp: Not Approved]"),
        (b"/Subtype/Square/Rect[60 670 400 690]/Contents(all of it?)", "[note: all of it?]"),
        (b"/Subtype/Caret/Rect[100 676 110 696]/Contents(small)", "[insert: small]"),
    ],
    ids=[
        "typed",
        "rich",
        "struck",
        "struck and said why",
        "highlight",
        "link",
        "note",
        "reply",
        "stamp",
        "square",
        "caret",
    ],
)
def test_what_was_put_on_a_page_stands_where_it_belongs(tmp_path: Path, annotation: bytes, line: str) -> None:
    got = page(tmp_path / "a.pdf", annotation)
    lines = got.text.splitlines()
    assert line in lines
    plain = page(tmp_path / "b.pdf").text.splitlines()
    if line.startswith("["):
        assert lines == [*plain[:2], line, *plain[2:]]
    else:
        assert [each for each in lines if each != line] == [each for each in plain if each[:8] != line[:8]]
    assert got.notes == ()


def test_words_struck_out_over_two_lines_and_within_a_word(tmp_path: Path) -> None:
    two = b"/Subtype/StrikeOut/Rect[72 677 500 709]/QuadPoints[%s]"
    points = (72 + 41 * 6, 709, 500, 709, 72 + 41 * 6, 697, 500, 697, 72, 689, 120, 689, 72, 677, 120, 677)
    text = page(tmp_path / "a.pdf", two % b" ".join(b"%d" % each for each in points)).text
    assert "and is due ~~on the first.~~\n" in text
    assert "~~Pets may~~ be kept" in text
    part = b"/Subtype/StrikeOut" + quad(72 + 12 * 6, 697, 72 + 13 * 6, 709)
    assert "The rent is ~~9~~00 euros" in page(tmp_path / "b.pdf", part).text


def test_words_that_were_struck_out_before_it_became_a_pdf(tmp_path: Path) -> None:
    """A thin rectangle or a line through their middle; an underline and the rule of a table are none."""
    content = b"%d 702.6 %d 0.6 re f\n" % (72 + 12 * 6, 9 * 6) + b"72 682.8 m 96 682.8 l S\n"
    content += b"72 658 m 150 658 l S 60 642.5 m 590 642.5 l S\n"
    text = page(tmp_path / "a.pdf", content=content).text
    assert "The rent is ~~900 euros~~ a month" in text
    assert "~~Pets~~ may be kept" in text
    assert "Name of the tenant:\nWinter service Garden" in text


def test_a_link_that_says_its_target_is_not_said_twice(tmp_path: Path) -> None:
    link = b"/Subtype/Link/Rect[72 676 260 690]/A<</S/URI/URI(http://www.Pets.may/)>>"
    content = b"BT /F1 10 Tf 72 600 Td (see pets.may/ for more) Tj ET"
    here = link.replace(b"676 260 690", b"596 260 610")
    text = page(tmp_path / "a.pdf", here, content=content).text
    assert "see pets.may/ for more" in text
    assert "http" not in text
    lines = [link, link.replace(b"676 260 690", b"656 260 670")]
    assert page(tmp_path / "b.pdf", *lines).text.count("(http://www.Pets.may/)") == 1


def test_fields_of_a_form_stand_beside_their_labels(tmp_path: Path) -> None:
    widget = b"/Subtype/Widget"
    states = b"/AP<</N<</On null/Off null>>>>"
    got = page(
        tmp_path / "a.pdf",
        widget + b"/FT/Tx/T(name)/V(Ada Boe)/Rect[200 656 400 672]",
        widget + b"/FT/Btn/T(winter)/V/On/AS/On/Rect[58 638 68 648]" + states,
        widget + b"/FT/Btn/T(garden)/V/Off/AS/Off/Rect[186 638 196 648]" + states,
        widget + b"/FT/Ch/Ff 131072/T(floor)/Opt[(ground)(first)]/V(first)/Rect[200 596 300 610]",
        widget + b"/FT/Tx/T(rent)/Rect[200 576 300 590]",
        widget + b"/FT/Ch/Ff 131072/T(city)/Opt[(Norby)(Halden)]/Rect[200 556 300 570]",
        widget + b"/FT/Tx/Ff 8192/T(pin)/V(1234)/Rect[400 656 500 672]",
        widget + b"/F 2/FT/Tx/T(secret)/V(hidden words)/Rect[400 596 500 610]",
        widget + b"/FT/Sig/T(sign)/Rect[72 500 200 520]",
        widget + b"/FT/Sig/T(seal)/V<</Type/Sig/Contents<00>>>/Rect[72 460 200 480]",
        content=b"BT /F1 10 Tf 72 600 Td (Floor:) Tj ET BT /F1 10 Tf 72 580 Td (Rent:) Tj ET "
        b"BT /F1 10 Tf 72 560 Td (City:) Tj ET BT /F1 10 Tf 72 540 Td (Signature:) Tj ET",
        extra=b"/AcroForm<</Fields[FORM]>>",
    )
    lines = got.text.splitlines()
    for line in (
        "Name of the tenant: Ada Boe",
        "[x] Winter service [ ] Garden",
        "Floor: first",
        "Rent: ____",  # nothing is filled in
        "City: ____",
    ):
        assert line in lines
    assert lines[-3:] == ["Signature:", "[not signed]", "[signed]"]
    assert "1234" not in got.text
    assert got.notes == (
        f"not read of {tmp_path / 'a.pdf'}: 1 field for a password and 1 hidden annotation.",
    )


def test_forms_of_another_library_are_read_too(tmp_path: Path) -> None:
    def form(sheet: Any) -> None:
        sheet.drawString(72, 700, "Name:")
        sheet.drawString(300, 700, "Date:")
        sheet.drawString(90, 660, "by post")
        sheet.drawString(190, 660, "by mail")
        sheet.drawString(72, 620, "Remarks")
        field = {"width": 150, "height": 20, "borderWidth": 0}
        sheet.acroForm.textfield(name="name", value="Halden Ltd", x=120, y=694, **field)
        sheet.acroForm.textfield(name="date", value="14 March", x=350, y=694, **field)
        sheet.acroForm.radio(name="way", value="post", selected=True, x=72, y=656, size=14)
        sheet.acroForm.radio(name="way", value="mail", selected=False, x=172, y=656, size=14)
        sheet.acroForm.textfield(
            name="more", value="Ring twice.", x=72, y=540, width=300, height=70, fieldFlags="multiline"
        )

    lines = read(made.pdf(tmp_path / "a.pdf", form)).text.splitlines()
    assert lines == ["Name: Halden Ltd Date: 14 March", "[x] by post [ ] by mail", "Remarks", "Ring twice."]


def test_what_has_no_words_is_counted(tmp_path: Path) -> None:
    ink = b"/Subtype/Ink/Rect[10 10 50 50]/InkList[[10 10 50 50]]"
    drawn = page(tmp_path / "a.pdf", ink, ink, b"/F 2/Subtype/FreeText/Rect[9 9 99 99]/Contents(x)")
    assert drawn.notes == (f"not read of {tmp_path / 'a.pdf'}: 2 drawings and 1 hidden annotation.",)
    attached = b"/Subtype/FileAttachment/Rect[9 9 20 20]/FS<</Type/Filespec/F(plan.xls)/UF(plan.xls)>>"
    noted = page(tmp_path / "b.pdf", attached + b"/Contents(the plan)")
    assert noted.notes == (f"not read of {tmp_path / 'b.pdf'}: 1 attached file ('plan.xls').",)
    assert "[note: the plan]" in noted.text


@pytest.mark.parametrize(
    ("pieces", "line"),
    [
        ([("10", 11, 0), ("6", 7, 5), (" cells", 11, 0)], "10^6 cells"),
        ([("10", 11, 0), ("-6", 7, 4), (" of 5 m", 11, 0), ("2", 7, 4)], "10^-6 of 5 m^2"),
        ([("log 10", 11, 0), ("2", 7, -3), (" H", 11, 0), ("2", 7, -3), ("O", 11, 0)], "log 10_2 H2O"),
        ([("the 1", 11, 0), ("st", 7, 4), (" of x", 11, 0), ("n", 7, 4)], "the 1st of x^n"),
        ([("in 2019", 11, 0), ("3", 7, 4), (" it rose", 11, 0)], "in 2019^3 it rose"),
    ],
)
def test_a_raised_figure_does_not_join_its_number(
    tmp_path: Path, pieces: list[tuple[str, int, int]], line: str
) -> None:
    def one(sheet: Any) -> None:
        text = sheet.beginText(72, 700)
        for words, size, rise in pieces:
            text.setFont("Helvetica", size)
            text.setRise(rise)
            text.textOut(words)
        sheet.drawText(text)
        made.lines(["The next line."])(sheet)

    assert line in read(made.pdf(tmp_path / "a.pdf", one)).text.splitlines()

    def apart(sheet: Any) -> None:  # each drawn for itself
        x = 72.0
        for words, size, rise in pieces:
            sheet.setFont("Helvetica", size)
            sheet.drawString(x, 700 + rise, words)
            x += sheet.stringWidth(words, "Helvetica", size)

    assert read(made.pdf(tmp_path / "b.pdf", apart)).text == line


def test_text_that_is_not_seen_and_text_that_is_turned_are_read(tmp_path: Path) -> None:
    def scan(sheet: Any) -> None:
        made.picture(sheet)
        text = sheet.beginText(72, 700)
        text.setTextRenderMode(3)
        text.textOut("Words that OCR has found.")
        sheet.drawText(text)

    def turned(sheet: Any) -> None:
        sheet.translate(300, 300)
        sheet.rotate(90)
        sheet.setFont("Helvetica", 11)
        sheet.drawString(0, 20, "Mass: 10")
        sheet.drawString(0, 0, "A line that runs up.")
        sheet.freeTextAnnotation("40 kg", "(/Helv 11 Tf)", (270, 355, 285, 400))

    got = read(made.pdf(tmp_path / "a.pdf", scan, turned))
    assert "Words that OCR has found." in got.text
    assert "A line that runs up." in got.text
    assert "40 kg" in got.text


def test_pages_that_are_numbered_otherwise_are_said(tmp_path: Path) -> None:
    def first(sheet: Any) -> None:
        sheet.addPageLabel(0, style="ROMAN_LOWER")
        sheet.addPageLabel(2, style="ARABIC")
        sheet.drawString(72, 700, "Preface")

    words = made.lines(["Words."])
    path = made.pdf(tmp_path / "a.pdf", first, words, words)
    assert (
        f"pages of {path} are counted from its first one; what it prints as page 1 is page 3."
        in read(path).notes
    )
