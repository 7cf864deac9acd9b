"""Word documents: nothing that stands in one is lost in silence, and bad files are refused in a sentence."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import made
import pytest

from sakuin.documents import limits, read
from sakuin.errors import SakuinError


def lease(document: Any) -> None:
    document.add_heading("Lease", 0)
    document.add_heading("1. Term", 1)
    document.add_paragraph("The lease ends ").add_run("on").bold = True
    document.add_heading("2. Fees", 2)
    table = document.add_table(2, 2)
    for row, words in enumerate((("Item", "Price"), ("Rent", "900 EUR"))):
        for column, text in enumerate(words):
            table.cell(row, column).text = text
    document.add_paragraph("Heat", style="List Number")
    document.add_paragraph("Water", style="List Number")


def test_headings_tables_and_lists_keep_their_form(tmp_path: Path) -> None:
    got = read(made.word(tmp_path / "lease.docx", lease))
    assert got.text == (
        "# Lease\n\n# 1. Term\n\nThe lease ends on\n\n## 2. Fees\n\n"
        "| Item | Price |\n| --- | --- |\n| Rent | 900 EUR |\n\n1. Heat\n2. Water"
    )
    assert [(mark.page, mark.heading) for mark in got.marks] == [
        (None, "Lease"),
        (None, "1. Term"),
        (None, "2. Fees"),
    ]
    assert got.mark(got.text.index("900 EUR")).heading == "2. Fees"
    assert got.notes == ()


@pytest.mark.parametrize(
    ("inner", "text"),
    [
        ("<w:ins w:id='1' w:author='a'><w:r><w:t>inserted</w:t></w:r></w:ins>", "inserted"),
        (
            "<w:sdt><w:sdtContent><w:r><w:t>from a control</w:t></w:r></w:sdtContent></w:sdt>",
            "from a control",
        ),
        (
            "<w:r><mc:AlternateContent><mc:Choice Requires='wps'><w:drawing><wps:wsp><wps:txbx>"
            "<w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent></wps:txbx></wps:wsp></w:drawing>"
            "</mc:Choice><mc:Fallback><w:pict><v:textbox><w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p>"
            "</w:txbxContent></v:textbox></w:pict></mc:Fallback></mc:AlternateContent></w:r>",
            "boxed",
        ),
    ],
    ids=["tracked", "control", "textbox"],
)
def test_text_that_is_not_in_plain_runs_is_read_once(tmp_path: Path, inner: str, text: str) -> None:
    got = read(made.word(tmp_path / "a.docx", lambda document: made.word_xml(document, inner)))
    assert got.text.count(text) == 1


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    def fill(document: Any) -> None:
        from PIL import Image

        Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
        document.add_picture(str(tmp_path / "a.png"))
        document.sections[0].header.paragraphs[0].text = "Halden, confidential"
        document.add_comment(document.add_paragraph("A clause.").runs, text="really?", author="me")
        made.word_xml(
            document, "<w:del w:id='1' w:author='a'><w:r><w:delText>struck</w:delText></w:r></w:del>"
        )
        made.word_xml(document, "<m:oMath><m:r><m:t>E=mc</m:t></m:r></m:oMath>")

    got = read(made.word(tmp_path / "a.docx", fill))
    assert got.text == "[page header: Halden, confidential]\n\nA clause. [comment by me: really?]\n\nE=mc"
    name = tmp_path / "a.docx"
    assert got.notes == (
        f"{name} has tracked changes, which were read as accepted: 1 deletion left out.",
        f"{name} has 1 comment: [comment …] stands where it is made.",
        f"not read of {name}: 1 picture.",
    )


def test_a_document_of_pictures_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    path = made.word(tmp_path / "a.docx", lambda document: document.add_picture(str(tmp_path / "a.png")))
    with pytest.raises(SakuinError, match="has no text and holds only 1 picture"):
        read(path)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = made.word(tmp_path / "a.docx", lease)

    def swell(name: str, data: bytes) -> bytes:
        return data + b" " * (limits.MOST_XML + 1) if name == "word/document.xml" else data

    path.write_bytes(made.repacked(path, swell))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(SakuinError, match="unpacks to 64 MB of XML, and at most 64 MB are read"):
        read(path)


def test_entities_that_swell_are_refused(tmp_path: Path) -> None:
    path = made.word(tmp_path / "a.docx", lease)
    names = "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10))

    def swell(name: str, data: bytes) -> bytes:
        if name != "word/document.xml":
            return data
        data = data.replace(b"The lease", b"&a9;")
        return re.sub(
            rb"<w:document", f"<!DOCTYPE a [<!ENTITY a0 'xxxx'>{names}]><w:document".encode(), data, count=1
        )

    path.write_bytes(made.repacked(path, swell))
    with pytest.raises(SakuinError, match="is damaged and cannot be read"):
        read(path)


@pytest.mark.parametrize("share", [0.1, 0.6, 0.99])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = made.word(tmp_path / "a.docx", lease)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(SakuinError, match="damaged or cut short"):
        read(path)


def test_damage_inside_ends_in_text_or_a_sentence(tmp_path: Path) -> None:
    path = made.word(tmp_path / "a.docx", lease)
    data = path.read_bytes()
    for seed in range(10):
        broken = bytearray(data)
        broken[200 + (seed * 7919) % (len(data) - 200)] ^= 0x5A
        path.write_bytes(bytes(broken))
        with contextlib.suppress(SakuinError):
            assert read(path).text


def test_tables_within_tables_end_in_a_sentence(tmp_path: Path) -> None:
    inner = "<w:p><w:r><w:t>deep</w:t></w:r></w:p>"
    for _ in range(700):
        inner = f"<w:tbl><w:tr><w:tc>{inner}</w:tc></w:tr></w:tbl>"
    path = made.word(tmp_path / "a.docx", lease)

    def nest(name: str, data: bytes) -> bytes:
        return (
            data.replace(b"<w:body>", b"<w:body>" + inner.encode()) if name == "word/document.xml" else data
        )

    path.write_bytes(made.repacked(path, nest))
    with pytest.raises(SakuinError, match="too deeply"):
        read(path)
