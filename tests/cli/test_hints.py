"""What a new user stumbles over costs one sentence that says what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored import CONFIG, TEXT, model_of
from test_cli_contexts import LIBRARY, Here

from sakuin import Context, Library
from sakuin.cli.doctor import _longest
from sakuin.cli.errors import sentence
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.quantities import counted, listed, meant


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Here:
    (tmp_path / "notes.txt").write_text(TEXT[:300])
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "first.txt").write_text(TEXT[:300])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(LIBRARY, str(tmp_path / "library"))
    return Here(capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "ask notes.txt What is it?",
            "there is no file What: a question of several words has to stand in "
            'quotes, `sakuin ask notes.txt "What is it?"`',
        ),
        ("ask notes.txt notes.txt Who said $5?", "`sakuin ask notes.txt notes.txt 'Who said $5?'`"),
        ("ask nosuch.txt What is it?", "there is no file nosuch.txt"),
        ("ask notes.txt nosuch.txt Why?", "there is no file nosuch.txt; check the path."),
        (
            "ask nosuch.txt What is it",
            "there is no file nosuch.txt, and a question of several words has to stand in quotes, "
            '`sakuin ask nosuch.txt "What is it"`.',
        ),
        ("ask nots.txt What is it", "there is no file nots.txt (did you mean notes.txt?), and a question"),
        ("ask nots What is it", '`sakuin ask nots "What is it"`'),
        ("ask notes.txt nosuch.txt What is it", '`sakuin ask notes.txt nosuch.txt "What is it"`'),
        (
            "ask What is it",
            "no file What: name a file first, and a question of several words has to stand in",
        ),
        ("ask What is it", '`sakuin ask FILE "What is it"`'),
        ("ask notes.text Why?", "there is no file notes.text (did you mean notes.txt?); check the path."),
        ("ask NOTE.txt Why?", "(did you mean notes.txt?)"),
        ("ask notes.txt papres/frist.txt Why?", "(did you mean papers?)"),
        ("ask papres/first.txt Why?", "(did you mean papers/first.txt?)"),
        ("ask papers/frist.txt Why?", "(did you mean papers/first.txt?)"),
        ("contexts add a nots.txt", "(did you mean notes.txt?)"),
        ("chat papr", "(did you mean papers?)"),
        ("ask note*.md Why?", "no file matches note*.md"),
        ("contexts ask notes What is it?", '`sakuin contexts ask notes "What is it?"`'),
        ("ask https://example.com/a.pdf Why?", "https://example.com/a.pdf is an address, and sakuin fetches"),
        ("ask HTTP://example.com Why?", "is an address, and sakuin fetches nothing"),
        ("ask www.example.com/a Why?", "is an address, and sakuin fetches nothing"),
        ("ask file:///etc/hosts Why?", "name the path of the file itself"),
        ("chat https://example.com/a.pdf", "is an address, and sakuin fetches nothing"),
        ("contexts add a https://example.com/a.pdf", "is an address, and sakuin fetches nothing"),
        ("ask notes.txt Why? --model https://huggingface.co/org/one/tree/main", "by its hub id: org/one"),
        ("ask notes.txt Why? --model https://example.com/one.gguf", "download the file and name that"),
        ("ask notes.txt Why? --index flatt", "got 'flatt' (did you mean flat?)"),
        ("ask notes.txt Why? --preset balancd", "got 'balancd' (did you mean balanced?)"),
        ("ask notes.txt Why? --backend lama.cpp", "got 'lama.cpp' (did you mean llama.cpp?)"),
        ("ask notes.txt Why? --backend transformers --dtype b16", "(did you mean bf16?)"),
        ("ask notes.txt Why? --backend transformers --device cuds", "(did you mean cuda?)"),
        ("ask notes.txt Why? --top-p 0.9", "give --temperature too"),
        (
            "ask notes.txt Why? --temperature -1",
            "sakuin: --temperature must be a finite number of",
        ),
        ("chat --repeat-penalty 0", "sakuin: --repeat-penalty must be a finite number above 0"),
        ("contexts ask notes Why? --stop=", "--stop is empty"),
        ("models get smollm", "'smollm' to get (did you mean smollm2?)"),
    ],
)
def test_what_was_meant_is_said(here: Here, words: str, said: str) -> None:
    assert said in here.refused(*words.split())


def test_names_of_contexts_are_hinted_at_and_lists_are_cut(here: Here) -> None:
    library = Library()
    context = Context.from_text(*model_of(), TEXT[:200], CONFIG)
    library.save("contract", context)
    assert "'contrat' in" in (said := here.refused("contexts", "show", "contrat"))
    assert "(did you mean contract?); there is contract." in said
    for i in range(9):
        library.save(f"paper{i}", context)
    said = here.refused("contexts", "ask", "nothing", "Why?")
    assert said.endswith(f"there are contract, {', '.join(f'paper{i}' for i in range(7))} and 2 more.\n")
    assert "did you mean" not in said


def test_what_is_pinned_or_unfinished_is_listed_as_it_is(here: Here) -> None:
    library = Library()
    library.save("paper", Context.from_text(*model_of(), TEXT[:200], CONFIG))
    library.change("paper", pinned=True, keep_for=30 * 86400.0)
    assert here("contexts", "list")[1].splitlines()[1].rstrip().endswith("pinned")
    library.change("paper", pinned=False)
    assert here("contexts", "list")[1].splitlines()[1].rstrip().endswith("for 30 d")

    def stop(done: int, total: int, phase: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.add("long", [Document("a.txt", TEXT)], *model_of(), CONFIG, stop)
    found = {entry.name: entry.tokens for entry in library.entries()}
    assert found.get("long", 0) == library.kept_of("long")


def test_an_empty_library_says_so(here: Here) -> None:
    code, out, err = here("contexts", "list")
    assert (code, out) == (0, "")
    assert "nothing in" in err
    assert here("contexts", "quota")[1] == "the library takes nothing yet; no quota limits it\n"
    assert here("contexts", "quota", "500MB")[1].endswith("; its quota is 0.50 GB\n")


@pytest.mark.parametrize(
    ("python", "shown"),
    [
        ("let it with --replace (replace=True), or not", "let it with --replace, or not."),
        ("load it with backend='llama.cpp'", "load it with --backend llama.cpp."),
        ("gpu_layers=3 is for llama.cpp", "--gpu-layers 3 is for llama.cpp."),
        ("or make it longer (`window`, by YaRN)", "or make it longer (--window, by YaRN)."),
        ("weights go to a GPU by `gpu_layers`", "weights go to a GPU by --gpu-layers."),
        ("read it with index='flat'", "read it with --index flat."),
        ("which offload='disk' needs", "which --offload disk needs."),
        ("top_p must be above 0, got 0", "--top-p must be above 0, got 0."),
        ("device must be cpu", "--device must be cpu."),
        ("on the CPU, so device must be cpu", "on the CPU, so --device must be cpu."),
        ("--kv-dtype stays, and so does the device", "--kv-dtype stays, and so does the device."),
        ("there is no file my_top_p.txt", "there is no file my_top_p.txt."),
        ("there is no file top_p.txt", "there is no file top_p.txt."),
    ],
)
def test_errors_name_options_and_not_arguments(python: str, shown: str) -> None:
    assert sentence(SakuinError(python)) == shown


def test_how_long_a_context_may_be_is_one_sentence() -> None:
    many = {"sketch": 740_846, "flat": 700_000, "full": 5_000}
    (_, said), (how, less) = _longest(many, 8192, 8192)
    assert said == (
        "8,192 tokens, question and answer included: the model reads no more, though memory here would hold "
        "740,846"
    )
    assert (how, less) == ("with full attention", "5,000 tokens: memory here holds no more")
    assert "the model would read 1,000,000 tokens" in next(_longest(many, 1_000_000, None))[1]
    assert "states no window" in next(_longest(many, None, None))[1]


def test_one_is_one_and_many_are_many() -> None:
    assert [counted(n, "file") for n in (0, 1, 1200)] == ["0 files", "1 file", "1,200 files"]
    assert listed("abcdefgh") == "a, b, c, d, e, f, g, h"
    assert listed("abcdefghij") == "a, b, c, d, e, f, g, h and 2 more"
    assert meant("PAPER", ["paper", "other"]) == " (did you mean paper?)"
    assert meant("nothing", ["paper"]) == meant("", []) == ""
