"""What a file is, is told by its content: wrong suffixes, other kinds, missing extras, stored documents."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import made
import pytest

from sakuin.documents import Document, Mark, read
from sakuin.errors import SakuinError

JAPANESE = "契約は三月に終了する。これは日本語の文書です。㈱ハルデンの①から③まで。\n"


def old(*entries: str) -> bytes:
    """What an office document of the old format lists, and nothing else of it."""
    start = b"\xd0\xcf\x11\xe0".ljust(512, b"\0")
    return start + b"".join(entry.encode("utf-16-le").ljust(128, b"\0") for entry in entries)


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return out.getvalue()


@pytest.mark.parametrize("name", ["contract.txt", "contract.docx", "contract"])
def test_a_pdf_is_one_under_any_name(tmp_path: Path, name: str) -> None:
    path = made.pdf(tmp_path / name, made.lines(["Words."]))
    got = read(path)
    assert (got.text, got.marks[0].page) == ("Words.", 1)
    said = f"{path} is a PDF in spite of its suffix {path.suffix}, and was read as such."
    assert got.notes == ((said,) if path.suffix else ())


def test_a_web_page_saved_as_a_pdf_and_words_saved_as_html_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("<!DOCTYPE html><html><body><p>Not found.</p></body></html>")
    got = read(tmp_path / "a.pdf")
    assert got.text == "Not found."
    assert "is HTML in spite of its suffix .pdf" in got.notes[0]
    (tmp_path / "b.html").write_text("one\ntwo, without a tag: 1 < 2\n")
    got = read(tmp_path / "b.html")
    assert got.text == "one\ntwo, without a tag: 1 < 2\n"
    assert "is plain text in spite of its suffix .html" in got.notes[0]
    (tmp_path / "c.docx").write_text("only words")
    assert "is plain text in spite of its suffix .docx" in read(tmp_path / "c.docx").notes[0]


def test_a_suffix_that_promises_what_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(SakuinError, match="is not a PDF, as its suffix says, and no text either"):
        read(tmp_path / "a.pdf")


def test_programs_and_templates_that_begin_with_a_tag_stay_text(tmp_path: Path) -> None:
    for name in ("page.j2", "page.vue", "notes.md", "page.py"):
        (tmp_path / name).write_text("<html><body>{{ words }}</body></html>\n")
        assert read(tmp_path / name).text == "<html><body>{{ words }}</body></html>\n"
        assert read(tmp_path / name).notes == ()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (zipped("[Content_Types].xml", "xl/workbook.xml"), "is damaged or cut short .*XLSX or CSV"),
        (zipped("[Content_Types].xml", "ppt/presentation.xml"), "is a PowerPoint presentation"),
        (zipped("mimetype", "content.xml"), "is an OpenDocument file"),
        (zipped("mimetype", "META-INF/container.xml"), "is an e-book"),
        (zipped("a.txt"), "is a zip archive, not text; unpack it"),
        (b"PK\x03\x04" + b"x" * 50, "is a damaged zip archive"),
        (b"{\\rtf1 words}", "is an RTF document; save it as DOCX or PDF"),
        (b"\xd0\xcf\x11\xe0" + b"\0" * 99, "an office document of the old format; save it as"),
        (old("EncryptedPackage"), "an office document with a password"),
        (
            old("WordDocument", "Workbook"),
            r"a Word document of the old format \(.doc\); save it as DOCX or PDF",
        ),
        (old("PowerPoint Document"), r"a PowerPoint presentation of the old format \(.ppt\); save it as PDF"),
        (old("Workbook"), "is damaged or cut short"),
        (b"\x89PNG\r\n", "is a picture, not text"),
        (b"%PDF-1.7 ...", "is damaged or cut short"),
    ],
)
def test_what_is_not_read_is_told_what_to_do(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(SakuinError, match=said):
        read(path)


def test_markdown_keeps_its_text_and_gains_headings(tmp_path: Path) -> None:
    text = (
        "Intro\r\n\r\n# One *two*\r\nwords\r\n\r\nThree\r\n=====\r\n\r\n```\r\n# no heading\r\n```\r\nend\r\n"
    )
    (tmp_path / "a.md").write_bytes(text.encode())
    got = read(tmp_path / "a.md")
    assert got.text == text
    assert [(mark.heading, text[mark.start :][:5]) for mark in got.marks] == [
        ("One *two*", "# One"),
        ("Three", "Three"),
    ]
    assert got.mark(0) == Mark(0)
    assert got.mark(text.index("# no")).heading == "Three"


@pytest.mark.parametrize("encoding", ["cp932", "shift_jis", "euc_jp", "iso2022_jp"])
def test_auto_guesses_an_encoding_and_says_so(tmp_path: Path, encoding: str) -> None:
    text = JAPANESE if encoding == "cp932" else JAPANESE.replace("㈱", "").replace("①から③", "一から三")
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    got = read(tmp_path / "a.txt", "auto")
    assert got.text == text
    assert "which is a guess" in got.notes[0]
    with pytest.raises(SakuinError, match="pass --encoding"):
        read(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text(text, encoding="utf-8")
    assert read(tmp_path / "b.txt", "auto") == Document(str(tmp_path / "b.txt"), text)


def test_signs_of_windows_are_not_in_shift_jis_and_the_remedy_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(JAPANESE.encode("cp932"))
    with pytest.raises(SakuinError, match=r"is not shift_jis text .*--encoding cp932"):
        read(tmp_path / "a.txt", "shift_jis")


@pytest.mark.parametrize(
    ("name", "module"),
    [("a.pdf", "pypdfium2"), ("a.docx", "lxml"), ("a.html", "bs4"), ("a.xlsx", "python_calamine")],
)
def test_a_missing_extra_is_one_sentence(tmp_path: Path, name: str, module: str) -> None:
    path = tmp_path / name
    if name == "a.pdf":
        made.contract(path)
    elif name == "a.docx":
        made.word(path, lambda document: document.add_paragraph("words"))
    elif name == "a.xlsx":
        path.write_bytes(zipped("[Content_Types].xml", "xl/workbook.xml"))
    else:
        path.write_text("<p>words")
    script = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *a: None if name == {module!r} else find(name, *a)\n"
        "from sakuin import documents, errors\n"
        "try: documents.read(sys.argv[1])\n"
        "except errors.SakuinError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(path))
    assert done.stdout.endswith("reading it takes an extra: pip install 'sakuin[documents]'.\n")


def test_plain_text_needs_no_extra_and_imports_none(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# words")
    script = (
        "import sys; from sakuin import documents; documents.read(sys.argv[1])\n"
        "assert not {'pypdfium2', 'bs4', 'lxml', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.md")], check=True)


@pytest.mark.parametrize(
    "change",
    [
        {"name": 3},
        {"text": None},
        {"notes": [1]},
        {"marks": [{"start": 99}]},
        {"marks": [{"start": -1}]},
        {"marks": [{"start": 3}, {"start": 1}]},
        {"marks": [{"start": True}]},
        {"marks": [{"start": 0, "page": 0}]},
        {"marks": [{"start": 0, "heading": 7}]},
        {"marks": [{"start": 0, "colour": "red"}]},
        {"marks": [7]},
        {"marks": 7},
    ],
)
def test_a_stored_document_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    sound = Document("a", "words", (Mark(0, 1), Mark(2, 1, "b")), ("note",)).as_dict()
    assert Document.from_dict(sound).marks[1] == Mark(2, 1, "b")
    with pytest.raises(SakuinError, match="read the file again"):
        Document.from_dict({**sound, **change})
