"""Folders and patterns are documents: sorted, what can be read of them read, the rest said."""

from __future__ import annotations

import os
from pathlib import Path

import made
import pytest

from sakuin.documents import below, read_all
from sakuin.errors import SakuinError


@pytest.fixture
def papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "papers/b/notes.txt": "second",
        "papers/a/notes.txt": "first",
        "papers/z.md": "# last",
        "papers/table.csv": "name,due\nAda,3\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "papers"


def test_a_folder_is_the_files_below_it_by_their_names(papers: Path) -> None:
    made.contract(papers / "b" / "contract.pdf")
    got = read_all(["papers"])
    assert [document.name for document in got] == [
        "papers/a/notes.txt", "papers/b/contract.pdf", "papers/b/notes.txt",
        "papers/table.csv", "papers/z.md",
    ]  # fmt: skip
    assert [document.text for document in got[::2]] == ["first", "second", "# last"]
    assert not got[0].notes
    assert [document.name for document in read_all([papers / "a", "papers/z.md"])] == [
        str(papers / "a" / "notes.txt"), "papers/z.md",
    ]  # fmt: skip


def test_what_is_skipped_is_said(papers: Path) -> None:
    (papers / ".git").mkdir()
    (papers / ".hidden").write_text("x")
    (papers / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (papers / "data.bin").write_bytes(bytes(range(256)) * 20)
    (papers / "empty.txt").touch()
    (papers / "broken.pdf").write_bytes(b"%PDF-1.7 ...")
    (papers / "scan.xlsx").write_bytes(b"PK\x03\x04 xl/workbook")
    (papers / "loop").symlink_to(papers)
    (papers / "again.txt").symlink_to(papers / "a" / "notes.txt")
    (papers / "nowhere").symlink_to("nothing")
    os.mkfifo(papers / "pipe")
    got = read_all(["papers"])
    assert [document.name for document in got] == [
        "papers/a/notes.txt", "papers/b/notes.txt", "papers/table.csv", "papers/z.md",
    ]  # fmt: skip
    (note,) = got[0].notes
    assert note.startswith("skipped of papers: 8 files (")
    for said in (
        "papers/empty.txt is empty",
        "papers/photo.png is a picture, not text",
        "papers/nowhere no such file or directory",
        "papers/pipe is no file",
        "papers/again.txt is read already",
        "papers/broken.pdf is damaged or cut short: no pages are found in it",
        "papers/data.bin is not utf-8 text",
    ):
        assert said in note
    assert note.endswith(
        "), 1 folder (papers/loop is a link to a folder that it lies in) "
        "and 2 hidden entries (papers/.git, papers/.hidden)."
    )


def test_a_pattern_is_what_it_matches(papers: Path) -> None:
    assert [document.text for document in read_all(["papers/*/notes.txt"])] == ["first", "second"]
    assert [document.name for document in read_all(["papers/**/*.t?t"])] == [
        "papers/a/notes.txt", "papers/b/notes.txt",
    ]  # fmt: skip
    assert [document.text for document in read_all(["papers/[ab]"])] == ["first", "second"]
    (papers / "odd[1].txt").write_text("brackets")
    assert [document.text for document in read_all(["papers/odd[1].txt"])] == ["brackets"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("papers/*.pdf", r"no file matches papers/\*\.pdf; check the pattern"),
        ("nothing", "there is no file nothing; check the path"),
        ("empty", "empty is a folder without files"),
        ("pictures", r"pictures holds no document that can be read \(1 file \(pictures/a.png is a picture"),
    ],
)
def test_where_there_is_nothing_to_read_it_is_one_sentence(papers: Path, path: str, said: str) -> None:
    Path("empty").mkdir()
    Path("pictures").mkdir()
    Path("pictures/a.png").write_bytes(b"\x89PNG")
    with pytest.raises(SakuinError, match=said):
        read_all([path])


def test_a_folder_that_may_not_be_read_is_said(papers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system is asked to refuse by way of `listdir`, for nothing is refused to the superuser."""
    listed = os.listdir

    def refuse(path: str) -> list[str]:
        if path.endswith(("locked", "papers/b")):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    Path("locked").mkdir()
    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(SakuinError, match="the folder locked cannot be read: Permission denied"):
        read_all(["locked"])
    assert read_all(["papers"])[0].notes == ("skipped of papers: 1 folder (papers/b/ permission denied).",)


def test_a_folder_of_too_many_files_is_refused(papers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(below, "MOST_FILES", 3)
    for path in ("papers", "papers/**"):
        with pytest.raises(SakuinError, match="holds more than 3 files; name the ones that matter"):
            read_all([path])


def test_links_in_circles_are_followed_once(papers: Path) -> None:
    """Three links of a folder to itself are 3^40 paths before the system says that it is enough."""
    for name in ("l1", "l2", "l3"):
        (papers / name).symlink_to(".")
    with pytest.raises(SakuinError, match=r"no file matches papers/\*\*/\*.rst; check the pattern"):
        read_all(["papers/**/*.rst"])
    with pytest.raises(SakuinError, match="no file matches"):
        read_all(["/".join(["papers", *["*"] * 38, "*.rst"])])
    for path in ("papers", "papers/**/*", "papers/**", "papers/**/**/*"):
        got = read_all([path])
        assert [document.name for document in got] == [
            "papers/a/notes.txt", "papers/b/notes.txt", "papers/table.csv", "papers/z.md",
        ]  # fmt: skip
        (note,) = got[0].notes
        assert note.startswith(f"skipped of {path}: 3 folders (papers/l1 is a link to a folder that it lies")
    assert [document.name for document in read_all(["papers/l1/b/*.txt"])] == ["papers/l1/b/notes.txt"]


def test_two_links_to_each_next_folder_are_followed_once(papers: Path) -> None:
    for number in range(32):
        folder = Path(f"chain/f{number:02}")
        folder.mkdir(parents=True)
        for link in ("l1", "l2"):
            (folder / link).symlink_to(f"../f{number + 1:02}")
    Path("chain/f32").mkdir()
    Path("chain/f32/a.txt").write_text("end")
    for path in ("chain/f00", "chain/f00/**/*.txt", "/".join(["chain/f00", *["*"] * 32, "*.txt"])):
        (one,) = read_all([path])
        assert one.text == "end"
        assert one.notes[0].startswith(f"skipped of {path:.80}")
        assert ": 32 folders (" in one.notes[0]
        assert "a link to a folder that is read already" in one.notes[0]
    (one,) = read_all(["chain"])
    assert (one.name, "64 folders (" in one.notes[0]) == ("chain/f32/a.txt", True)


def test_folders_are_not_counted_as_files(papers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(below, "MOST_FILES", 4)
    for number in range(5):
        (papers / f"d{number}").mkdir()
        (papers / f".h{number}").touch()
    for path in ("papers", "papers/**", "papers/*"):
        assert read_all([path])[0].text == "first"
    monkeypatch.setattr(below, "MOST_ENTRIES", 10)
    for path in ("papers", "papers/**/*.txt"):
        with pytest.raises(SakuinError, match="leads to more than 10 files and folders to look at; name"):
            read_all([path])
