"""Any string can be asked whether it is a path: the answer is yes or no, never an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sakuin.storage.paths import expanded, is_file, is_folder, named, shortened

ODD = {
    "long": "What is the serial number? " * 12,
    "longer than any path": "w/" * 5000,
    "through a file": "a.txt/What?",
    "a loop": "loop",
    "a loop further on": "loop/more",
    "NUL": "What\0?",
    "a byte": "caf\udce9",
    "half a character": "\ud83d?",
    "nothing": "",
    "nobody": "~nobody-of-this-name/model",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
def test_what_is_no_path_is_none(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("words")
    Path("loop").symlink_to("loop")
    assert not is_file(text)
    assert not is_folder(text)
    assert not is_file(Path(text) / "config.json")
    assert isinstance(expanded(text), Path)
    assert len(shortened(text)) <= 120
    named(text).encode()


def test_what_this_user_may_not_see_is_none(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").write_text("words")
    os.chmod(tmp_path / "a", 0)
    try:
        # The superuser sees it all the same; nobody gets an error.
        assert is_file(tmp_path / "a" / "b.txt") == os.access(tmp_path / "a" / "b.txt", os.R_OK)
    finally:
        os.chmod(tmp_path / "a", 0o700)


def test_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    assert is_file(tmp_path / "a.txt")
    assert not is_file(tmp_path)
    assert is_folder(str(tmp_path))
    assert not is_file("/dev/null")
    assert named(b"caf\xe9") == named("caf\udce9") == "caf\ufffd"
