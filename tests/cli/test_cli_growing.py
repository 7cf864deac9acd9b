"""`sakuin contexts add`, `append` and `drop` with files as people have them: nothing is mixed, all said."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stored import MORE, TEXT, model_of
from tiny import BYTES, byte_tokenizer, tiny

from sakuin import Library
from sakuin.cli import app
from sakuin.errors import SakuinError

FIRST = TEXT[:600]


@pytest.fixture
def run(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Commands of `sakuin contexts` in this process, in a folder with `a.txt`, of which `one` is made."""
    monkeypatch.setenv("SAKUIN_LIBRARY", str(tmp_path / "library"))
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text(FIRST)

    def call(*words: str, data: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data.encode())))
        code = app(["contexts", *words], prog_name="sakuin", standalone_mode=False)
        said = capsys.readouterr()
        return int(code or 0), said.out, said.err

    assert call("add", "one", "a.txt", "--model", model, "--dtype", "fp32")[0] == 0
    return call


def held() -> list[tuple[str, str]]:
    return [(one.name, one.text) for one in Library().open("one", *model_of()).documents]


def test_standard_input_is_a_document_each_time(run: Callable[..., tuple[int, str, str]]) -> None:
    for data in ("no line end", "a second piece"):
        assert run("append", "one", "-", data=data)[0] == 0
    code, out, err = run("append", "one", "-", data="a second piece")
    assert (code, out) == (0, "")
    assert "nothing new in standard input (2): one holds all of it already.\n" in err
    assert held()[1:] == [("standard input", "no line end"), ("standard input (2)", "a second piece")]


def test_several_files_are_appended_each_as_it_is(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    Path("b.txt").write_text(MORE)
    Path("a.txt").write_text(FIRST + "More.\n")
    code, out, _ = run("append", "one", str(tmp_path / "a.txt"), "b.txt", "./b.txt", "--json")
    said = json.loads(out)
    assert [(one["name"], one["what"]) for one in said["documents"]] == [("a.txt", "grown"), ("b.txt", "new")]
    assert said["tokens_read"] < len(MORE) + 100
    assert held() == [("a.txt", FIRST + "More.\n"), ("b.txt", MORE)]
    Path("b.txt").write_text("Changed.\n")
    code, out, err = run("append", "one", "a.txt", "b.txt")
    assert (code, out) == (2, "")
    assert "b.txt was changed" in err
    assert "(it differs from line 1 on); --replace lets the new text take" in err
    assert "=True" not in err
    # What the sentence offers is there.
    assert "--follow" in err
    assert "`sakuin contexts append NAME - < FILE`" in err
    code, out, err = run("append", "one", "a.txt", "b.txt", "--replace")
    assert "nothing new in a.txt" in err
    assert out.startswith("one: b.txt replaced; ")
    assert held()[1] == ("b.txt", "Changed.\n")
    refused = run("append", "one", "b.txt", "--replace", "--follow")[2]
    assert "leave one out" in refused


def test_documents_are_dropped_by_name_or_file(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    Path("b.txt").write_text(MORE)
    assert run("append", "one", "b.txt")[0] == 0
    assert "holds no document 'c'; it holds a.txt, b.txt" in run("drop", "one", "c")[2]
    assert "would be left" in run("drop", "one", "a.txt", "b.txt")[2]
    out = run("drop", "one", str(tmp_path / "a.txt"))[1]
    assert out.startswith("one: a.txt removed; ")
    assert "read anew" in out
    assert held() == [("b.txt", MORE)]
    assert json.loads(run("show", "one", "--json")[1])["documents"] == ["b.txt"]


def test_a_context_takes_the_place_of_another(run: Callable[..., tuple[int, str, str]], model: str) -> None:
    Path("b.txt").write_text(MORE)
    assert "--replace" in run("add", "one", "b.txt", "--model", model)[2]
    assert (
        run("add", "one", "b.txt", "--model", model, "--dtype", "fp32", "--replace", "--system", "Be short.")[
            0
        ]
        == 0
    )
    assert held() == [("b.txt", MORE)]
    assert "Be short." in run("show", "one")[1]
    refused = run("ask", "one", "Who?", "--system", "Be long.")[2]
    assert "comes too late" in refused
    assert refused.count("\n") == 1


def test_a_nearly_full_window_is_told(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    short = tmp_path / "short"
    tiny("llama", vocab_size=BYTES, max_position_embeddings=1024).save_pretrained(short)
    byte_tokenizer().save_pretrained(short)
    code, _, err = run("add", "two", "a.txt", "--model", str(short))
    assert code == 0
    assert "of the 1,024 tokens that its model reads, so only " in err
    Path("a.txt").write_text(TEXT)
    code, _, err = run("add", "three", "a.txt", "--model", str(short))
    assert code == 2
    assert "split it into several contexts" in err
    assert "window`" not in err
    assert "fit: " in err
    code, _, err = run("append", "two", "a.txt")
    assert (code, "split it into several" in err) == (2, True)
    assert "reads, so only" not in run("append", "one", "a.txt")[2]


def test_an_interrupted_replacement_leaves_the_old_one(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sakuin.cli.contexts import add

    monkeypatch.setattr(Library, "kept_of", lambda self, name: 1024)
    said: Any = add._left_of("one", None, replace=True)
    assert said.startswith("one is what it was; 1,024 tokens")


def test_what_is_offered_of_a_name_that_is_taken_exists(run: Callable[..., tuple[int, str, str]]) -> None:
    assert run("export", "one", "one.skn")[0] == 0
    code, _, err = run("import", "one.skn")
    assert code == 2
    assert "named 'one' already; give another name after the file, or remove that one first (`sakuin " in err
    assert "replace" not in err
    assert run("import", "one.skn", "two")[0] == 0
    with pytest.raises(SakuinError, match="already; take another name, or remove that one"):
        Library().check_free("one")
    err = run("add", "one", "a.txt")[2]
    assert "add to it (`sakuin contexts append`), or let this one take its place with --replace.\n" in err


def test_a_rotated_file_is_named_as_the_context_names_it(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sakuin.documents import read

    context = Library().open("one", *model_of())
    Path("a.txt").write_text("Another log.\n")
    growth = context.append_beside(read("a.txt"))
    assert [change.name for change in growth.changes] == ["a.txt (2)"]
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    (tmp_path / "a.txt").write_text("A third one.\n")
    with pytest.raises(SakuinError, match=r"^a\.txt \(2\) was changed since"):
        context.append(read("../a.txt"))
    monkeypatch.chdir(tmp_path.parent)
    growth = context.append_beside(read(f"{tmp_path.name}/a.txt"))
    assert [change.name for change in growth.changes] == ["a.txt (3)"]
    context.remove("a.txt")
    (tmp_path / "a.txt").write_text("A fourth one.\n")
    growth = context.append_beside(read(f"{tmp_path.name}/a.txt"))
    assert [change.name for change in growth.changes] == ["a.txt"]
