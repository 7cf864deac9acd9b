"""Documents: text comes in as it is, and what is no text is refused in one sentence that says what to do."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from sakuin.documents import Document, decode, read
from sakuin.errors import SakuinError

JAPANESE = "これは日本語の文書です。契約は二〇三一年三月十四日に終了する。カタカナも使う。\n"
GERMAN = "Der Vertrag endet übermorgen; die Größe steht im Café.\n"


def test_text_is_kept_as_it_is_so_that_offsets_count(tmp_path: Path) -> None:
    text = "one\r\ntwo\n\n  three \u3042\U0001f600\n"
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    assert read(path) == Document(str(path), text)


def test_a_byte_order_mark_is_taken_off(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfhello")
    assert read(path).text == "hello"


@pytest.mark.parametrize("encoding", ["cp932", "shift_jis", "euc_jp", "iso2022_jp", "utf-16"])
def test_another_encoding_is_read_when_it_is_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(JAPANESE.encode(encoding))
    assert read(path, encoding).text == JAPANESE


@pytest.mark.parametrize(
    ("text", "encoding", "likely"),
    [
        (JAPANESE, "cp932", "cp932"),
        (JAPANESE, "shift_jis", "cp932"),
        (JAPANESE, "euc_jp", "euc_jp"),
        (JAPANESE, "utf-16", "utf-16"),
        (GERMAN, "cp1252", "cp1252"),
        (GERMAN, "utf-16-le", "utf-16-le"),
        (GERMAN, "utf-16-be", "utf-16-be"),
    ],
)
def test_a_utf8_failure_names_the_likely_encoding(text: str, encoding: str, likely: str) -> None:
    with pytest.raises(SakuinError, match=f"--encoding {likely}\\.$"):
        decode(text.encode(encoding), "a.txt")


def test_ascii_in_utf16_is_not_taken_for_text_with_zeros() -> None:
    with pytest.raises(SakuinError, match="looks like utf-16-le"):
        decode("plain words".encode("utf-16-le"), "a.txt")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "a.txt is empty"),
        (b" \n\t", "a.txt is empty"),
        (bytes(range(256)) * 20, "looks binary"),
        (b"text\0with zeros in it", "is binary"),
        ("\u3000\u3000".encode(), "holds only blanks"),
    ],
)
def test_what_is_no_text_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(SakuinError, match=said):
        decode(data, "a.txt")


def test_an_unknown_encoding_is_named() -> None:
    with pytest.raises(SakuinError, match="no text encoding named 'klingon'"):
        decode(b"abc", "a.txt", "klingon")


def test_a_codec_that_makes_no_text_is_refused() -> None:
    with pytest.raises(SakuinError, match="no text encoding named 'hex'"):
        decode(b"abc", "a.txt", "hex")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match="there is no file"):
        read(tmp_path / "nothing")
    with pytest.raises(SakuinError, match="is a folder"):
        read(tmp_path)


def test_standard_input_is_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe")))
    assert read("-") == Document("standard input", "from a pipe")


def test_lines_count_from_one_and_own_their_newline() -> None:
    document = Document("a", "ab\n\ncd")
    assert [document.line(offset) for offset in range(6)] == [1, 1, 1, 2, 3, 3]
