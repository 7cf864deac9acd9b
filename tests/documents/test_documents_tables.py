"""CSV and workbooks: each row with the names of its columns, nothing of a cell lost without a note."""

from __future__ import annotations

import datetime
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter

from sakuin.documents import Document, read
from sakuin.errors import SakuinError

CSV = 'name,due,amount\nHalden Ltd,2031-03-14,"1,200.50"\n"Boe, Ada",2031-04-01,\n'
LINES = (
    "name | due | amount\nname: Halden Ltd | due: 2031-03-14 | amount: 1,200.50\n"
    "name: Boe, Ada | due: 2031-04-01 | amount:\n"
)


def of(tmp_path: Path, text: str | bytes, name: str = "a.csv") -> Document:
    (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return read(tmp_path / name)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_each_record_is_a_line_with_the_names_of_its_columns(
    tmp_path: Path, delimiter: str, end: str
) -> None:
    rows = [
        ["name", "due", "amount"],
        ["Halden Ltd", "2031-03-14", '"1,200.50"'],
        ['"Boe, Ada"', "2031-04-01", ""],
    ]
    text = end.join(delimiter.join(row) for row in rows) + end
    got = of(tmp_path, text, "a.tsv" if delimiter == "\t" else "a.csv")
    assert (got.text, got.notes) == (LINES, ())
    assert got.line(got.text.index("Boe")) == 3


def test_a_cell_of_many_lines_is_one_line_and_figures_have_commas(tmp_path: Path) -> None:
    got = of(tmp_path, 'item;price;remark\npump;1,5;"one\ntwo ""three"""\nbell;2,25;\n')
    assert got.text.splitlines()[1:] == [
        'item: pump | price: 1,5 | remark: one two "three"', "item: bell | price: 2,25 | remark:",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sep=;\na;b\nx;1\n", "\na | b\na: x | b: 1\n"),
        ("SEP=^\r\na^b\r\nx^1,5\r\n", "\na | b\na: x | b: 1,5\n"),
        ('"sep=|"\na|b\nx|1\n', "\na | b\na: x | b: 1\n"),  # as LibreOffice writes it
        ("sep=;;\na;b;c\nx;1;\n", "\na | b | c\na: x | b: 1 | c:\n"),  # saved anew
        ("sep=,\na;b\nx;1\n", "\na | b\na: x | b: 1\n"),  # no record has what it says
        ("sep=|\nAda|where ships lie\n", "\nAda|where ships lie\n"),  # no names for sure
        ("sep=abc\nx,1\ny,2\n", "sep=abc\nx,1\ny,2\n"),  # not Excel's
        ("sep=|\n", "sep=|\n"),
    ],
)
def test_a_first_line_that_says_the_separator_is_obeyed_and_left_empty(
    tmp_path: Path, text: str, expected: str
) -> None:
    got = of(tmp_path, text)
    assert got.text == expected
    assert not got.notes


@pytest.mark.parametrize(
    "text",
    [
        "term,meaning\npier,where ships lie\nbell,what is rung in fog\n",  # the first row may be a record
        "Halden,12,3\nNorby,13,4\n",
        "one column\nof words\n",
        "Some words, and more.\nA text without columns.\nIt has one, two, three commas\n",
    ],
)
def test_where_no_row_names_the_columns_a_file_stays_as_it_is(tmp_path: Path, text: str) -> None:
    assert of(tmp_path, text).text == text


def test_a_row_longer_or_shorter_than_the_others_keeps_its_cells(tmp_path: Path) -> None:
    got = of(tmp_path, "a,b\nx,1\ny,2,more\nz\nw,3\nv,4\nu,5\nt,6\ns,7\nr,8\nq,9\n")
    assert got.text.splitlines()[2:4] == ["a: y | b: 2 | more", "a: z"]


def test_quotation_marks_that_do_not_pair_are_said(tmp_path: Path) -> None:
    got = of(tmp_path, 'a,b\n"x,1\ny,2\n')
    assert got.text == 'a,b\n"x,1\ny,2\n' or "do not pair up" in got.notes[0]
    bad = of(tmp_path, "name,amount\nMünze,3\nSöhne,4\n".encode() + b"bad \xff,5\n")
    assert "U+FFFD" in bad.notes[0]
    assert bad.text.endswith("name: bad \ufffd | amount: 5\n")


def book(tmp_path: Path, fill: Any, name: str = "a.xlsx") -> Document:
    path = tmp_path / name
    with xlsxwriter.Workbook(str(path)) as out:
        fill(out)
    got = read(path)
    return Document("a", got.text, got.marks, tuple(note.replace(str(path), "a") for note in got.notes))


