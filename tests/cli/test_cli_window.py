"""A longer window, by YaRN: contexts that are stored with it are opened with it, by either backend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stored import CONFIG, TEXT
from test_cli_contexts import LIBRARY, Here
from tiny_gguf import write

from sakuin import Context, Library, load
from sakuin.backends.llama_cpp import locate
from sakuin.errors import SakuinError

OWN = 4096
LONG = (TEXT * 6)[:8000]


@pytest.fixture(
    params=[
        "transformers",
        pytest.param("llama.cpp", marks=pytest.mark.skipif(locate.find() is None, reason="no llama.cpp")),
    ]
)
def named(request: pytest.FixtureRequest, model: str, tmp_path: Path) -> str:
    """A model of 4,096 tokens, by each backend: for a folder and for a GGUF file."""
    return model if request.param == "transformers" else str(write("qwen2", tmp_path).gguf)


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Here:
    (tmp_path / "long.txt").write_text(LONG)
    (tmp_path / "more.txt").write_text("And then the fox slept.\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(LIBRARY, str(tmp_path / "library"))
    return Here(capsys)


FEW = ("--max-new-tokens", "4")


def test_what_is_stored_with_a_longer_window_is_opened_with_it(here: Here, named: str) -> None:
    said = here.refused("contexts", "add", "long", "long.txt", "--model", named)
    assert "make this one's longer (--window, by YaRN)" in said
    code, _, err = here("contexts", "add", "long", "long.txt", "--model", named, "--window", "16384")
    assert code == 0, err
    assert json.loads(here("contexts", "show", "long", "--json")[1])["window"] == 16384
    assert "16,384 tokens, by YaRN" in here("contexts", "show", "long")[1]
    for words in (
        ("contexts", "ask", "long", "Who jumps?", *FEW),
        ("contexts", "append", "long", "more.txt"),
        ("contexts", "drop", "long", "more.txt"),
    ):
        code, _, err = here(*words)
        assert code == 0, err
    library = Library()
    assert library.open("long").tokens > OWN
    with pytest.raises(SakuinError, match="load the model with window=16384, or read the documents again"):
        library.open("long", *load(named))


def test_what_is_stored_with_the_own_window_is_opened_so(here: Here, named: str) -> None:
    for window in ((), ("--window", str(OWN))):
        code, _, err = here("contexts", "add", "short", "more.txt", "--model", named, "--replace", *window)
        assert code == 0, err
        shown = here("contexts", "show", "short")[1]
        assert "YaRN" not in shown
        assert json.loads(here("contexts", "show", "short", "--json")[1])["window"] is None
    assert here("contexts", "ask", "short", "Who slept?", *FEW)[0] == 0


def test_a_window_is_saved_by_python_and_by_chat_too(
    here: Here, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library()
    library.save("python", Context.from_text(*load(named, window=6000), TEXT, CONFIG))
    code, _, err = here("contexts", "ask", "python", "Who jumps?", *FEW)
    assert code == 0, err
    monkeypatch.setattr("sys.stdin", (library.folder.path.parent / "more.txt").open())
    code, _, err = here("chat", "more.txt", "--model", named, "--window", "6000", "--save", "talk", *FEW)
    assert code == 0, err
    assert library.find("talk").manifest.window == 6000
    assert "--window 16384 comes too late" in here.refused("chat", "--context", "talk", "--window", "16384")


def test_another_model_is_told_as_one(here: Here, named: str, tmp_path: Path) -> None:
    code, _, err = here("contexts", "add", "long", "more.txt", "--model", named, "--window", "6000")
    assert code == 0, err
    from transformers import AutoConfig

    other = tmp_path / "other"
    other.mkdir()
    from stored import model_of

    for one in model_of():
        one.save_pretrained(other)
    config = AutoConfig.from_pretrained(other)
    config.max_position_embeddings = 9000
    config.save_pretrained(other)
    said = here.refused("contexts", "ask", "long", "Why?", "--model", str(other), *FEW)
    assert "cannot be used with this model" in said
