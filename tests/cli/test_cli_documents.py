"""`sakuin documents` and `sakuin contexts text`: a person sees the text as it was read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made
import pytest
from stored import model_of

from sakuin import Library
from sakuin.cli import app
from sakuin.config import RetrievalConfig
from sakuin.context.context import Context
from sakuin.documents import Document

Capture = pytest.CaptureFixture[str]


def called(capsys: Capture, *words: str) -> tuple[int, str, str]:
    code = app(list(words), prog_name="sakuin", standalone_mode=False)
    said = capsys.readouterr()
    return int(code or 0), said.out, said.err


def lease(document: Any) -> None:
    document.add_heading("Lease", 1)
    document.add_paragraph("The rent is ").add_run("900").font.strike = True


def test_the_text_of_files_is_shown_as_it_is_read(tmp_path: Path, capsys: Capture) -> None:
    word = made.word(tmp_path / "lease.docx", lease)
    (tmp_path / "memo.txt").write_bytes("caf\xe9 \x1b[2Jopen\r\n".encode("cp1252"))
    code, out, err = called(capsys, "documents", str(word))
    assert (code, out) == (0, "# Lease\n\nThe rent is ~~900~~\n")
    assert "1 passage struck out" in " ".join(err.split())
    code, out, _ = called(capsys, "documents", str(word), str(tmp_path / "memo.txt"), "--encoding", "cp1252")
    assert code == 0
    assert out == (
        f"==> {word} <==\n# Lease\n\nThe rent is ~~900~~\n\n==> {tmp_path / 'memo.txt'} <==\ncaf\xe9 open\n"
    )


def test_documents_as_json_have_their_marks_and_notes(tmp_path: Path, capsys: Capture) -> None:
    word = made.word(tmp_path / "lease.docx", lease)
    (one,) = json.loads(called(capsys, "documents", str(word), "--json")[1])["documents"]
    assert one["text"] == "# Lease\n\nThe rent is ~~900~~"
    assert one["marks"] == [{"start": 0, "page": None, "heading": "Lease"}]
    assert "struck out" in one["notes"][0]


def test_a_file_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = called(capsys, "documents", "none.txt")
    assert (code, out) == (2, "")
    assert err == "sakuin: there is no file none.txt; check the path.\n"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([""], "there is no file of an empty name (''); name the one to read."),
        ([" "], "there is no file of a blank name (' '); name the one to read."),
        (["-", "-"], "standard input (-) can be read once only; name it once."),
    ],
)
def test_names_that_name_nothing_are_one_sentence(names: list[str], said: str, capsys: Capture) -> None:
    assert called(capsys, "documents", *names) == (2, "", f"sakuin: {said}\n")


def test_the_text_of_a_stored_context_is_shown_document_by_document(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAKUIN_LIBRARY", str(tmp_path / "library"))
    model, tokenizer = model_of()
    texts = [Document("a.txt", "The jay jumps.\n"), Document("b.docx", "~~Old.~~ New.", (), ("b has 1.",))]
    Library().save("both", Context.from_documents(model, tokenizer, texts, RetrievalConfig(index="flat")))
    code, out, err = called(capsys, "contexts", "text", "both")
    assert (code, out) == (0, "==> a.txt <==\nThe jay jumps.\n\n==> b.docx <==\n~~Old.~~ New.\n")
    assert "b has 1." in err
    found = json.loads(called(capsys, "contexts", "text", "both", "--json")[1])["documents"]
    assert [Document.from_dict(one) for one in found] == texts