def test_a_workbook_is_read_sheet_by_sheet(tmp_path: Path) -> None:
    def fill(out: Any) -> None:
        day = out.add_format({"num_format": "dd.mm.yyyy"})
        rents = out.add_worksheet("Rents")
        rents.write_row(0, 0, ["Tenant", "Until", "Rent", "Share", "Paid"])
        rents.write(1, 0, "Ada Boe")
        rents.write_datetime(1, 1, datetime.datetime(2031, 3, 14), day)
        rents.write(1, 2, 900.5, out.add_format({"num_format": '#,##0.00 "EUR"'}))
        rents.write(1, 3, 0.125, out.add_format({"num_format": "0.0%"}))
        rents.write(1, 4, True)
        rents.write(2, 0, "B. Ott")
        rents.write(2, 2, 0.1 + 0.2, out.add_format({"num_format": "[$£-809]#,##0.00"}))
        rents.write(2, 3, 12, out.add_format({"num_format": "0"}))
        out.add_worksheet("Empty")
        notes = out.add_worksheet("Notes")
        notes.write_column(0, 0, ["Pets with consent.", "Keys at the office."])

    got = book(tmp_path, fill)
    assert got.text == (
        "## Rents\n\nTenant | Until | Rent | Share | Paid\n"
        "Tenant: Ada Boe | Until: 2031-03-14 | Rent: 900.5 EUR | Share: 12.5% | Paid: TRUE\n"
        "Tenant: B. Ott | Until: | Rent: £0.3 | Share: 12 | Paid:\n\n"
        "## Notes\n\nPets with consent.\nKeys at the office.\n"
    )
    assert got.mark(got.text.index("Ada Boe")).heading == "Rents"
    assert got.mark(got.text.index("Keys")).heading == "Notes"
    assert got.notes == ()


OLD = (Path(__file__).parent / "old" / "rents.xls").read_bytes()
"""A workbook of Excel 97 to 2003: sheets Rents and Hid; written by xlwt 1.3.0."""


def test_a_workbook_of_the_old_format_is_read_and_what_is_not_seen_noted(tmp_path: Path) -> None:
    got = of(tmp_path, OLD, "a.xls")
    assert got.text == (
        "## Rents\n\nTenant | Until | Rent | Share\n"
        "Tenant: Ada Böe | Until: 2031-03-14 | Rent: 900.5 | Share: 0.125\n"
        "Tenant: 契約 | Until: | Rent: | Share: TRUE\n"
        "Tenant: merged | Until: | Rent: 1 | Share:\nTenant: merged | Until: | Rent: 2 | Share:\n\n"
        "## Hid\n\nhidden words\n"
    )
    path = str(tmp_path / "a.xls")
    assert [note.replace(path, "a") for note in got.notes] == [
        "1 sheet of a that is hidden, 'Hid', was read too.",
        "a is no XLSX or ODS: units and percent signs of numbers, notes, links, and what is struck out or "
        "hidden in its sheets were not read; save it as XLSX to have them.",
    ]
    assert of(tmp_path, OLD, "no suffix").text == got.text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            OLD.replace(b"\xe1\0\x02\0\xb0\x04", b"\x2f\0\x02\0\xb0\x04"),
            "is a workbook with a password; save it",
        ),
        (OLD[:3000], "is damaged or cut short"),
    ],
)
def test_a_workbook_of_the_old_format_is_refused_in_a_sentence(
    tmp_path: Path, data: bytes, said: str
) -> None:
    with pytest.raises(SakuinError, match=said):
        of(tmp_path, data, "a.xls")


