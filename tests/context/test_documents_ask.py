"""Documents as people have them, end to end: asked of a real model, answered with page and heading."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import made
import pytest

from sakuin import Context
from sakuin.backends import catalogue
from sakuin.documents import Document, Mark, read

QUESTION = "When does the support contract with Halden end?"


def ask(*words: str) -> subprocess.CompletedProcess[str]:
    catalogue.get("smollm2")
    return subprocess.run(
        [sys.executable, "-m", "sakuin", "ask", *words, "--max-new-tokens", "24"],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "COLUMNS": "200"},
        timeout=300,
        check=False,
    )


def test_a_pdf_is_asked_and_the_answer_names_its_page_and_heading(tmp_path: Path) -> None:
    path = str(made.contract(tmp_path / "contract.pdf"))
    done = ask(path, QUESTION, "--index", "flat", "--json")
    assert done.returncode == 0, done.stderr
    got: dict[str, Any] = json.loads(done.stdout)
    assert "14 March 2031" in got["answer"]
    (found,) = (span for span in got["evidence"] if made.FACT in span["text"])
    assert (found["page"], found["heading"]) == (3, "3. Term")
    # By weight: 0.5 and 0.5 or nearly so, then 0.02 where there is a third.
    assert found in got["evidence"][:2]
    assert all(found["weight"] > 5 * one["weight"] for one in got["evidence"][2:])
    assert all(read(path).text[span["start"] : span["end"]] == span["text"] for span in got["evidence"])
    assert "repeats 'Support Agreement'" in got["notes"][0]


def test_page_heading_and_notes_are_printed(tmp_path: Path) -> None:
    path = made.pdf(
        tmp_path / "contract.pdf",
        made.lines(["The parties are Aldous Ltd and Halden."], heading="1. Parties"),
        made.lines([made.FACT, "Nothing else ends."], heading="2. Term"),
        made.picture,
    )
    done = ask(str(path), QUESTION)
    assert done.returncode == 0, done.stderr
    assert "contract.pdf, page 2" in done.stdout
    assert "2. Term" in done.stdout
    assert "page 3 of" in done.stderr
    assert "without text, a scan or pictures" in done.stderr


def test_a_context_of_files_of_several_kinds_keeps_each_ones_places(
    tmp_path: Path, either: tuple[Any, Any]
) -> None:
    def terms(document: Any) -> None:
        document.add_heading("Door codes", 1)
        document.add_paragraph("The door code of the archive is: 4182.")

    (tmp_path / "memo.md").write_text("# Menu\n\nSoup on Monday.\n", encoding="utf-8")
    paths = [
        tmp_path / "memo.md",
        made.word(tmp_path / "codes.docx", terms),
        made.contract(tmp_path / "a.pdf"),
    ]
    context = Context.from_files(*either, paths)
    found = context.ask("What is the door code of the archive?", max_new_tokens=16).evidence[0]
    assert (Path(found.file).name, found.page, found.heading) == ("codes.docx", None, "Door codes")
    assert context.documents[1].text[found.start : found.end] == found.text
    context.append(" The licence of the works is numbered: 7731.")
    assert context.documents[2].mark(len(context.documents[2].text) - 1) == Mark(
        len(read(paths[2]).text), None, None
    )


@pytest.mark.parametrize("name", ["contract.pdf", "codes.docx"])
def test_a_document_survives_json(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("pdf"):
        made.contract(path)
    else:
        made.word(path, lambda document: document.add_heading("Terms", 1))
    document = read(path)
    assert Document.from_dict(json.loads(json.dumps(document.as_dict()))) == document
