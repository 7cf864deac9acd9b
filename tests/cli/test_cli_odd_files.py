"""Commands over odd files: an answer or one sentence, exit code 0 or 2, and never a traceback."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from odd import odd_files

from sakuin.cli import app

SAMPLE = range(7, 200, 17)
"""Of the files, twelve: of ten kinds, and of ten ways to be damaged."""


@pytest.fixture(scope="module", params=["twelve", pytest.param("all", marks=pytest.mark.slow)])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    every = odd_files(tmp_path_factory.mktemp("odd"))
    return every if request.param == "all" else [every[at] for at in SAMPLE]


def test_ask_add_append_and_chat_take_odd_files_or_say_why_not(
    files: list[Path],
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SAKUIN_LIBRARY", str(tmp_path / "library"))
    (tmp_path / "first.txt").write_text("The keys hang beside the door.")

    def command(*words: str) -> int:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Hello?\n")))
        code = int(app(list(words), prog_name="sakuin", standalone_mode=False) or 0)
        said = capsys.readouterr()
        assert code in (0, 2), said.err
        assert "Traceback" not in said.err
        assert "\x1b[31m" not in said.err + said.out
        if code == 2:
            last = said.err.splitlines()[-1]
            assert last.startswith("sakuin: "), said.err
            assert last.endswith("."), said.err
        return code

    few = ("--max-new-tokens", "2")
    code = command("contexts", "add", "grown", str(tmp_path / "first.txt"), "--model", model)
    assert code == 0
    codes = []
    for at, path in enumerate(files):
        name = str(path)
        words = (
            ("ask", name, "Where do the keys hang?", "--model", model, *few),
            ("contexts", "add", f"odd-{at}", name, "--model", model),
            ("contexts", "append", "grown", name),
            ("chat", name, "--model", model, *few),
        )
        codes.append(command(*words[at % 4]))
    assert {0, 2} == set(codes)
    assert command("ask", str(tmp_path / "nothing*"), "What?", "--model", model) == 2


def test_a_folder_and_a_pattern_are_documents_of_every_command(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAKUIN_LIBRARY", str(tmp_path / "library"))
    monkeypatch.chdir(tmp_path)
    for name in ("papers/b/notes.txt", "papers/a/notes.txt", "more/last.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"The keys of {name} hang beside the door.\n")
    (tmp_path / "papers" / "photo.png").write_bytes(b"\x89PNG")

    def command(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Hello?\n")))
        code = int(app(list(words), prog_name="sakuin", standalone_mode=False) or 0)
        said = capsys.readouterr()
        return code, said.out + said.err

    few = ("--model", model, "--max-new-tokens", "2")
    skipped = "skipped of papers: 1 file (papers/photo.png is a picture, not text)."
    for words in (
        ("ask", "papers", "Where?", *few),
        ("chat", "papers", *few),
        ("contexts", "add", "kept", "papers", "--model", model),
    ):
        code, said = command(*words)
        assert code == 0, said
        assert skipped in said
    assert command("contexts", "append", "kept", "mo*/*.txt")[0] == 0
    _, shown = command("contexts", "show", "kept")
    assert "papers/a/notes.txt, papers/b/notes.txt, more/last.txt" in " ".join(shown.split())
    code, said = command("ask", "papers/a/notes.txt", "papers", *few)
    assert code == 2
    assert "the last word must be the question, and 'papers' is a folder" in said
