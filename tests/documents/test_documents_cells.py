"""What cells of workbooks mean beside their values: looks, formats of numbers, links, errors, how far they
reach; of XLSX and of ODS."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import made
import pytest
import xlsxwriter

from sakuin.documents import Document, read
from sakuin.errors import SakuinError

SPACES = " ".join(
    f'xmlns:{short}="urn:oasis:names:tc:opendocument:xmlns:{short}:1.0"'
    for short in ("office", "table", "text", "style", "drawing")
)


def renamed(got: Document, path: Path) -> Document:
    return Document("a", got.text, got.marks, tuple(note.replace(str(path), "a") for note in got.notes))


def book(tmp_path: Path, fill: Any) -> Document:
    path = tmp_path / "a.xlsx"
    with xlsxwriter.Workbook(str(path)) as out:
        fill(out, out.add_worksheet("S"))
    return renamed(read(path), path)


def ods(tmp_path: Path, rows: str, styles: str = "") -> Document:
    path = tmp_path / "a.ods"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr(
            "content.xml",
            f'<?xml version="1.0"?><office:document-content {SPACES} '
            'xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:draw="drawing" xmlns:calcext='
            '"urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0">'
            f"<office:automatic-styles>{styles}</office:automatic-styles><office:body><office:spreadsheet>"
            f'<table:table table:name="S">{rows}</table:table></office:spreadsheet></office:body>'
            "</office:document-content>",
        )
        archive.writestr("META-INF/manifest.xml", "<manifest/>")
    return renamed(read(path), path)


RULED = (
    "conditional formatting of a strikes cells out in {}; it was not worked out, and none of them is marked "
    "for it: save the workbook as PDF to have what it shows."
)


def test_cells_that_rules_strike_out_are_noted(tmp_path: Path) -> None:
    def fill(out: Any, sheet: Any) -> None:
        struck, red = out.add_format({"font_strikeout": True}), out.add_format({"font_color": "red"})
        sheet.write_column(0, 0, ["left", 1, 0, 2])
        sheet.write_column(0, 1, ["due", 4, 5, 6], out.add_format({"bold": True}))
        sheet.conditional_format("B2:B4", {"type": "cell", "criteria": ">", "value": 1, "format": red})
        sheet.conditional_format(
            "A2:A4",
            {"type": "cell", "criteria": "==", "value": 0, "format": struck, "multi_range": "A2:A4 C9"},
        )

    assert book(tmp_path, fill).notes == (RULED.format("A2:A4 C9 of 'S'"),)

    newer = (
        b'<extLst><ext xmlns:x14="x14" xmlns:xm="xm"><x14:conditionalFormatting><x14:cfRule><x14:dxf><font>'
        b"<strike/></font></x14:dxf></x14:cfRule><xm:sqref>D1:D9</xm:sqref></x14:conditionalFormatting></ext>"
        b"</extLst></worksheet>"
    )
    path = tmp_path / "a.xlsx"
    path.write_bytes(
        made.repacked(
            path, lambda name, data: data.replace(b"</worksheet>", newer) if "sheet1" in name else data
        )
    )
    assert renamed(read(path), path).notes == (RULED.format("A2:A4 C9 of 'S', D1:D9 of 'S'"),)

    def plain(out: Any, sheet: Any) -> None:
        sheet.write(0, 0, 900, out.add_format({"font_color": "red"}))
        red = out.add_format({"font_color": "red", "font_strikeout": False})
        sheet.conditional_format("A1", {"type": "cell", "criteria": ">", "value": 1, "format": red})

    assert book(tmp_path, plain).notes == ()


@pytest.mark.parametrize(
    ("rules", "where"),
    [
        (
            "<calcext:conditional-formats>"
            '<calcext:conditional-format calcext:target-range-address="S.A1:S.A2">'
            '<calcext:condition calcext:apply-style-name="gone"/></calcext:conditional-format>'
            "</calcext:conditional-formats>",
            "S.A1:S.A2 of 'S'",
        ),
        ("", "some cells"),
    ],
)
def test_cells_that_rules_of_ods_strike_out_are_noted(tmp_path: Path, rules: str, where: str) -> None:
    styles = (
        '<style:style style:name="gone" style:family="table-cell"><style:text-properties '
        'style:text-line-through-style="solid"/></style:style><style:style style:name="ruled" '
        'style:family="table-cell"><style:map style:condition="cell-content()=0" '
        'style:apply-style-name="gone"/></style:style>'
    )
    cell = '<table:table-cell office:value-type="string"><text:p>pump</text:p></table:table-cell>'
    row = f"<table:table-row>{cell}</table:table-row>"
    assert ods(tmp_path, row + rules, styles).notes == (RULED.format(where),)


def test_struck_raised_linked_and_wrong_cells_keep_what_they_mean(tmp_path: Path) -> None:
    def fill(out: Any, sheet: Any) -> None:
        struck = out.add_format({"font_strikeout": True})
        raised = out.add_format({"font_script": 1})
        sheet.write_row(0, 0, ["boat", "oar"])
        sheet.write(1, 0, "900", struck)
        sheet.write_rich_string(1, 1, "old ", struck, "70", " new 80 ")
        sheet.write(2, 0, 12.5, out.add_format({"font_strikeout": True, "num_format": '0.0 "EUR"'}))
        sheet.write_rich_string(2, 1, "10", raised, "6", " N")
        sheet.write_url(3, 0, "https://halden.no/terms", string="terms")
        sheet.write_url(3, 1, "https://halden.no/", string="halden.no")
        sheet.write_formula(4, 0, "=1/0", None, "#DIV/0!")
        sheet.write_formula(4, 1, '=HYPERLINK("https://halden.no/map","map")', None, "map")
        sheet.insert_textbox(6, 0, "gate code 5512")

    got = book(tmp_path, fill)
    assert got.text == (
        "## S\n\nboat | oar\n~~900~~ | old ~~70~~ new 80\n~~12.5 EUR~~ | 10^6 N\n"
        "terms (https://halden.no/terms) | halden.no\n#DIV/0! | map (https://halden.no/map)\n"
        "[text box: gate code 5512]\n"
    )
    assert got.notes == ("a has 3 passages struck out, which stand between ~~ and ~~.",)


@pytest.mark.parametrize(
    ("code", "value", "said"),
    [
        ('#,##0,"k"', 1500, "1.5k"),
        ('0.0,,"M"', -1234567, "-1.234567M"),
        ("[$€-2] #,##0.00;[Red]-[$€-2] #,##0.00", -3, "-€ 3"),
        ('#,##0.00 "EUR";[Red](#,##0.00 "EUR")', -900.5, "-900.5 EUR"),
        ("[h]:mm", 1.25, "30:00"),
        ("[h]:mm:ss", 1.25, "30:00:00"),
        ("000", 7, "007"),
        ("000-00-0000", 12345678, "012-34-5678"),
        ("(000) 000-0000", 5551234567, "(555) 123-4567"),
        ('[>=1000]0,"k";0" pieces"', 12, "12 pieces"),
        ('"yes";"no"', 1, "yes (1)"),
        ("+0%;-0%", 0.25, "+25%"),
        ('0.00" kg"', 3.25, "3.25 kg"),
        ("# ?/?", 0.5, "0.5"),
    ],
)
def test_a_number_is_written_as_its_format_means_it(
    tmp_path: Path, code: str, value: float, said: str
) -> None:
    def fill(out: Any, sheet: Any) -> None:
        sheet.write(0, 0, value, out.add_format({"num_format": code}))

    assert book(tmp_path, fill).text == f"## S\n\n{said}\n"


def test_one_hidden_row_was_read_and_hidden_columns_without_cells_are_none(tmp_path: Path) -> None:
    def fill(out: Any, sheet: Any) -> None:
        sheet.write_column(0, 0, ["a", "b"])
        sheet.set_row(1, None, None, {"hidden": True})
        sheet.set_column(3, 16383, None, None, {"hidden": True})

    assert book(tmp_path, fill).notes == ("1 hidden row of a was read too.",)


def test_a_stray_cell_far_away_is_refused_with_the_true_counts(tmp_path: Path) -> None:
    def fill(out: Any, sheet: Any) -> None:
        sheet.write(0, 0, "start")
        sheet.write(1048575, 16383, "corner")

    with pytest.raises(SakuinError, match="a sheet of 1,048,576 rows and 16,384 columns, and at most"):
        book(tmp_path, fill)
    cell = '<table:table-cell office:value-type="string" table:number-columns-repeated="16384"><text:p>x'
    row = f'<table:table-row table:number-rows-repeated="1048576">{cell}</text:p></table:table-cell>'
    with pytest.raises(SakuinError, match="a sheet of 1,048,576 rows and 16,384 columns, and at most"):
        ods(tmp_path, row + "</table:table-row>")


def test_cells_of_opendocument_keep_what_they_mean(tmp_path: Path) -> None:
    def cell(kind: str, more: str, inside: str) -> str:
        return f'<table:table-cell office:value-type="{kind}" {more}>{inside}</table:table-cell>'

    def row(*cells: str, more: str = "") -> str:
        return f"<table:table-row {more}>{''.join(cells)}</table:table-row>"

    struck = (
        '<style:style style:name="gone" style:family="{}"><style:text-properties '
        'style:text-line-through-style="solid"/></style:style>'
    )
    up = (
        '<style:style style:name="up" style:family="text"><style:text-properties '
        'style:text-position="super 58%"/></style:style>'
    )
    got = ods(
        tmp_path,
        row(
            cell("percentage", 'office:value="0.125"', "<text:p>12.5%</text:p>"),
            cell(
                "currency",
                'office:value="900.5" office:currency="EUR"',
                "<office:annotation><text:p>why</text:p></office:annotation><text:p>900,50 €</text:p>",
            ),
            cell("float", 'office:value="7"', "<text:p>007</text:p>"),
            more='table:visibility="collapse"',
        )
        + row(
            cell("string", 'office:string-value="" calcext:value-type="error"', "<text:p>#DIV/0!</text:p>"),
            cell("time", 'office:time-value="PT30H00M00S"', "<text:p>30:00</text:p>"),
            cell("float", 'office:value="1500"', "<text:p>2k</text:p>"),
        )
        + row(
            cell("string", 'table:number-rows-spanned="2"', "<text:p>West</text:p>"),
            cell("string", 'table:style-name="gone"', "<text:p>900</text:p>"),
            cell("string", "", '<text:p>old <text:span text:style-name="gone">70</text:span> new</text:p>'),
        )
        + row(
            "<table:covered-table-cell/>",
            cell("string", "", '<text:p>10<text:span text:style-name="up">6</text:span> N</text:p>'),
            cell("string", "", '<text:p><text:a xlink:href="https://halden.no">site of it</text:a></text:p>'),
        ),
        struck.format("table-cell") + struck.format("text") + up,
    )
    assert got.text == (
        "## S\n\n12.5% | 900.5 € [note: why] | 007\n#DIV/0! | 30:00:00 | 1500\n"
        "West | ~~900~~ | old ~~70~~ new\n"
        "West | 10^6 N | site of it (https://halden.no)\n"
    )
    assert got.notes == (
        "a has 2 passages struck out, which stand between ~~ and ~~.",
        "1 hidden row of a was read too.",
    )
