"""PDFs: text in order with pages and headings, what has no text said, bad files refused in a sentence."""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path

import made
import pytest

from sakuin.documents import Document, Mark, limits, read
from sakuin.documents.pdf.pages import Line, drop_running, joined, lines
from sakuin.errors import SakuinError


def at(document: Document, words: str) -> Mark:
    """Page and heading of the first place where the words stand."""
    return document.mark(document.text.index(words))


@pytest.mark.parametrize("bookmark", [False, True], ids=["fonts", "bookmarks"])
def test_every_passage_has_its_page_and_heading(tmp_path: Path, bookmark: bool) -> None:
    got = read(made.contract(tmp_path / "contract.pdf", bookmark))
    place = at(got, made.FACT)
    assert (place.page, place.heading) == (3, "3. Term")
    assert (at(got, "Ghent").page, at(got, "Ghent").heading) == (1, "1. Parties")
    assert at(got, "Notices are sent").heading == "5. Notices"
    assert [mark.heading for mark in got.marks if got.text[mark.start :].startswith(mark.heading or "?")] == [
        "1. Parties",
        "2. Services",
        "3. Term",
        "4. Fees",
        "5. Notices",
    ]


def test_running_heads_and_page_numbers_are_read_once_and_that_is_said(tmp_path: Path) -> None:
    got = read(made.contract(tmp_path / "contract.pdf"))
    assert got.text.count("Support Agreement") == 1
    assert got.text.count("of 5") == 1
    (note,) = got.notes
    assert "repeats 'Support Agreement' and 'Page 1 of 5'" in note


def test_lines_that_differ_by_more_than_the_page_stay() -> None:
    def page(number: int) -> list[Line]:
        texts = (
            f"Bill {number}",
            "Works of Ghent",
            "Sum",
            "the same on every page",
            "paid",
            "by letter",
            "at once",
        )
        return [
            Line(text, 11, 400, y) for text, y in zip(texts, (800, 786, 700, 686, 672, 658, 644), strict=True)
        ]

    bills = [page(number) for number in (7, 19, 23, 31)]
    assert drop_running(bills) == ["Works of Ghent"]
    assert [page[0].text for page in bills] == ["Bill 7", "Bill 19", "Bill 23", "Bill 31"]
    assert all(line.text for page in bills for line in page[2:])


def test_divided_words_are_put_together_and_hyphens_kept() -> None:
    sign = "\ufffe"
    pages = lines(
        [
            [
                (f"manip{sign}ulation of well{sign}known", 11, 400, None),
                ("things, well-known as they are", 11, 400, None),
            ],
            [
                (f"the years 2019{sign}2021 of PKIX{sign}Sig and ﬁnal", 11, 400, None),
                ("re\xad", 11, 400, None),
                ("port", 11, 400, None),
            ],
        ]
    )
    text, marks = joined(pages, {})
    assert text == (
        "manipulation of well-known\nthings, well-known as they are\n"
        "the years 2019-2021 of PKIX-Sig and final\nreport"
    )
    assert [text[mark.start :][:3] for mark in marks] == ["man", "the"]


def test_a_sentence_that_runs_over_a_page_is_not_cut() -> None:
    pages = [[Line("The term ends")], [Line("in March.")], [], [Line("The fee is due.")]]
    text, marks = joined(pages, {(3, 0): "Fees"})
    assert text == "The term ends\nin March.\n\nThe fee is due."
    assert [(mark.start, mark.page, mark.heading) for mark in marks] == [
        (0, 1, None),
        (14, 2, None),
        (23, 3, None),
        (25, 4, "Fees"),
    ]


def test_japanese_is_read(tmp_path: Path) -> None:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont

    pdfmetrics.registerFont(UnicodeCIDFont("HeiseiMin-W3"))
    path = made.pdf(tmp_path / "a.pdf", made.lines(["契約は二〇三一年三月に終了する。"], font="HeiseiMin-W3"))
    assert "契約は二〇三一年三月に終了する。" in read(path).text


def test_what_was_filled_into_a_form_is_read(tmp_path: Path) -> None:
    def form(sheet: object) -> None:
        sheet.drawString(72, 700, "Name of the tenant:")  # type: ignore[attr-defined]
        sheet.acroForm.textfield(name="tenant", value="Halden Ltd", x=200, y=690, width=200, height=20)  # type: ignore[attr-defined]

    assert "Halden Ltd" in read(made.pdf(tmp_path / "form.pdf", form)).text


def test_pages_without_text_are_named(tmp_path: Path) -> None:
    def blank(sheet: object) -> None:
        pass

    words = made.lines(["Some words of the first page."])
    path = made.pdf(tmp_path / "a.pdf", words, made.picture, made.picture, blank, words)
    got = read(path)
    assert [mark.page for mark in got.marks] == [1, 2, 3, 4, 5]
    said = "\n".join(got.notes)
    assert "pages 2-3 of" in said
    assert "(OCR)" in said
    assert "page 4 of" in said


def test_pictures_beside_text_are_counted(tmp_path: Path) -> None:
    def both(sheet: object) -> None:
        made.picture(sheet)  # type: ignore[arg-type]
        made.lines(["Words."])(sheet)  # type: ignore[arg-type]

    assert read(made.pdf(tmp_path / "a.pdf", both)).notes == (
        f"not read of {tmp_path / 'a.pdf'}: 1 picture.",
    )


def test_a_scan_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match=r"has no text on its 2 pages: it is a scan; run text recognition"):
        read(made.pdf(tmp_path / "scan.pdf", made.picture, made.picture))


def test_an_encrypted_file_is_refused_and_one_that_opens_without_password_is_read(tmp_path: Path) -> None:
    from reportlab.lib.pdfencrypt import StandardEncryption

    page = made.lines(["Words."])
    locked = made.pdf(tmp_path / "a.pdf", page, encrypt=StandardEncryption("secret", "owner"))
    with pytest.raises(SakuinError, match=r"a\.pdf is encrypted; save it without a password"):
        read(locked)
    unlocked = made.pdf(tmp_path / "b.pdf", page, encrypt=StandardEncryption("", "owner", canPrint=0))
    assert "Words." in read(unlocked).text


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = made.contract(tmp_path / "contract.pdf")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(SakuinError, match="is damaged or cut short"):
        read(path)


def test_damage_inside_never_ends_in_anything_but_text_or_a_sentence(tmp_path: Path) -> None:
    path = made.contract(tmp_path / "contract.pdf")
    data = path.read_bytes()
    for seed in range(8):
        broken = bytearray(data)
        for step in range(20):
            broken[(seed * 7919 + step * 104_729) % len(data)] ^= 0x5A
        path.write_bytes(bytes(broken))
        with contextlib.suppress(SakuinError):
            assert read(path).text.strip()


def test_a_file_that_unpacks_to_gigabytes_costs_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packer = zlib.compressobj(9)
    step = b"0 0 m 1 1 l " * 100_000
    packed = b"".join(packer.compress(step) for _ in range(300)) + packer.flush()
    path = tmp_path / "bomb.pdf"
    path.write_bytes(made.bare_pdf(packed, b"/Filter/FlateDecode"))
    monkeypatch.setattr(limits, "MOST_MEMORY", 256 << 20)
    with pytest.raises(SakuinError, match="more than 256 MB of memory"):
        read(path)


def test_a_file_with_junk_before_its_start_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(b"\r\n\r\n" + made.bare_pdf(b"BT /F1 12 Tf 20 100 Td (Words by hand.) Tj ET"))
    assert read(path).text == "Words by hand."
