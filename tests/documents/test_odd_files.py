"""Two hundred odd files, kinds times damage times encodings times names: each is read or costs one sentence,
and of text nothing is lost without a note."""

from __future__ import annotations

from pathlib import Path

import pytest
from odd import KINDS, odd_files

from sakuin.documents import Document, parsing, read
from sakuin.documents.kinds import Kind
from sakuin.errors import SakuinError


def check(path: Path, encoding: str | None) -> bool:
    """Whether the file was read; where it was not, it must be one sentence, and what is missing in a note."""
    try:
        got = read(path, encoding)
    except SakuinError as error:
        said = str(error)
        assert said.endswith("."), said
        assert len(said) < 1200, said
        return False
    assert got.text.strip()
    got.text.encode("utf-8")  # no halves of characters
    assert Document.from_dict(got.as_dict()) == got
    data = path.read_bytes()
    if "\ufffd" in got.text:
        assert "U+FFFD" in "".join(got.notes), path
    if not data.startswith(b"PK") and b"%PDF" not in data[:9] and b"<" not in data[:9]:
        _check_kept(data, got)
    return True


def _check_kept(data: bytes, got: Document) -> None:
    """All letters of a text that is ASCII but for a few bytes are there, whatever became of the rest."""
    plain = data.decode("ascii", "ignore") if b"\0" not in data[:200] else ""
    words = {word for word in plain.split() if word.isalnum() and word.isascii() and len(word) > 3}
    missing = [word for word in words if word not in got.text]
    assert len(missing) <= 0.05 * len(words) or "guess" in "".join(got.notes), missing


def test_two_hundred_odd_files_are_read_or_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, for speed; that the other one bears whatever comes, `test_documents_hostile` shows."""
    from sakuin.documents import apart

    def parse(data: bytes, kind: Kind, name: str, encoding: str | None) -> Document:
        try:
            return parsing.parse(data, kind, name, encoding)
        except SakuinError:
            raise
        except Exception as error:
            raise SakuinError(f"{name} cannot be read ({type(error).__name__}).") from None

    monkeypatch.setattr(apart, "parse", parse)
    files = odd_files(tmp_path)
    assert sum(check(path, None) for path in files) >= 85
    texts = [
        path for at, path in enumerate(files) if KINDS[at % len(KINDS)] in ("text", "csv", "json", "log")
    ]
    assert sum(check(path, "auto") for path in texts) >= 60
