"""Each row of the table of Word documents in docs/documents.md: what stands there, and how it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made
import pytest
from wordml import ABOVE, BELOW, box, cell, equation, field, m, paragraph, table, text

from sakuin.documents.word import file as word

DOWN, UP = "<w:vMerge/>", "<w:vMerge w:val='restart'/>"
WIDE = "<w:gridSpan w:val='2'/>"

INLINE = {
    "struck out": (
        text("The rent is ") + text("900 ", "<w:strike/>") + text("1100."),
        "The rent is ~~900~~ 1100.",
    ),
    "struck out twice": (text("no dogs", "<w:dstrike/>"), "~~no dogs~~"),
    "struck out over runs": (text("no ", "<w:strike/>") + text("dogs", "<w:strike/><w:b/>"), "~~no dogs~~"),
    "not struck out": (text("dogs", "<w:strike w:val='0'/>"), "dogs"),
    "an insertion": (text("a") + f"<w:ins w:id='1'>{text(' b')}</w:ins>", "a b"),
    "a move": (
        f"<w:moveFrom w:id='1'>{text('x')}</w:moveFrom>a<w:moveTo w:id='2'>{text('b')}</w:moveTo>",
        "b",
    ),
    "hidden text": (text("seen") + text(" secret", "<w:vanish/>"), "seen"),
    "capitals": (text("Seller", "<w:caps/>") + text(" Buyer", "<w:smallCaps/>"), "SELLER Buyer"),
    "a power": (text("10") + text("6", ABOVE) + text(" cells"), "10^6 cells"),
    "a power of some signs": (text("x") + text("n+1", ABOVE), "x^(n+1)"),
    "a negative power": (text("10") + text("-3", ABOVE), "10^-3"),
    "an ordinal": (text("the 2") + text("nd", ABOVE) + text(" day"), "the 2nd day"),
    "an index": (text("v") + text("max", BELOW) + text(", H") + text("2", BELOW) + text("O"), "v_max, H2O"),
    "an empty box": (box("<w14:checked w14:val='0'/>") + text(" nuts"), "[ ] nuts"),
    "a ticked box": (box("<w14:checked w14:val='1'/>") + text(" milk"), "[x] milk"),
    "a box never ticked": (box("") + text(" fish"), "[ ] fish"),
    "an old box": (
        field(
            "FORMCHECKBOX",
            data="<w:ffData><w:checkBox><w:default w:val='0'/><w:checked/></w:checkBox></w:ffData>",
        )
        + field("FORMCHECKBOX", data="<w:ffData><w:checkBox><w:default w:val='1'/></w:checkBox></w:ffData>")
        + field("FORMCHECKBOX", data="<w:ffData><w:checkBox/></w:ffData>"),
        "[x][x][ ]",
    ),
    "boxes as letters": (text("☐ yes ☒ no ☑ perhaps"), "[ ] yes [x] no [x] perhaps"),
    "boxes of a font": (
        "<w:r><w:sym w:font='Wingdings' w:char='F0FE'/><w:sym w:font='Wingdings' w:char='F0A8'/>"
        "<w:sym w:font='Wingdings 2' w:char='F052'/></w:r>"
        + text("\uf0fe", "<w:rFonts w:ascii='Wingdings' w:hAnsi='Wingdings'/>"),
        "[x][ ][x][x]",
    ),
    "a choice of an old form": (
        field(
            "FORMDROPDOWN",
            data="<w:ffData><w:ddList><w:result w:val='1'/><w:listEntry w:val='red'/>"
            "<w:listEntry w:val='blue'/>"
            "</w:ddList></w:ffData>",
        ),
        "blue",
    ),
    "a text of an old form": (
        field("FORMTEXT", "Anna") + text(", ") + field("FORMTEXT", "\u2002"),
        "Anna, ____",
    ),
    "a choice": (
        "<w:sdt><w:sdtPr><w:dropDownList><w:listItem w:value='1' w:displayText='red'/>"
        "</w:dropDownList></w:sdtPr>"
        f"<w:sdtContent>{text('red')}</w:sdtContent></w:sdt>",
        "red",
    ),
    "a control not filled in": (
        "<w:sdt><w:sdtPr><w:showingPlcHdr/></w:sdtPr><w:sdtContent>"
        + text("Enter a date.")
        + "</w:sdtContent></w:sdt>",
        "[Enter a date.]",
    ),
    "a field": (text("page ") + field("PAGEREF x", "7"), "page 7"),
    "a simple field": (f"<w:fldSimple w:instr='SEQ Table'>{text('3')}</w:fldSimple>", "3"),
    "a field in a field": (field('IF "' + "x" + '" = "" ', "shown"), "shown"),
    "a field that a deletion ends": (
        "<w:r><w:fldChar w:fldCharType='begin'/></w:r><w:del w:id='1'>"
        "<w:r><w:fldChar w:fldCharType='end'/></w:r>"
        f"</w:del>{text('more')}",
        "more",
    ),
    "a link of a field": (
        field('HYPERLINK "https://halden.no/x"', "the terms"),
        "the terms (https://halden.no/x)",
    ),
    "signs": (
        "<w:r><w:sym w:font='Symbol' w:char='F0B3'/></w:r>"
        + text("3 and ")
        + text("m", "<w:rFonts w:ascii='Symbol'/>"),
        "≥3 and μ",
    ),
    "tabs and lines": ("<w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t></w:r>", "a\tb\nc"),
    "hyphens": (
        "<w:r><w:t>re</w:t><w:softHyphen/><w:t>read co</w:t><w:noBreakHyphen/><w:t>op</w:t></w:r>",
        "reread co-op",
    ),
    "hyphens as letters": (text("re\u00adread co\u2011op 3\u00a0%"), "reread co-op 3 %"),
    "quotes": (text("“Fee” means the tenant’s…"), "“Fee” means the tenant’s…"),
    "right to left": (f"<w:bdo w:val='rtl'>{text('שלום', '<w:rtl/>')}</w:bdo>", "שלום"),
    "how signs are spoken": (
        f"<w:r><w:ruby><w:rt>{text('けいやく')}</w:rt><w:rubyBase>{text('契約')}</w:rubyBase></w:ruby></w:r>",
        "契約(けいやく)",
    ),
    "a fraction": (
        equation(
            f"<m:f><m:num>{m('a+b')}</m:num><m:den><m:sSup><m:e>{m('c')}</m:e><m:sup>{m('2')}</m:sup></m:sSup></m:den></m:f>"
        ),
        "(a+b)/(c^2)",
    ),
    "a root": (equation(f"{m('v=')}<m:rad><m:deg/><m:e>{m('2gh')}</m:e></m:rad>"), "v=sqrt(2gh)"),
    "a sum": (
        equation(
            f"<m:nary><m:naryPr><m:chr m:val='∑'/></m:naryPr><m:sub>{m('i=1')}</m:sub><m:sup>{m('n')}</m:sup>"
            f"<m:e><m:sSub><m:e>{m('x')}</m:e><m:sub>{m('i')}</m:sub></m:sSub></m:e></m:nary>"
        ),
        "sum_(i=1)^n x_i",
    ),
    "a matrix in brackets": (
        equation(
            "<m:d><m:dPr><m:begChr m:val='['/><m:endChr m:val=']'/></m:dPr><m:e>"
            f"<m:m><m:mr><m:e>{m('1')}</m:e><m:e>{m('0')}</m:e></m:mr><m:mr><m:e>{m('0')}</m:e><m:e>{m('1')}</m:e>"
            "</m:mr></m:m></m:e></m:d>"
        ),
        "[[1, 0; 0, 1]]",
    ),
    "a picture with words": (
        "<w:r><w:drawing><wp:inline><wp:docPr id='1' name='p' descr='a map of the site'/>"
        "<a:blip/></wp:inline></w:drawing></w:r>",
        "[a map of the site]",
    ),
    "a box with text": (
        text("before")
        + "<w:r><w:pict><v:textbox><w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent>"
        "</v:textbox></w:pict></w:r>",
        "before\n\nboxed",
    ),
}

BLOCKS = {
    "cells merged downwards": (
        table(cell("North", UP) + cell("Pine") + cell("2"), cell("", DOWN) + cell("Oak") + cell("5")),
        "| North | Pine | 2 |\n| --- | --- | --- |\n| North | Oak | 5 |",
    ),
    "cells merged sideways": (
        table(cell("Rent", WIDE) + cell("Sum"), cell("May") + cell("June") + cell("1800")),
        "| Rent | Rent | Sum |\n| --- | --- | --- |\n| May | June | 1800 |",
    ),
    "a title over a whole row": (
        table(cell("a") + cell("b"), cell("Part 2", WIDE), cell("c") + cell("d")),
        "| a | b |\n| --- | --- |\n| Part 2 |  |\n| c | d |",
    ),
    "cells left out": (
        table(cell("a") + cell("b"), "<w:trPr><w:gridBefore w:val='1'/></w:trPr>" + cell("only b")),
        "| a | b |\n| --- | --- |\n|  | only b |",
    ),
    "paragraphs and bars in a cell": (
        table(cell(paragraph(text("Main St 5")) + paragraph(text("Oslo"))) + cell("a|b")),
        "| Main St 5<br>Oslo | a\\|b |\n| --- | --- |",
    ),
    "a table in a table": (
        table(cell("a") + cell(table(cell("1") + cell("2"), cell("3") + cell("4"))), cell("b") + cell("5")),
        "| a | 1, 2; 3, 4 |\n| --- | --- |\n| b | 5 |",
    ),
    "a table that lays out": (
        table(cell(paragraph(text("News"), "<w:pStyle w:val='Heading1'/>")) + cell("Menu")),
        "# News\n\nMenu",
    ),
    "a frame": (table(cell(paragraph(text("Take care.")))), "Take care."),
    "a deleted row": (
        table(cell("a") + cell("b"), "<w:trPr><w:del w:id='1'/></w:trPr>" + cell("c") + cell("d")),
        "| a | b |\n| --- | --- |",
    ),
    "a deleted end of a paragraph": (
        paragraph(text("The lease "), "<w:rPr><w:del w:id='1'/></w:rPr>") + paragraph(text("ends.")),
        "The lease ends.",
    ),
    "a large first letter": (
        paragraph(text("T"), "<w:framePr w:dropCap='drop'/>") + paragraph(text("he lease.")),
        "The lease.",
    ),
    "a control around paragraphs": (
        f"<w:sdt><w:sdtPr/><w:sdtContent>{paragraph(text('inside'))}</w:sdtContent></w:sdt>",
        "inside",
    ),
    "a heading by its rank": (paragraph(text("Term"), "<w:outlineLvl w:val='2'/>"), "### Term"),
    "a caption": (
        paragraph(text("Table ") + field("SEQ Table", "1") + text(": Fees"), "<w:pStyle w:val='Caption'/>"),
        "Table 1: Fees",
    ),
    "contents": (
        paragraph(text("Contents"))
        + "".join(paragraph(text(f"{n}. Term\t{n}"), "<w:pStyle w:val='TOC1'/>") for n in (1, 2)),
        "Contents\n\n1. Term\t1\n\n2. Term\t2",
    ),
}


def read(tmp_path: Path, fill: Any) -> Any:
    path = made.word(tmp_path / "a.docx", fill)
    return word.read(path.read_bytes(), "a.docx")


@pytest.mark.parametrize(("inner", "expected"), INLINE.values(), ids=INLINE.keys())
def test_what_stands_in_a_paragraph(tmp_path: Path, inner: str, expected: str) -> None:
    def fill(document: Any) -> None:
        document.add_paragraph("First.")
        made.word_xml(document, inner)

    assert read(tmp_path, fill).text == f"First.\n\n{expected}"


@pytest.mark.parametrize(("xml", "expected"), BLOCKS.values(), ids=BLOCKS.keys())
def test_what_stands_between_paragraphs(tmp_path: Path, xml: str, expected: str) -> None:
    assert read(tmp_path, lambda document: made.word_blocks(document, xml)).text == expected


NOTES = {
    "struck out": (
        text("a ") + text("b", "<w:strike/>"),
        "a.docx has 1 passage struck out, which stands between ~~ and ~~.",
    ),
    "changes": (
        text("a")
        + f"<w:ins w:id='1'>{text('b')}</w:ins><w:del w:id='2'><w:r><w:delText>c</w:delText></w:r></w:del>",
        "a.docx has tracked changes, which were read as accepted: 1 insertion kept and 1 deletion left out.",
    ),
    "an insertion that was deleted": (
        text("a") + f"<w:ins w:id='1'><w:del w:id='2'>{text('b')}</w:del></w:ins>",
        "a.docx has tracked changes, which were read as accepted: 1 deletion left out.",
    ),
    "hidden": (text("a") + text("b", "<w:vanish/>"), "not read of a.docx: 1 hidden passage."),
    "a prompt": (
        "<w:sdt><w:sdtPr><w:showingPlcHdr/></w:sdtPr><w:sdtContent>" + text("a") + "</w:sdtContent></w:sdt>",
        "a.docx has 1 field that is not filled in; its prompt stands in [ ].",
    ),
    "a chart": (text("a") + "<w:r><w:drawing><c:chart/></w:drawing></w:r>", "not read of a.docx: 1 chart."),
    "a diagram": (
        text("a") + "<w:r><w:drawing><dgm:relIds/></w:drawing></w:r>",
        "not read of a.docx: 1 diagram.",
    ),
    "an object": (
        text("a") + "<w:r><w:object><v:imagedata/><o:OLEObject ProgID='Excel.Sheet.12'/></w:object></w:r>",
        "not read of a.docx: 1 embedded object.",
    ),
    "an old equation": (
        text("a") + "<w:r><w:object><v:imagedata/><o:OLEObject ProgID='Equation.3'/></w:object></w:r>",
        "not read of a.docx: 1 equation of an old format.",
    ),
    "a sign": (
        text("a") + "<w:r><w:sym w:font='Wingdings 3' w:char='F021'/></w:r>",
        "not read of a.docx: 1 sign of a font that is not known.",
    ),
    "a field": (text("a") + field("EQ \\f(1,2)"), "not read of a.docx: 1 field that only Word works out."),
}


@pytest.mark.parametrize(("inner", "note"), NOTES.values(), ids=NOTES.keys())
def test_what_is_noted(tmp_path: Path, inner: str, note: str) -> None:
    assert read(tmp_path, lambda document: made.word_xml(document, inner)).notes == (note,)
