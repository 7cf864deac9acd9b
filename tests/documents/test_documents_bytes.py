"""Text with damage in it, and text of other encodings: kept as far as it is text, and the rest said."""

from __future__ import annotations

from pathlib import Path

import pytest

from sakuin.documents import Document, read
from sakuin.errors import SakuinError

LINE = "2031-03-{:02} Prüfung der Wärmepumpe größer Überlauf ok\n"
LOG = "".join(LINE.format(day) for day in range(1, 23))
ENGLISH = "The lease of the house by the harbour ends in March, and the keys are left at the office.\n"


def of(tmp_path: Path, data: bytes, encoding: str | None = None, name: str = "a.log") -> Document:
    (tmp_path / name).write_bytes(data)
    got = read(tmp_path / name, encoding)
    return Document(
        "a", got.text, got.marks, tuple(note.replace(str(tmp_path / name), "a") for note in got.notes)
    )


@pytest.mark.parametrize("encoding", [None, "auto", "utf-8"])
def test_one_bad_byte_among_utf8_is_replaced_and_said(tmp_path: Path, encoding: str | None) -> None:
    lines = LOG.encode().splitlines(keepends=True)
    lines[10] = b"2031-03-11 sensor \xff offline\n"
    at = len(b"".join(lines[:10])) + 18
    got = of(tmp_path, b"".join(lines), encoding)
    assert got.text == b"".join(lines).decode("utf-8", "replace")
    assert got.notes == (
        f"a is utf-8 but for 1 byte, the first on line 11 (byte \\xff at offset {at}); U+FFFD stands there.",
    )


@pytest.mark.parametrize(
    ("data", "places"),
    [
        (LOG.encode() + LINE.format(23).encode()[:14], "1 byte"),  # cut within a letter
        (LOG.encode() + LINE.format(23).encode("latin-1") + LOG.encode(), "5 places"),
        (b"plain words \xff and more of them\n", "1 byte"),
        (b"caf\xe9 " + ENGLISH.encode() * 20, "1 byte"),
        ("契約は三月に終了する。".encode() * 20 + b"\x80\n", "1 byte"),
        ((ENGLISH * 40).encode() + b"\xfe\xff\xfe", "3 places"),
    ],
)
def test_a_few_bad_bytes_are_replaced(tmp_path: Path, data: bytes, places: str) -> None:
    got = of(tmp_path, data, "auto")
    assert got.text == data.decode("utf-8", "replace")
    assert f"a is utf-8 but for {places}, the first on line" in got.notes[0]


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        ("Der Vertrag endet übermorgen; die Größe steht im Café.\n".encode("cp1252"), "cp1252"),
        ((ENGLISH * 9 + "“So be it,” she said – and left.\n").encode("cp1252"), "cp1252"),
        ("Il a été dit que l’élève était là.\n".encode("cp1252") * 50, "cp1252"),
        ("これは日本語の文書です。契約は終了する。\n".encode("cp932"), "cp932"),
    ],
)
def test_text_of_another_encoding_is_not_taken_for_damage(tmp_path: Path, data: bytes, encoding: str) -> None:
    with pytest.raises(SakuinError, match=f"pass --encoding {encoding}"):
        of(tmp_path, data)
    got = of(tmp_path, data, "auto")
    assert got.text == data.decode(encoding)
    assert got.notes == (f"a is not UTF-8 and was read as {encoding}, which is a guess.",)


def test_a_bad_byte_in_a_named_encoding_is_said_too(tmp_path: Path) -> None:
    data = ("これは日本語の文書です。\n" * 100).encode("cp932") + b"\x81"
    got = of(tmp_path, data, "cp932")
    assert got.text.endswith("文書です。\n\ufffd")
    assert "a is cp932 but for 1 byte, the first on line 101" in got.notes[0]


def test_nuls_are_left_out_and_said(tmp_path: Path) -> None:
    data = b"10:00 start\n10:01 valve 7 opened\n" + bytes(64) + b"10:05 boot after power loss\n"
    got = of(tmp_path, data)
    assert got.text == data.replace(b"\0", b"").decode()
    assert got.notes == ("a holds 64 NULs, which were left out; the first is on line 3.",)
    assert of(tmp_path, b"10:00 sta" + bytes(4096) + b"10:05 boot\n").text == "10:00 sta\n10:05 boot\n"
    assert of(tmp_path, b"words\0 and words\n").notes[0].startswith("a holds 1 NUL, which was left out")
    both = of(tmp_path, LOG.encode() + bytes(9) + b"a \xff byte\n")
    assert (len(both.notes), both.text) == (2, LOG + "a \ufffd byte\n")


@pytest.mark.parametrize(
    "data", [b"a\0b\0c\0d\0" * 30, bytes(300), bytes(range(256)) * 9], ids=["data", "nuls", "bytes"]
)
def test_what_is_no_text_is_still_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(SakuinError, match=r"binary|pass --encoding|only blanks"):
        of(tmp_path, data)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be", "utf-8-sig"])
@pytest.mark.parametrize("asked", [None, "auto"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, encoding: str, asked: str | None) -> None:
    mark = "\ufeff" if encoding.endswith("be") else ""
    got = of(tmp_path, (mark + LOG).encode(encoding), asked)
    assert (got.text, got.notes) == (LOG, ())
    assert of(tmp_path, (mark + "# Größe\n").encode(encoding), asked, "a.md").marks[0].heading == "Größe"


def test_a_byte_order_mark_between_joined_files_is_taken_off(tmp_path: Path) -> None:
    assert of(tmp_path, ("\ufeffone\n\ufefftwo\n").encode()).text == "one\ntwo\n"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_whatever_ends_them(tmp_path: Path, end: str) -> None:
    text = end.join(["one", "two", "", "four"])
    got = of(tmp_path, text.encode())
    assert got.text == text
    assert [got.line(got.text.index(word)) for word in ("one", "two", "four")] == [1, 2, 4]
    assert got.line(3) == 1


def test_mixed_line_ends_are_counted(tmp_path: Path) -> None:
    got = of(tmp_path, b"a\rb\r\nc\nd\f\ve\n\rf")
    assert [got.line(got.text.index(letter)) for letter in "abcdef"] == [1, 2, 3, 4, 4, 6]
