"""Columns of a PDF are read one after another however their lines were drawn, and tables row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import made
import pytest

from sakuin.documents import read

LEFT = (
    "The harbour of Norby opens at six and",
    "closes when the last ferry has left. In",
    "winter the pier is swept each morning,",
    "and the lamps are lit from four on, for",
    "boats that come in late with fish. Nets",
    "are dried on the western wall, which is",
    "out of the wind for most of the year.",
)
RIGHT = (
    "A second keeper was hired in spring, as",
    "the old one could no longer climb the",
    "tower. He lives above the store and is",
    "paid by the town, not by the company.",
    "His duties are the fog bell, the stores",
    "of oil, and the book in which each ship",
    "is written down with the hour it came.",
)
THIRD = (
    "Fees are due at the office beside the",
    "crane, in coin or by bill. Small boats",
    "of the town pay half, and those that",
    "bring stone for the new pier are free",
    "of all fees until the work is finished",
    "and the stones have been counted by the",
    "keeper, who signs for each of them.",
)
Draw = Callable[[Any], None]


def rows(*columns: Sequence[str], lefts: Sequence[float] = (60, 310), size: float = 9, top: float = 700,
         font: str = "Helvetica") -> Draw:  # fmt: skip
    """Lines drawn row by row across the columns."""

    def draw(sheet: Any) -> None:
        sheet.setFont(font, size)
        for row in range(max(map(len, columns))):
            for left, column in zip(lefts, columns, strict=True):
                if row < len(column):
                    sheet.drawString(left, top - 1.3 * size * row, column[row])

    return draw


def flowing(lines: Sequence[str]) -> str:
    return "\n".join(lines)


def text_of(path: Path, *draws: Draw) -> str:
    def page(sheet: Any) -> None:
        for draw in draws:
            draw(sheet)

    return read(made.pdf(path, page)).text.replace("\n\n", "\n")


def test_two_columns_drawn_row_by_row(tmp_path: Path) -> None:
    assert text_of(tmp_path / "a.pdf", rows(LEFT, RIGHT)) == flowing([*LEFT, *RIGHT])


def test_one_object_that_holds_both_halves_of_a_row(tmp_path: Path) -> None:
    def draw(sheet: Any) -> None:
        sheet.setFont("Courier", 9)
        for row, (left, right) in enumerate(zip(LEFT, RIGHT, strict=True)):
            sheet.drawString(60, 700 - 12 * row, f"{left:<44}{right}")

    assert text_of(tmp_path / "a.pdf", draw) == flowing([*LEFT, *RIGHT])


def test_three_narrow_columns(tmp_path: Path) -> None:
    draw = rows(LEFT, RIGHT, THIRD, lefts=(40, 215, 390))
    assert text_of(tmp_path / "a.pdf", draw) == flowing([*LEFT, *RIGHT, *THIRD])


def test_columns_that_are_not_level_and_of_unequal_length(tmp_path: Path) -> None:
    def draw(sheet: Any) -> None:
        sheet.setFont("Helvetica", 9)
        for row, (left, right) in enumerate(zip(LEFT, RIGHT, strict=True)):
            sheet.drawString(60, 700 - 12 * row, left)
            if row < 5:
                sheet.drawString(310, 694 - 12 * row, right)

    assert text_of(tmp_path / "a.pdf", draw) == flowing([*LEFT, *RIGHT[:5]])


def test_a_title_a_heading_between_and_a_foot_go_over_the_columns(tmp_path: Path) -> None:
    def draw(sheet: Any) -> None:
        sheet.setFont("Helvetica-Bold", 18)
        sheet.drawString(140, 760, "The Harbour of Norby in Winter")
        rows(LEFT, RIGHT)(sheet)
        sheet.setFont("Helvetica-Bold", 13)
        sheet.drawString(60, 580, "What it costs to lie at the pier of Norby, and for how long one may")
        rows(THIRD, LEFT, top=550)(sheet)
        sheet.setFont("Helvetica", 7)
        sheet.drawString(
            60, 430, "The rules of the harbour were printed by the town in 1911 and hang in the office."
        )
        sheet.drawString(300, 40, "12")

    text = text_of(tmp_path / "a.pdf", draw)
    assert text == flowing([
        "The Harbour of Norby in Winter", *LEFT, *RIGHT,
        "What it costs to lie at the pier of Norby, and for how long one may", *THIRD, *LEFT,
        "The rules of the harbour were printed by the town in 1911 and hang in the office.", "12",
    ])  # fmt: skip


def test_a_word_that_a_column_divides_is_put_together(tmp_path: Path) -> None:
    left = [*LEFT[:3], "and all the lamps of the har-", "bour are lit for boats that come late,", *LEFT[5:]]
    text = text_of(tmp_path / "a.pdf", rows(left, RIGHT))
    assert "and all the lamps of the harbour are lit for boats" in text


def test_numbered_lists_in_columns_keep_their_numbers(tmp_path: Path) -> None:
    def draw(sheet: Any) -> None:
        rows(LEFT, RIGHT, lefts=(80, 330))(sheet)
        for row in (0, 3, 5):
            for x, number in ((60, row + 1), (310, row + 11)):
                sheet.drawString(x, 700 - 1.3 * 9 * row, f"{number}.")

    lines = text_of(tmp_path / "a.pdf", draw).split("\n")
    assert lines[0] == f"1. {LEFT[0]}"
    assert lines[7:9] == [f"11. {RIGHT[0]}", RIGHT[1]]


def test_columns_of_a_script_that_runs_to_the_left_begin_at_the_right(tmp_path: Path) -> None:
    """PDFs hold such letters in the order in which they are seen, from the left."""
    pytest.importorskip("matplotlib")
    first = ("הנמל נפתח בשש בבוקר ונסגר אחרי", "שהמעבורת האחרונה יצאה אל האי", "ובחורף מטאטאים את הרציף בכל",
             "יום לפני שהסירות חוזרות עם דגים", "והאורות דולקים מארבע אחר הצהריים")  # fmt: skip
    second = (
        "שומר שני נשכר באביב כי הזקן לא",
        "יכול היה לטפס עוד על המגדל הגבוה",
        "והוא גר מעל המחסן ומקבל שכר מן",
        "העיר ולא מן החברה שבנתה את הנמל",
        "ותפקידו הוא הפעמון והשמן והספר",
    )
    seen = [[line[::-1] for line in column] for column in (second, first)]
    text = text_of(tmp_path / "a.pdf", rows(*seen, font=made.font_of_many_scripts(), size=10))
    assert text == flowing([*first, *second])


def test_japanese_columns(tmp_path: Path) -> None:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont

    pdfmetrics.registerFont(UnicodeCIDFont("HeiseiMin-W3"))
    left = [
        "港は朝の六時に開き最後の船が出た後に",
        "閉まる。冬の間は毎朝桟橋を掃き四時か",
        "ら灯りをともす。網は西の壁に干す。風",
        "が弱い日は外にも干すことができるのだ",
    ]
    right = [
        "春に二人目の番人が雇われた。前の番人",
        "は塔に登れなくなったからである。彼は",
        "倉庫の上に住み町から給料を受け取って",
        "いる。鐘と油と船の帳面が彼の仕事だ。",
    ]
    text = text_of(tmp_path / "a.pdf", rows(left, right, font="HeiseiMin-W3", size=10))
    assert text == flowing([*left, *right])


TABLES = {
    "figures": (
        ["Harbour", "Norby", "Ghent", "Oslo", "Halden"],
        ["Boats that lie here", "214", "88", "1,012", "65"],
        ["Fee a night", "12.00", "9.50", "22.00", "8.75"],
    ),
    "words and a remark": (
        ["Oil pump", "Fog bell", "West lamp", "East lamp", "Crane"],
        ["was mended in March and works again", "cracked, must be cast anew this year",
         "burns well, its glass has been cleaned", "out of order until the new wick comes",
         "may lift no more than two tons of stone"],
    ),
    "a label and its value": (
        ["Name of the owner of the boat:", "Home port of the boat:",
         "Length over all in metres:", "Draught:"],
        ["Ada Boe, of the Boe brothers", "Norby", "9.40", "1.20"],
    ),
    "a list of contents": (
        ["The harbour and its history since 1702", "Rules for those who lie at the pier",
         "What it costs to stay over night here", "Ferries to the islands in the summer"],
        ["3", "17", "25", "41"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("columns", TABLES.values(), ids=TABLES.keys())
def test_a_table_is_read_by_rows(tmp_path: Path, columns: Sequence[Sequence[str]]) -> None:
    draw = rows(*columns, lefts=(60, 280, 450)[: len(columns)])
    text = text_of(tmp_path / "a.pdf", draw)
    assert text == flowing([" ".join(row) for row in zip(*columns, strict=True)])


def test_paragraphs_of_columns_may_have_blank_lines(tmp_path: Path) -> None:
    left, right = [*LEFT[:3], "", *LEFT[3:], "", *THIRD[:3]], [*RIGHT[:5], "", *RIGHT[5:], "", *THIRD[3:]]
    lines = [line for line in (*left, *right) if line]
    assert text_of(tmp_path / "a.pdf", rows(left, right)) == flowing(lines)


def test_a_table_of_cells_of_unequal_length_is_read_by_rows(tmp_path: Path) -> None:
    left = ["Oil pump of the western pier, which", "was mended in March", "",
            "Fog bell, cast in the year 1870 and", "hung anew", "", "The lamp of the eastern tower", "",
            ""]  # fmt: skip
    right = ["It works again, but the keeper must", "look after it every morning before",
             "the first boat leaves.", "Cracked. It must be cast anew this",
             "year, or the town has none when the", "winter comes.", "Burns well. Its glass has been",
             "cleaned, and the wick is of the good", "kind that Ada brought."]  # fmt: skip
    text = text_of(tmp_path / "a.pdf", rows(left, right))
    assert text == flowing([f"{a} {b}".strip() for a, b in zip(left, right, strict=True)])


@pytest.mark.parametrize("ruled", [True, False], ids=["ruled", "set apart"])
def test_a_table_of_long_cells_is_read_by_rows(tmp_path: Path, ruled: bool) -> None:
    def draw(sheet: Any) -> None:
        sheet.setFont("Helvetica", 9)
        y = 700.0
        for start in (0, 2, 4):
            for row in (start, start + 1):
                sheet.drawString(60, y, LEFT[row])
                sheet.drawString(310, y, RIGHT[row])
                y -= 11.7
            if ruled:
                sheet.line(50, y + 8.2, 560, y + 8.2)
            else:
                y -= 9

    lines = text_of(tmp_path / "a.pdf", draw).split("\n")
    assert lines == [f"{left} {right}" for left, right in zip(LEFT[:6], RIGHT[:6], strict=True)]


def test_a_table_above_columns_stays_a_table(tmp_path: Path) -> None:
    table = TABLES["figures"]
    draws = rows(*table, lefts=(60, 240, 400), top=760), rows(LEFT, RIGHT, top=650)
    text = text_of(tmp_path / "a.pdf", *draws)
    assert text == flowing([*(" ".join(row) for row in zip(*table, strict=True)), *LEFT, *RIGHT])


def test_what_was_drawn_in_order_stays_as_it_was_drawn(tmp_path: Path) -> None:
    def draw(sheet: Any) -> None:
        for column, left in ((LEFT, 60), (RIGHT, 310)):
            rows(column, lefts=(left,))(sheet)

    assert text_of(tmp_path / "a.pdf", draw) == flowing([*LEFT, *RIGHT])


def test_a_page_of_which_a_part_was_drawn_in_order(tmp_path: Path) -> None:
    def draw(sheet: Any) -> None:
        for column, left in ((LEFT, 60), (RIGHT, 310)):
            rows(column, lefts=(left,))(sheet)
        sheet.setFont("Helvetica-Bold", 13)
        sheet.drawString(60, 580, "What it costs to lie at the pier of Norby, and for how long one may")
        rows(THIRD, LEFT, top=550)(sheet)

    heading = "What it costs to lie at the pier of Norby, and for how long one may"
    assert text_of(tmp_path / "a.pdf", draw) == flowing([*LEFT, *RIGHT, heading, *THIRD, *LEFT])


def test_a_page_of_one_column_with_gaps_in_its_lines(tmp_path: Path) -> None:
    """Justified lines have wide blanks, which stand above each other only by chance."""
    lines = [line.replace(" ", "    ") for line in (*LEFT, *RIGHT)]
    text = text_of(tmp_path / "a.pdf", rows(lines, lefts=(60,)))
    assert [" ".join(line.split()) for line in text.split("\n")] == [*LEFT, *RIGHT]