def test_what_is_hidden_merged_noted_or_reckoned_is_kept_or_said(tmp_path: Path) -> None:
    def fill(out: Any) -> None:
        sheet = out.add_worksheet("Plan")
        sheet.merge_range(0, 0, 0, 2, "Harbour plan")
        sheet.write_row(1, 0, ["Pier", "Ship", "Metres"])
        sheet.merge_range(2, 0, 3, 0, "West")
        sheet.write_row(2, 1, ["Ada", 12])
        sheet.write_row(3, 1, ["Norby", 30])
        sheet.set_row(3, None, None, {"hidden": True})
        sheet.set_column(2, 2, None, None, {"hidden": True})
        sheet.write_formula(4, 2, "=SUM(C3:C4)", None, 42)
        sheet.write_formula(5, 2, "=C5*2", None, "")
        sheet.write_comment(2, 1, "leaves in May")
        hidden = out.add_worksheet("Old")
        hidden.write(0, 0, "the old plan")
        hidden.hide()

    got = book(tmp_path, fill)
    assert got.text == (
        "## Plan\n\nHarbour plan\nPier | Ship | Metres\n"
        "Pier: West | Ship: Ada [note: leaves in May] | Metres: 12\nPier: West | Ship: Norby | Metres: 30\n"
        "Pier: | Ship: | Metres: 42\n\n## Old\n\nthe old plan\n"
    )
    assert got.notes == (
        "1 sheet of a that is hidden, 'Old', was read too.",
        "1 hidden row and 1 hidden column of a were read too.",
        "1 formula of a has no stored value and is read as empty; open the file in a spreadsheet and "
        "save it.",
    )


def test_charts_pictures_and_times_of_day(tmp_path: Path) -> None:
    def fill(out: Any) -> None:
        sheet = out.add_worksheet("Log")
        sheet.write_datetime(
            0, 0, datetime.datetime(2031, 3, 14, 9, 30), out.add_format({"num_format": "yyyy-mm-dd hh:mm"})
        )
        sheet.write_column(0, 1, [1, 2])
        for place in (out.add_chartsheet("Curve"), sheet):
            chart = out.add_chart({"type": "line"})
            chart.add_series({"values": "=Log!$B$1:$B$2"})
            if place is sheet:
                sheet.insert_chart("D1", chart)
            else:
                place.set_chart(chart)

    got = book(tmp_path, fill)
    assert got.text == "## Log\n\n2031-03-14 09:30 | 1\n2\n"
    assert "'Curve' of a is a chart or a macro, and was not read." in got.notes
    assert "not read of a: 2 charts." in got.notes


def test_a_form_in_a_sheet_keeps_its_rows(tmp_path: Path) -> None:
    def fill(out: Any) -> None:
        sheet = out.add_worksheet("Form")
        for row, cells in enumerate([["Name", "Ada Boe"], ["City", "Norby"], ["", "", "late"]]):
            sheet.write_row(row, 0, cells)

    assert book(tmp_path, fill).text == "## Form\n\nName | Ada Boe\nCity | Norby\nlate\n"


def test_workbooks_that_cannot_be_read_are_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(out: Any) -> None:
        out.add_worksheet("Leer")

    with pytest.raises(SakuinError, match="without a filled cell"):
        book(tmp_path, fill)
    data = (tmp_path / "a.xlsx").read_bytes()
    with pytest.raises(SakuinError, match="is damaged or cut short"):
        of(tmp_path, data[:-200], "b.xlsx")
    with pytest.raises(SakuinError, match="is not a workbook, as its suffix says, and no text either"):
        of(tmp_path, bytes(range(256)) * 9, "c.xlsx")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", bytes(1 << 20))
        with archive.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as part:
            for _ in range(20):
                part.write(bytes(1 << 20))
    from sakuin.documents.sheets import file as sheets

    monkeypatch.setattr(sheets, "MOST_UNPACKED", 10 << 20)
    with pytest.raises(SakuinError, match=r"unpacks to 21 MB, and at most 10 MB are read"):
        sheets.check_size(bomb.getvalue(), "d.xlsx")


def test_a_workbook_of_opendocument_is_read(tmp_path: Path) -> None:
    spaces = " ".join(
        f'xmlns:{short}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for short, name in (("office", "office"), ("table", "table"), ("text", "text"))
    )
    cell = '<table:table-cell office:value-type="{}" {}><text:p>{}</text:p></table:table-cell>'
    row = "<table:table-row>" + cell * 2 + "</table:table-row>"
    content = (
        f'<?xml version="1.0"?><office:document-content {spaces}><office:body><office:spreadsheet>'
        '<table:table table:name="Rents">'
        + row.format("string", "", "Tenant", "string", "", "Rent")
        + row.format("string", "", "Ada", "float", 'office:value="900"', "900")
        + "</table:table></office:spreadsheet></office:body></office:document-content>"
    )
    kind = "application/vnd.oasis.opendocument.spreadsheet"
    with zipfile.ZipFile(tmp_path / "a.ods", "w") as archive:
        archive.writestr("mimetype", kind)
        archive.writestr("content.xml", content)
        archive.writestr("META-INF/manifest.xml", "<manifest/>")
    assert read(tmp_path / "a.ods").text == "## Rents\n\nTenant | Rent\nTenant: Ada | Rent: 900\n"
