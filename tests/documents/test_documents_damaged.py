"""Files that lack a part, or are something else than their name says: what is there is read, what is not is
said, each in a sentence."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made
import pytest
import xlsxwriter

from sakuin.documents import Document, read
from sakuin.errors import SakuinError

ODT = (
    "<office:document-content xmlns:office='urn:oasis:names:tc:opendocument:xmlns:office:1.0' "
    "xmlns:text='urn:oasis:names:tc:opendocument:xmlns:text:1.0'><office:body><office:text><text:p>words"
    "</text:p></office:text></office:body></office:document-content>"
)


def packed(parts: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return out.getvalue()


def unpacked(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def word(tmp_path: Path) -> dict[str, bytes]:
    def fill(document: Any) -> None:
        document.add_heading("Keys", 1)
        document.add_paragraph("They hang beside the door.", style="List Number")

    return unpacked(made.word(tmp_path / "made.docx", fill))


def sheets(tmp_path: Path) -> dict[str, bytes]:
    with xlsxwriter.Workbook(str(tmp_path / "made.xlsx")) as book:
        for name in ("Rents", "Fees"):
            book.add_worksheet(name).write_row(0, 0, ["a", "b"])
    return unpacked(tmp_path / "made.xlsx")


def of(tmp_path: Path, data: bytes, name: str) -> Document:
    path = tmp_path / name
    path.write_bytes(data)
    got = read(path)
    return Document("a", got.text, got.marks, tuple(note.replace(str(path), "a") for note in got.notes))


def lacking(parts: dict[str, bytes], *names: str) -> bytes:
    return packed({name: data for name, data in parts.items() if name not in names})


@pytest.mark.parametrize(
    ("part", "text"),
    [("word/styles.xml", "Keys\n\nThey hang beside the door."), ("word/numbering.xml", None)],
)
def test_a_word_file_says_which_parts_it_lacks(tmp_path: Path, part: str, text: str | None) -> None:
    got = of(tmp_path, lacking(word(tmp_path), part), "a.docx")
    assert got.text == (text or "# Keys\n\nThey hang beside the door.")
    assert got.notes == (
        f"a is damaged and lacks {part}: what it says there of looks, numbers or notes was not read; open it "
        "in Word and save it anew.",
    )


def test_a_word_file_without_the_list_of_its_parts_is_read_whole(tmp_path: Path) -> None:
    got = of(tmp_path, lacking(word(tmp_path), "word/_rels/document.xml.rels"), "a.docx")
    assert got.text == "# Keys\n\n1. They hang beside the door."
    assert got.notes == ()


@pytest.mark.parametrize("damage", [None, b"", b"<worksheet><sheetData><row><c><v>"])
def test_a_damaged_sheet_costs_a_note_and_not_the_others(tmp_path: Path, damage: bytes | None) -> None:
    parts = sheets(tmp_path)
    one, two = "xl/worksheets/sheet1.xml", "xl/worksheets/sheet2.xml"
    data = lacking(parts, two) if damage is None else packed(parts | {two: damage})
    got = of(tmp_path, data, "a.xlsx")
    assert got.text == "## Rents\n\na | b\n"
    assert got.notes == (
        "1 sheet of a that is damaged, 'Fees', was not read; get it once more, or save it anew as XLSX or "
        "CSV.",
    )
    with pytest.raises(SakuinError, match="is damaged: none of its sheets can be read; get it once more"):
        of(tmp_path, lacking(parts, one, two), "a.xlsx")


def test_a_workbook_without_the_list_of_its_sheets_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match="is damaged: the list of its sheets is missing; get it once more"):
        of(tmp_path, lacking(sheets(tmp_path), "xl/workbook.xml"), "a.xlsx")


@pytest.mark.parametrize("suffix", ["xlsx", "xls", "ods", "pdf", "csv", "txt"])
def test_word_files_are_known_under_any_suffix(tmp_path: Path, suffix: str) -> None:
    got = of(tmp_path, packed(word(tmp_path)), f"a.{suffix}")
    assert got.text.startswith("# Keys")
    said = f"a is a Word document in spite of its suffix .{suffix}, and was read as such."
    assert got.notes == (said,)


@pytest.mark.parametrize(
    ("parts", "name", "said"),
    [
        ({"content.xml": ODT.encode()}, "a.ods", "is an OpenDocument file, .* save it as DOCX or PDF"),
        ({"ppt/presentation.xml": b"<a/>"}, "a.xlsx", "is a PowerPoint presentation, .* save it as PDF"),
        ({"META-INF/container.xml": b"<a/>"}, "a.xls", "is an e-book, .* save it as HTML or PDF"),
        ({"words.txt": b"words"}, "a.ods", "is a zip archive, not text; unpack it"),
    ],
)
def test_other_archives_with_the_suffix_of_a_workbook_are_named(
    tmp_path: Path, parts: dict[str, bytes], name: str, said: str
) -> None:
    with pytest.raises(SakuinError, match=said):
        of(tmp_path, packed(parts), name)


SMALL: dict[str, Callable[[Path], bytes]] = {
    "docx": lambda folder: packed(word(folder)),
    "xlsx": lambda folder: packed(sheets(folder)),
    "pdf": lambda folder: made.bare_pdf(b"BT /F1 12 Tf 10 100 Td (words) Tj ET"),
    "html": lambda folder: b"<p>words",
    "csv": lambda folder: b"a;b\nx;1\n",
    "md": lambda folder: b"# words\n",
}


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("stem", ["new\nline", "emoji \U0001f600", "\x1b[31mred\x1b[0m", "\u202etxt", "-rf"])
def test_names_may_hold_anything(tmp_path: Path, kind: str, stem: str) -> None:
    got = of(tmp_path, SMALL[kind](tmp_path), f"{stem}.{kind}")
    assert got.text.strip()
    assert got.notes == ()


@pytest.mark.parametrize("kind", [*SMALL, "xls", "ods", "xlsb", "tsv", "txt", "json"])
def test_files_of_no_bytes_are_empty_whatever_they_are_called(tmp_path: Path, kind: str) -> None:
    for data in (b"", b" \n\t\r\n"):
        with pytest.raises(SakuinError, match="is empty; there is nothing to ask about"):
            of(tmp_path, data, f"a.{kind}")


def test_letters_of_no_size_are_no_missing_font(tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match="its pages are blank or drawn"):
        of(tmp_path, made.bare_pdf(b"BT /F1 0 Tf 10 100 Td (words) Tj ET"), "a.pdf")
