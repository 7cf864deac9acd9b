"""Word documents: numbers of lists and headings as Word shows them, looks of styles, notes, links."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made
from wordml import ABOVE, item, level, text

from sakuin.documents.word import file as word

LEGAL = (
    level(0, "upperRoman", "%1.")
    + level(1, "decimal", "%1.%2", "<w:isLgl/>")
    + level(2, "lowerLetter", "(%3)")
)


def read(tmp_path: Path, fill: Any) -> Any:
    path = made.word(tmp_path / "a.docx", fill)
    return word.read(path.read_bytes(), "a.docx")


def test_numbers_of_many_levels_go_on_and_begin_anew(tmp_path: Path) -> None:
    def fill(document: Any) -> None:
        made.word_list(document, 70, LEGAL)
        made.word_num(
            document, 71, 70, "<w:lvlOverride w:ilvl='0'><w:startOverride w:val='9'/></w:lvlOverride>"
        )
        levels = (0, 1, 2, 2, 1, 2)
        made.word_blocks(document, "".join(item(70, at, f"w{n}") for n, at in enumerate(levels)))
        document.add_paragraph("Between.")
        made.word_blocks(document, item(70, 2, "on") + item(70, 0, "next") + item(70, 1, "below"))
        made.word_blocks(document, item(71, 0, "other") + item(71, 0, "more"))

    assert read(tmp_path, fill).text == (
        "I. w0\n  1.1 w1\n    (a) w2\n    (b) w3\n  1.2 w4\n    (a) w5\n\nBetween.\n\n    (b) on\nII. next\n"
        "  2.1 below\nIX. other\nX. more"
    )


def test_lists_that_come_with_word_are_as_far_in_as_their_names_say(tmp_path: Path) -> None:
    def fill(document: Any) -> None:
        own = document.styles.add_style("Mine", 1)
        own.base_style = document.styles["List Bullet 3"]
        for n in ("Bullet", "Bullet 2", "Bullet 3", "Number", "Number 2", "Number 2", "Number 3", "Number"):
            document.add_paragraph(n, style=f"List {n}")
        document.add_paragraph("own", style=own)

    assert read(tmp_path, fill).text == (
        "- Bullet\n  - Bullet 2\n    - Bullet 3\n1. Number\n  1. Number 2\n  2. Number 2\n    1. Number 3\n"
        "2. Number\n    - own"
    )


def test_forms_that_word_has_no_name_for_go_on_as_they_begin(tmp_path: Path) -> None:
    def custom(shown: str) -> str:
        choice = f"<mc:Choice Requires='w14'><w:numFmt w:val='custom' w:format='{shown}'/></mc:Choice>"
        fallback = "<mc:Fallback><w:numFmt w:val='decimal'/></mc:Fallback>"
        form = f"<w:start w:val='9'/><mc:AlternateContent>{choice}{fallback}</mc:AlternateContent>"
        return f"<w:lvl w:ilvl='0'>{form}<w:lvlText w:val='R%1.'/></w:lvl>"

    def fill(document: Any) -> None:
        made.word_list(document, 70, custom("001, 002, 003, ..."))
        made.word_list(document, 71, custom("0001, 0002, 0003, ..."))
        made.word_list(document, 72, level(0, "decimalZero", "%1)"))
        made.word_list(document, 73, level(0, "custom' w:format='A1, A2, ...", "%1)"))
        for which in (70, 71, 72, 73):
            made.word_blocks(document, item(which, 0, "a") + item(which, 0, "b"))
        made.word_blocks(document, item(73, 0, "c"))

    assert read(tmp_path, fill).text.split("\n") == [
        "R009. a", "R010. b", "R0009. a", "R0010. b", "01) a", "02) b", "A1) a", "A2) b", "3) c",
    ]  # fmt: skip


def test_headings_have_the_numbers_of_their_style(tmp_path: Path) -> None:
    def fill(document: Any) -> None:
        levels = level(0, "decimal", "§ %1", "<w:pStyle w:val='Heading1'/>")
        levels += level(1, "decimal", "%1.%2", "<w:pStyle w:val='Heading2'/>")
        made.word_list(document, 70, levels)
        for style, at in (("Heading 1", 0), ("Heading 2", 1)):
            properties = document.styles[style].element.get_or_add_pPr()
            properties.get_or_add_numPr().get_or_add_numId().val = 70
            if at:
                properties.numPr.get_or_add_ilvl().val = at
        for words, rank in (("Term", 1), ("Start", 2), ("End", 2), ("Fees", 1)):
            document.add_heading(words, rank)

    got = read(tmp_path, fill)
    assert got.text == "# § 1 Term\n\n## 1.1 Start\n\n## 1.2 End\n\n# § 2 Fees"
    assert [mark.heading for mark in got.marks] == ["§ 1 Term", "1.1 Start", "1.2 End", "§ 2 Fees"]


def test_a_paragraph_can_leave_its_list(tmp_path: Path) -> None:
    def fill(document: Any) -> None:
        document.add_paragraph("one", style="List Number")
        document.add_paragraph(
            "none", style="List Number"
        )._p.get_or_add_pPr().get_or_add_numPr().get_or_add_numId().val = 0
        document.add_paragraph("two", style="List Number")
        document.add_paragraph("point", style="List Bullet")

    assert read(tmp_path, fill).text == "1. one\n\nnone\n\n2. two\n- point"


def test_looks_of_styles_count(tmp_path: Path) -> None:
    def fill(document: Any) -> None:
        from docx.enum.style import WD_STYLE_TYPE

        gone = document.styles.add_style("Gone", WD_STYLE_TYPE.PARAGRAPH)
        gone.font.strike = True
        loud = document.styles.add_style("Loud", WD_STYLE_TYPE.CHARACTER)
        loud.font.all_caps = loud.font.strike = True
        document.add_paragraph("no dogs", style="Gone").add_run(" but cats", style="Loud")

    assert read(tmp_path, fill).text == "~~no dogs~~ BUT CATS"


def test_notes_of_a_page_follow_what_refers_to_them(tmp_path: Path) -> None:
    def fill(document: Any) -> None:
        for kind in ("footnote", "endnote"):
            said = f"<w:{kind} w:id='2'><w:p><w:r><w:{kind}Ref/></w:r>{text(f'The {kind}.')}</w:p></w:{kind}>"
            made.word_part(document, f"{kind}s", said)
        refers = f"<w:r><w:rPr>{ABOVE}</w:rPr><w:footnoteReference w:id='2'/></w:r>"
        ends = f"<w:r><w:rPr>{ABOVE}</w:rPr><w:endnoteReference w:id='2'/></w:r>"
        made.word_xml(document, text("In 2019") + refers + text(" and 2020") + ends)
        document.add_paragraph("More.")

    assert read(tmp_path, fill).text == (
        "In 2019[^1] and 2020[^i]\n\n[^1]: The footnote.\n\nMore.\n\n[^i]: The endnote."
    )


def test_links_say_where_they_lead(tmp_path: Path) -> None:
    def fill(document: Any) -> None:
        kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/hyperlink"
        for address, words in (
            ("https://halden.no/terms", "the terms"),
            ("https://halden.no/", "halden.no"),
            ("mailto:a@halden.no", "Anna"),
        ):
            which = document.part.relate_to(address, kind, is_external=True)
            made.word_xml(document, f"<w:hyperlink r:id='{which}'>{text(words)}</w:hyperlink>")

    assert (
        read(tmp_path, fill).text == "the terms (https://halden.no/terms)\n\nhalden.no\n\nAnna (a@halden.no)"
    )


def test_page_headers_and_footers_are_read_once(tmp_path: Path) -> None:
    def fill(document: Any) -> None:
        document.add_paragraph("Body.")
        for _ in range(2):
            section = document.sections[-1]
            section.header.is_linked_to_previous = section.footer.is_linked_to_previous = False
            section.header.paragraphs[0].text = "Offer 4711"
            foot = section.footer.paragraphs[0]
            foot.text = "Page "
            foot._p.append(
                made.parse_xml(f"<w:fldSimple {made.nsdecls('w')} w:instr='PAGE'>{text('3')}</w:fldSimple>")
            )
            section.first_page_header.paragraphs[0].text = "never shown"
            document.add_section()
        draft = "<w:r><w:pict><v:shape><v:textpath string='DRAFT'/></v:shape></w:pict></w:r>"
        made.word_xml(document, draft)

    assert (
        read(tmp_path, fill).text == "[page header: Offer 4711]\n\nBody.\n\n[DRAFT]\n\n[page footer: Page #]"
    )
