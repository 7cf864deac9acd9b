"""E-mails and web archives: what each holds, how it is written, what is noted, and what is refused."""

from __future__ import annotations

import base64
from email.message import EmailMessage
from pathlib import Path

import pytest

from sakuin.documents import Document, read, read_all
from sakuin.errors import SakuinError

HEADERS = (
    "From: Åse Lund <ase@halden.no>\nTo: Bo <bo@halden.no>\nDate: Fri, 14 Mar 2031 10:00:00 +0100\n"
    "Subject: Rent für May"
)


def message(**more: str) -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"] = "Åse Lund <ase@halden.no>", "Bo <bo@halden.no>"
    made["Date"], made["Subject"] = "Fri, 14 Mar 2031 10:00:00 +0100", "Rent für May"
    for name, words in more.items():
        made[name] = words
    return made


def got(tmp_path: Path, data: bytes | EmailMessage, name: str = "a.eml") -> Document:
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.as_bytes())
    return read(path)


@pytest.mark.parametrize("cte", ["base64", "quoted-printable", "8bit"])
def test_headers_are_lines_and_the_text_is_unpacked(tmp_path: Path, cte: str) -> None:
    made = message(Cc="Cy <cy@halden.no>")
    made.set_content("Kjære Bo,\n\nleien er 900 €.\n", cte=cte)
    document = got(tmp_path, made)
    headers = HEADERS.replace("Date:", "Cc: Cy <cy@halden.no>\nDate:")
    assert document.text == f"{headers}\n\nKjære Bo,\n\nleien er 900 €."
    assert document.mark(0).heading == "Rent für May"
    assert document.notes == ()


def test_the_plain_text_is_read_and_the_page_where_there_is_none(tmp_path: Path) -> None:
    both = message()
    both.set_content("Plain.\n")
    both.add_alternative("<p>Page.</p>", subtype="html")
    assert got(tmp_path, both).text == f"{HEADERS}\n\nPlain."
    page = message()
    page.set_content("<h1>Fees</h1><p>10<sup>6</sup> <s>900</s> €", subtype="html", charset="cp1252")
    document = got(tmp_path, page)
    assert document.text == f"{HEADERS}\n\n# Fees\n\n10^6 ~~900~~ €"
    assert document.mark(len(document.text)).heading == "Fees"
    blank = message()
    blank.set_content("\n")
    blank.add_alternative("<p>Page.</p>", subtype="html")
    assert got(tmp_path, blank).text == f"{HEADERS}\n\nPage."


def test_attachments_are_named_and_not_read(tmp_path: Path) -> None:
    made = message()
    made.set_content("See the files.\n")
    made.add_attachment(b"%PDF-", maintype="application", subtype="pdf", filename="Mietvertrag für May.pdf")
    made.add_attachment("secret\n", filename="notes.txt")
    document = got(tmp_path, made)
    assert document.text == f"{HEADERS}\n\nSee the files."
    assert document.notes[0].endswith("a.eml: 2 attachments (Mietvertrag für May.pdf, notes.txt).")


def test_messages_in_a_message_are_read_with_their_headers(tmp_path: Path) -> None:
    inner = EmailMessage()
    inner["Subject"] = "Old rent"
    inner.set_content("It was 800.\n")
    outer = message()
    outer.set_content("See below.\n")
    outer.add_attachment(inner)
    document = got(tmp_path, outer)
    assert document.text == (
        f"{HEADERS}\n\nSee below.\n\nMessage in this one:\n\nSubject: Old rent\n\nIt was 800."
    )
    assert document.mark(len(document.text)).heading == "Old rent"


def test_a_web_archive_is_its_page(tmp_path: Path) -> None:
    page = base64.encodebytes("<title>Fees</title><p>900 €<img src='cid:1' alt=map>".encode())
    data = (
        b"From: <Saved by Blink>\r\nSubject: Fees\r\nMIME-Version: 1.0\r\nContent-Type: multipart/related; "
        b'type="text/html"; boundary="x"\r\n\r\n--x\r\nContent-Type: text/html; charset=utf-8\r\n'
        b"Content-Transfer-Encoding: base64\r\n\r\n" + page + b"\r\n--x\r\nContent-Type: image/png\r\n\r\nabc"
        b"\r\n--x--\r\n"
    )
    for name in ("a.mht", "a.mhtml", "a.doc", "page"):
        document = got(tmp_path, data, name)
        assert document.text == "Subject: Fees\n\n# Fees\n\n900 €[map]"
        assert any(note.endswith(f"{name}: 1 embedded file.") for note in document.notes)


def test_encodings_that_do_not_hold_are_noted(tmp_path: Path) -> None:
    head = b"Subject: a\nContent-Type: text/plain; charset=%s\n\n"
    document = got(tmp_path, head % b"utf-8" + b"ab \xff\xfe\xff " * 3 + "für øæ".encode())
    assert "\ufffd" in document.text
    assert "not in the encoding that it names; U+FFFD stands there" in document.notes[0]
    assert got(tmp_path, head % b"x-unknown" + "für".encode()).text == "Subject: a\n\nfür"
    assert got(tmp_path, head % b"zip" + "für".encode()).text == "Subject: a\n\nfür"
    assert got(tmp_path, "Subject: f\u00fcr\n\nraw 8 bits".encode()).text == "Subject: für\n\nraw 8 bits"


def test_lines_that_flow_are_joined(tmp_path: Path) -> None:
    head = b"Subject: a\nContent-Type: text/plain; format=flowed\n\n"
    assert got(tmp_path, head + b"one \ntwo\nthree\n> q \n> r\n-- \nB").text.endswith(
        "\n\none two\nthree\n> q r\n-- \nB"
    )


def test_what_is_no_mail_is_text(tmp_path: Path) -> None:
    assert got(tmp_path, b"Only words.\n", "a.eml").text == "Only words.\n"
    assert got(tmp_path, b"From: me\nTo: you\n\nA letter.\n", "a.txt").text.startswith("From: me\nTo: you\n")


def test_without_text_and_too_deep_it_is_refused(tmp_path: Path) -> None:
    made = message()
    made.add_attachment(b"abc", maintype="application", subtype="pdf", filename="a.pdf")
    with pytest.raises(SakuinError, match=r"has no text that can be read \(but 1 attachment \(a.pdf\)\)"):
        got(tmp_path, made)
    inner = b"Subject: x\n\nend\n"
    deep = b"".join(b"Subject: x\nContent-Type: message/rfc822\n\n" for _ in range(5000)) + inner
    with pytest.raises(SakuinError, match="nests its parts too deeply"):
        got(tmp_path, deep)
    parts = b"Subject: a\nContent-Type: multipart/mixed; boundary=x\n\n" + b"--x\n\na\n" * 6000
    with pytest.raises(SakuinError, match="more than 5,000 parts"):
        got(tmp_path, parts)


def test_a_folder_with_mails_reads_them(tmp_path: Path) -> None:
    made = message()
    made.set_content("Hi.\n")
    (tmp_path / "b.eml").write_bytes(made.as_bytes())
    assert [document.text for document in read_all([tmp_path])] == [f"{HEADERS}\n\nHi."]
