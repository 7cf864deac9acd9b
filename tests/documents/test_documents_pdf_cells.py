"""Tables of a PDF keep the place of empty cells; text that runs to the left or down keeps its order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import made
import pytest
from reportlab.lib import colors
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import Paragraph, SimpleDocTemplate, Table

from sakuin.documents import Document, read
from sakuin.errors import SakuinError

Rows = Sequence[Sequence[str]]
ABOVE = "The stores of the harbour are listed here, with what was paid for each."
BELOW = "All sums are in euros; the list was made in March by the keeper."
GRID = [("GRID", (0, 0), (-1, -1), 0.5, colors.black)]
RIGHT = [("ALIGN", (1, 0), (-1, -1), "RIGHT")]
STORES = (
    ("Item", "Ordered", "Paid", "Due"),
    ("Oil pump", "12", "", "3"),
    ("Fog bell", "", "900.50", ""),
    ("West lamp", "", "", "7"),
    ("Crane", "4", "1,200.00", "8"),
)


def table(tmp_path: Path, rows: Rows, style: Any = None) -> list[str]:
    """The lines of a page with a table on it, without those above and below."""
    path, words = tmp_path / "a.pdf", getSampleStyleSheet()["Normal"]
    story = [
        Paragraph(ABOVE, words),
        Table([list(row) for row in rows], style=style),
        Paragraph(BELOW, words),
    ]
    SimpleDocTemplate(str(path)).build(story)
    first, *lines, last = read(path).text.replace("\n\n", "\n").split("\n")
    assert (first, last) == (ABOVE, BELOW)
    return lines


def drawn(tmp_path: Path, draw: Any) -> Document:
    path = made.pdf(tmp_path / "a.pdf", draw)
    got = read(path)
    return Document("a", got.text, got.marks, tuple(note.replace(str(path), "a") for note in got.notes))


@pytest.mark.parametrize("style", [GRID, RIGHT, None], ids=["ruled", "to the right", "aligned"])
def test_values_stay_below_the_names_of_their_columns(tmp_path: Path, style: Any) -> None:
    assert table(tmp_path, STORES, style) == [
        "Item | Ordered | Paid | Due",
        "Oil pump | 12 |  | 3",
        "Fog bell |  | 900.50",
        "West lamp |  |  | 7",
        "Crane | 4 | 1,200.00 | 8",
    ]


def test_two_columns_are_known_by_the_lines_between_them(tmp_path: Path) -> None:
    rows = (("Item", "Price"), ("Oil pump", ""), ("", "9"), ("Lamp", "4"))
    assert table(tmp_path, rows, GRID) == ["Item | Price", "Oil pump", "| 9", "Lamp | 4"]
    assert table(tmp_path, rows) == ["Item Price", "Oil pump", "9", "Lamp 4"]


def test_a_title_over_some_rows_stands_alone(tmp_path: Path) -> None:
    rows = (("Item", "in", "out"), ("North", "", ""), ("Pump", "1", "2"), ("Bell", "", "3"), ("Sum", "", "5"))
    assert table(tmp_path, rows, GRID) == [
        "Item | in | out",
        "North",
        "Pump | 1 | 2",
        "Bell |  | 3",
        "Sum |  | 5",
    ]


def test_a_table_without_empty_cells_stays_as_it_is(tmp_path: Path) -> None:
    rows = (("Item", "in", "out"), ("Pump", "1", "2"), ("Bell", "4", "3"))
    assert table(tmp_path, rows, GRID) == ["Item in out", "Pump 1 2", "Bell 4 3"]


def test_words_below_each_other_by_chance_are_no_table(tmp_path: Path) -> None:
    lines = (
        "One    line of a      poem",
        "has    no columns",
        "      and yet     it   seems",
        "to    have  some",
    )

    def draw(sheet: Any) -> None:
        sheet.setFont("Helvetica", 11)
        for row, line in enumerate(lines):
            sheet.drawString(72, 700 - 14 * row, line)

    assert "|" not in drawn(tmp_path, draw).text


def by_columns(rows: Rows, size: float = 10, way: float = 90) -> Any:
    """A table that is drawn column by column, with a line of text above it and below."""

    def draw(sheet: Any) -> None:
        sheet.setFont("Helvetica", size)
        sheet.drawString(72, 730, ABOVE)
        for column in range(len(rows[0])):
            for y, row in enumerate(rows):
                if row[column]:
                    sheet.drawString(72 + way * column, 700 - 16 * y, row[column])
        sheet.drawString(72, 700 - 16 * len(rows) - 10, BELOW)

    return draw


def test_a_table_that_was_drawn_column_by_column_is_read_by_rows(tmp_path: Path) -> None:
    """PDFium has the 3, the 7 and the 8, which stand below each other, as 378."""
    assert drawn(tmp_path, by_columns(STORES)).text.replace("\n\n", "\n").split("\n") == [
        ABOVE,
        "Item | Ordered | Paid | Due",
        "Oil pump | 12 |  | 3",
        "Fog bell |  | 900.50",
        "West lamp |  |  | 7",
        "Crane | 4 | 1,200.00 | 8",
        BELOW,
    ]


def test_columns_of_words_that_no_line_parts_stay_columns(tmp_path: Path) -> None:
    rows = (("Adams, Ada", "Hill, Bo"), ("Boe, Carl", "Ivers, Dan"), ("Cole, Eve", "Jones, Fay"))
    lines = drawn(tmp_path, by_columns(rows, way=200)).text.replace("\n\n", "\n").split("\n")
    assert lines == [ABOVE, *(row[0] for row in rows), *(row[1] for row in rows), BELOW]

    def ruled(sheet: Any) -> None:
        by_columns(rows, way=200)(sheet)
        sheet.line(260, 715, 260, 660)

    lines = drawn(tmp_path, ruled).text.replace("\n\n", "\n").split("\n")
    assert lines == [ABOVE, *(" ".join(row) for row in rows), BELOW]


def test_columns_of_text_with_a_line_between_them_stay_columns(tmp_path: Path) -> None:
    left = ("The harbour of Norby opens at six and", "closes when the last ferry has left. In",
            "winter the pier is swept each morning,", "and the lamps are lit from four on.")  # fmt: skip
    right = ("A second keeper was hired in spring, as", "the old one could no longer climb the",
             "tower. He lives above the store and is", "paid by the town, not by the company.")  # fmt: skip

    def draw(sheet: Any) -> None:
        by_columns(tuple(zip(left, right, strict=True)), way=230)(sheet)
        sheet.line(290, 715, 290, 640)

    lines = drawn(tmp_path, draw).text.replace("\n\n", "\n").split("\n")
    assert lines == [ABOVE, *left, *right, BELOW]


def test_figures_below_each_other_are_no_number(tmp_path: Path) -> None:
    def draw(sheet: Any) -> None:
        sheet.setFont("Helvetica", 10)
        for y, figure in enumerate(("3", "7", "", "8")):
            sheet.drawString(72, 700 - 16 * y, figure)

    assert drawn(tmp_path, draw).text.split("\n") == ["3", "7", "8"]


def test_tables_of_a_script_that_runs_to_the_left_begin_at_the_right(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    font = made.font_of_many_scripts()
    rows = (("פריט", "הוזמן", "שולם"), ("משאבה", "12", ""), ("פעמון", "", "900"), ("מנורה", "3", "7"))

    def draw(sheet: Any) -> None:
        sheet.setFont(font, 11)
        for y, row in enumerate(rows):
            for x, cell in zip((460, 360, 260), row, strict=True):
                sheet.drawRightString(x, 700 - 16 * y, cell if cell.isdigit() else cell[::-1])

    assert drawn(tmp_path, draw).text.split("\n") == [
        "פריט | הוזמן | שולם", "משאבה | 12", "פעמון |  | 900", "מנורה | 3 | 7",
    ]  # fmt: skip


DOWN = (
    "港は朝の六時に開き",
    "最後の船が出た後に",
    "閉まる。冬の間は毎",
    "朝桟橋を掃き、灯り",
    "をともす。（完）",
)


def down(columns: Sequence[str]) -> Any:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont

    pdfmetrics.registerFont(UnicodeCIDFont("HeiseiKakuGo-W5", isVertical=True))

    def draw(sheet: Any) -> None:
        sheet.setFont("HeiseiKakuGo-W5", 12)
        for at, column in enumerate(columns):
            sheet.drawString(480 - 20 * at, 750, column)

    return draw


def test_japanese_that_runs_down_is_read_from_right_to_left(tmp_path: Path) -> None:
    """PDFium knows how wide the marks are that stand in each of these columns."""
    assert drawn(tmp_path, down(DOWN[2:])).text == "\n".join(DOWN[2:])


def test_what_is_in_a_font_that_neither_file_nor_machine_has_is_noted(tmp_path: Path) -> None:
    got = drawn(tmp_path, down(DOWN))
    lost = [column for column in DOWN if column not in got.text]
    if not lost:
        pytest.skip("this machine has a Japanese font")
    assert got.notes == (
        f"{len(lost)} passages of a are in a font that is not in the file, and were not read: print it into "
        "a new PDF with its fonts, or run text recognition (OCR) over it.",
    )
    with pytest.raises(SakuinError, match="on its 1 page: their font is not in the file; print it"):
        drawn(tmp_path, down(lost))
