"""Documents that are made to take memory or time without end, to run code or to crash: each costs a sentence.

What must not take quadratic time is long enough here that quadratic time would be hours.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import made
import pytest

from sakuin.documents import Document, kinds, limits, read, reading
from sakuin.documents.pdf import headings
from sakuin.documents.pdf.pages import Line, drop_running, lines
from sakuin.errors import SakuinError

MB = 1 << 20
NEVER = "<table>" + "<tr><td>a" * 110_000
"""A page of less than a megabyte that takes many seconds."""


def page(tmp_path: Path, html: str) -> Document:
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    return read(tmp_path / "page.html")


def swollen(tmp_path: Path, name: str, start: bytes, size: int) -> Path:
    """A Word document with one more part, of so many bytes, that packs to nearly nothing."""
    path = made.word(tmp_path / "a.docx", lambda document: document.add_paragraph("The lease ends."))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as part:
        part.write(start)
        for _ in range(size // MB):
            part.write(bytes(MB) if start[:1] != b"<" else b" " * MB)
    assert path.stat().st_size < 2 * MB
    return path


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("word/document2.bin", b"<w:document>"),
        ("word/media/image1.png", b"\xef\xbb\xbf<?xml version='1.0'?>"),
        ("customXml/item", "\ufeff<a>".encode("utf-16-le")),
        ("word/blank", b""),
    ],
)
def test_every_part_that_can_be_xml_is_counted(tmp_path: Path, name: str, start: bytes) -> None:
    with pytest.raises(SakuinError, match=r"unpacks to 6[45] MB of XML, and at most 64 MB are read"):
        read(swollen(tmp_path, name, start, 65 * MB))


def test_pictures_are_no_xml_and_have_a_limit_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = swollen(tmp_path, "word/media/image1.bmp", b"BM", 65 * MB)
    assert read(path).text == "The lease ends."


@pytest.mark.slow
def test_a_part_of_a_gigabyte_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match=r"unpacks to 1,02[45] MB, and at most 1,024 MB are read"):
        read(swollen(tmp_path, "word/media/image1.bmp", b"BM", 1024 * MB))


def test_a_main_part_of_another_name_is_read(tmp_path: Path) -> None:
    path = made.word(tmp_path / "a.docx", lambda document: document.add_paragraph("The lease ends."))
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            data = old.read(name).replace(b"word/document.xml", b"word/main.bin")
            new.writestr("word/main.bin" if name == "word/document.xml" else name, data)
    path.write_bytes(out.getvalue())
    assert "The lease ends." in read(path).text


@pytest.mark.slow
@pytest.mark.parametrize("text", ["words and ", " x", "a" * 9 + "\n"], ids=["words", "blanks", "lines"])
def test_one_text_of_sixty_megabytes_is_read_or_refused(tmp_path: Path, text: str) -> None:
    path = made.word(tmp_path / "a.docx", lambda document: document.add_paragraph("HERE"))
    whole = text * (60_000_000 // len(text))

    def swell(name: str, data: bytes) -> bytes:
        return data.replace(b"HERE", whole.encode()) if name == "word/document.xml" else data

    path.write_bytes(made.repacked(path, swell))
    assert len(read(path).text) > 28_000_000


def test_a_page_that_takes_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEAST_SECONDS", 1)
    with pytest.raises(
        SakuinError, match=r"page\.html takes more than 1 seconds to be read.*save it as text"
    ):
        page(tmp_path, NEVER)


@pytest.mark.parametrize("kind", ["html", "markdown", "word"])
def test_memory_has_a_limit_for_every_kind(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_MEMORY", 64 * MB)
    if kind == "html":
        path = tmp_path / "a.html"
        path.write_text("<p>" + "<i>a</i>" * 100_000)
    elif kind == "markdown":
        path = tmp_path / "a.md"
        path.write_text("# a\n\nb\n\n" * 50_000)
    else:
        path = made.word(tmp_path / "a.docx", lambda document: document.add_paragraph("HERE"))
        data = made.repacked(path, lambda _, data: data.replace(b"HERE", b"</w:t><w:t>" * 400_000))
        path.write_bytes(data)
    with pytest.raises(SakuinError, match="took more than 64 MB of memory"):
        read(path)


def test_a_file_of_too_many_pages_is_refused(tmp_path: Path) -> None:
    """One page, named again and again: a megabyte."""
    many = b"<</Type/Pages/Kids[%s]/Count 150000>>" % (b"3 0 R " * 150_000)
    page = made.bare_pdf(b"BT /F1 12 Tf 20 100 Td (Words by hand.) Tj ET")
    path = tmp_path / "pages.pdf"
    path.write_bytes(page.replace(b"<</Type/Pages/Kids[3 0 R]/Count 1>>", many))
    with pytest.raises(SakuinError, match=r"more than 100,000 pages, and no more are read; split it"):
        read(path)


LONG = {
    "blanks": f"<p>first{' ' * MB}last",
    "blanks in preformatted text": f"<pre>first{' ' * MB}last</pre>",
    "blanks in a text field": f"<textarea>first{' ' * MB}last</textarea>",
    "no-break spaces": f"<p>first{chr(0xA0) * MB}last",
    "comments": f"<p>first{'<!---->' * 100_000}last",
    "instructions": f"<p>first{'<?a?>' * 100_000}last",
    "scripts": f"<p>first{'<script></script>' * 100_000}last",
    "hidden elements": f"<p>first{'<i hidden>x</i>' * 100_000}last",
    "pictures": f"<p>first{'<img src=a>' * 100_000}last",
    "items of a numbered list": f"<p>first<ol>{'<li>a' * 20_000}</ol>last",
    "tables in tables": "<p>first" + "<table><tr><td>" * 30 + "<p>a<p>" * 2_000 + "</table>" * 30 + "last",
}


@pytest.mark.parametrize("html", LONG.values(), ids=LONG.keys())
def test_a_page_is_read_in_linear_time(tmp_path: Path, html: str) -> None:
    text = page(tmp_path, html).text.strip("`\n")
    assert text.startswith("first")
    assert text.endswith("last")


def test_a_file_is_told_by_its_content_in_linear_time() -> None:
    assert kinds.of(b"<" + b"a" * 4 * MB, "a.html") == "text"
    assert kinds.of(b"<!-- a -->" * 400 + b"<pond>", "a.txt") == "text"
    assert kinds.of(b"<!-- a -->" * 100 + b"<html>", "a.txt") == "html"
    assert kinds.of(b"<?xml version='1.0'?>\n<!-- <html> -->\n<!doctype HTML>", "a.txt") == "html"


def test_pages_are_joined_in_linear_time() -> None:
    word, sign = "a" * MB, "\ufffe"
    found = lines([[(f"{word} {word}{sign}b c{sign}d", 11, 400, None)]])
    assert found[0][0].text == f"{word} {word}b cd"
    many = [[Line(f"{number} of {MB}", 11, 400, 1.0 * number) for number in range(MB // 8)]]
    assert drop_running(many) == []


def test_bookmarks_are_found_in_linear_time() -> None:
    page = [Line(f"{number}. Title {number}x") for number in range(20_000)]
    marks = [[f"Title {number}x", 0, 0] for number in range(20_000)]
    assert len(headings.find([page], marks)) == 20_000
    unknown = [[f"Other {number}", 0, 0] for number in range(20_000)]
    assert headings.find([[Line("")] * 20_000 + [Line("Words")]], unknown) == {(0, 20_000): "Other 0"}


ODD = {
    "an element called as a method": "<soup>first</soup> <fn_cache>and</fn_cache> <list>last</list>",
    "a width that is no number": "<table><tr><td colspan='²'>first<td colspan='9'>last</table>",
    "a width without end": f"<table><tr><td colspan='{'9' * 5000}'>first<td>last</table>",
    "a list that begins nowhere": "<ol start='½'><li>first<li>last</ol>",
    "a heading of no rank": f"<h{'9' * 5000}>first</h{'9' * 5000}><p>last",
    "halves of characters": "<p>first &#xD83D; last",
}


@pytest.mark.parametrize("html", ODD.values(), ids=ODD.keys())
def test_what_a_page_says_of_itself_is_not_believed(tmp_path: Path, html: str) -> None:
    text = page(tmp_path, html).text
    assert "first" in text
    assert "last" in text


def test_numbers_of_lists_are_kept(tmp_path: Path) -> None:
    inner = "<ul><li>x<li>y</ul>"
    text = page(tmp_path, f"<ol start=7><li>a<li>b{inner}<li><p>c<p>d</ol><ol><li>e</ol>").text
    assert text == "7. a\n8. b\n   - x\n   - y\n9. c\n\n   d\n\n1. e"


def test_arrows_of_a_word_document_are_kept(tmp_path: Path) -> None:
    path = made.word(tmp_path / "a.docx", lambda document: document.add_paragraph("Costs ↑ by 3 %."))
    assert read(path).text == "Costs ↑ by 3 %."


def test_devices_and_pipes_without_end_are_read_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_BYTES", 3 * MB)
    with pytest.raises(SakuinError, match=r"/dev/zero holds more than 3 MB, and no more are read"):
        read("/dev/zero")
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        assert endless.stdout is not None
        with pytest.raises(SakuinError, match="holds more than 3 MB"):
            read(f"/dev/fd/{endless.stdout.fileno()}")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(endless.stdout))
        with pytest.raises(SakuinError, match="standard input holds more than 3 MB"):
            read("-")
        endless.kill()


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SakuinError, match=r"a\.txt holds more than 512 MB, and no more are read; split it"):
        read(path)


def test_a_text_of_too_many_characters_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_CHARACTERS", 1000)
    monkeypatch.setattr(limits, "MOST_CHARACTERS", 1000)
    path = tmp_path / "a.txt"
    for size in (1001, 4001):
        path.write_text("a" * size)
        with pytest.raises(SakuinError, match="holds more than 1,000 characters; split it"):
            read(path)
    path.write_text("あ" * 1000)
    assert len(read(path).text) == 1000


@pytest.mark.parametrize("path", ["a\0b.txt", "\ud800.txt", "w" * 300, "a.txt/b.txt", "loop", "", 7, None])
def test_what_is_no_path_is_told(path: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("words")
    Path("loop").symlink_to("loop")
    with pytest.raises(SakuinError, match=r"no path|cannot be read|no file"):
        read(path)  # type: ignore[arg-type]


def test_a_name_that_is_no_text_can_be_stored(tmp_path: Path) -> None:
    path = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.md"))
    path.write_text("# words")
    document = read(path)
    assert document.name == f"{tmp_path}/caf\ufffd.md"
    assert document.marks[0].heading == "words"


MODULES = (
    "bs4",
    "lxml",
    "markdownify",
    "markdown_it",
    "pypdfium2",
    "cchardet",
    "chardet",
    "html5lib",
)


def test_no_code_of_the_current_folder_is_run(tmp_path: Path) -> None:
    made.word(tmp_path / "a.docx", lambda document: document.add_paragraph("words"))
    made.contract(tmp_path / "a.pdf")
    (tmp_path / "a.html").write_text("<p>words")
    (tmp_path / "a.md").write_text("# words")
    for module in (*MODULES, "sitecustomize", "usercustomize"):
        (tmp_path / f"{module}.py").write_text(f"open('ran-{module}', 'w')\n")
    # As `python -m sakuin` does, `-c` looks for modules in the current folder first.
    script = (
        "import importlib.machinery\n"
        "from sakuin import documents\n"
        "for name in ('a.docx', 'a.pdf', 'a.html', 'a.md'): print(documents.read(name).text[:5])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    assert not [path.name for path in tmp_path.glob("ran-*") if "customize" not in path.name]


def test_a_script_without_a_guard_reads_documents(tmp_path: Path) -> None:
    made.word(tmp_path / "a.docx", lambda document: document.add_paragraph("words"))
    script = tmp_path / "script.py"
    script.write_text("from sakuin import documents\nprint(documents.read('a.docx').text)\n")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "words\n"), done.stderr


def children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_the_process_that_reads_ends_with_the_one_that_asks(tmp_path: Path, by: signal.Signals) -> None:
    (tmp_path / "never.html").write_text(NEVER)
    script = "from sakuin import documents; documents.read('never.html')"
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.PIPE) as asks:
        while not (found := children_of(asks.pid)):
            time.sleep(0.01)
            assert asks.poll() is None
        while b"child.py" not in Path(f"/proc/{found[0]}/cmdline").read_bytes():
            time.sleep(0.01)
        asks.send_signal(by)
        assert asks.wait(60) != 0
        while is_alive(found[0]):
            time.sleep(0.01)
