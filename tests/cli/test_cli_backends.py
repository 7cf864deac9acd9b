"""Who runs the model: the options that say so, the same commands on both backends, and one sentence for what
cannot be."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from test_cli import FACT, QUESTION, refused, run
from test_cli_contexts import LIBRARY, Here
from test_eval_options import EVALUATIONS, ON_DEVICES, options

from sakuin.backends import catalogue

BACKENDS = ("llama.cpp", "transformers")
LOADING = [*ON_DEVICES, ("bench", "index"), ("bench", "search")]
HIDDEN = "import sys; sys.modules['xllamacpp'] = sys.modules['llama_cpp'] = None; "
"""As if neither package were installed."""


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(capsys)


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory, long_text: str) -> Path:
    """A file of some 800 tokens with the fact in it."""
    catalogue.get("smollm2")
    path = tmp_path_factory.mktemp("papers") / "paper.txt"
    path.write_text(f"{long_text[:1500]}\n\n{FACT}\n\n{long_text[1500:3000]}", encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """`--threads` sets torch's for the process, which here is that of all tests."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def without_packages(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "SAKUIN_LLAMA_LIBRARY"}
    return subprocess.run(
        [sys.executable, "-c", f"{HIDDEN}from sakuin.cli import main; main()", *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


# -- the options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", LOADING, ids=" ".join)
def test_a_backend_can_be_named_wherever_a_model_is_loaded(words: tuple[str, ...]) -> None:
    found = options(*words)
    given = [found[name].default for name in ("--backend", "--gpu-layers", "--threads")]
    assert given == ["auto", "0", None]


@pytest.mark.parametrize("backend", BACKENDS)
def test_ask_is_answered_by_the_backend_that_was_named(here: Here, paper: Path, backend: str) -> None:
    words = ["ask", str(paper), QUESTION, "--backend", backend, "--max-new-tokens", "24", "--threads", "2"]
    code, out, err = here(*words, "--dtype", "fp32", "--index", "flat", "--json")
    assert (code, err) == (0, "")
    got = json.loads(out)
    assert (got["model"], got["backend"], got["index"]) == ("smollm2", backend, "flat")
    assert "14 March 2031" in got["answer"]
    first, text = got["evidence"][0], paper.read_text(encoding="utf-8")
    assert text[first["start"] : first["end"]] == first["text"]
    assert FACT in first["text"]


def test_a_gguf_file_is_run_by_llama_cpp_and_a_person_is_told(here: Here, paper: Path) -> None:
    code, out, _ = here("ask", str(paper), QUESTION, "--max-new-tokens", "1", "--figures")
    assert code == 0
    assert "smollm2, run by llama.cpp" in out
    listed = {entry["name"]: entry["backend"] for entry in json.loads(here("models", "list", "--json")[1])}
    assert set(listed.values()) == {"llama.cpp"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_chat_goes_on_from_what_was_said(
    here: Here, paper: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{QUESTION}\nThank you.\n/quit\n"))
    code, out, err = here("chat", str(paper), "--backend", backend, "--max-new-tokens", "24", "--json")
    assert (code, err) == (0, "")
    first, second = (json.loads(line) for line in out.splitlines())
    assert "14 March 2031" in first["answer"]
    assert {first["backend"], second["backend"]} == {backend}
    assert second["reused_tokens"] >= first["tokens"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_context_is_kept_grown_asked_and_taken_elsewhere(
    here: Here, paper: Path, backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(LIBRARY, str(tmp_path / "library"))
    by = ("--backend", backend, "--json")

    def said(*words: str) -> Any:
        code, out, err = here(*words)
        assert (code, err) == (0, ""), words
        return json.loads(out)

    added = said("contexts", "add", "paper", str(paper), "--kv-dtype", "int8", *by)
    assert (added["backend"], added["reused_tokens"]) == (backend, 0)
    more = tmp_path / "more.txt"
    more.write_text("\n\nThere is soup on Mondays.\n")
    grown = said("contexts", "append", "paper", str(more), *by)
    assert (grown["backend"], grown["tokens"]) == (backend, added["tokens"] + grown["appended"])
    file = tmp_path / "paper.sakuin"
    said("contexts", "export", "paper", str(file), "--json")
    said("contexts", "rm", "paper", "--json")
    said("contexts", "import", str(file), "taken", "--json")
    assert said("contexts", "verify", "--json")["damage"] == {"taken": []}
    asked = said("contexts", "ask", "taken", QUESTION, "--offload", "disk", "--max-new-tokens", "24", *by)
    assert (asked["backend"], asked["model"]) == (backend, "smollm2")
    assert "14 March 2031" in asked["answer"]
    assert asked["reused_tokens"] == grown["tokens"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_trace_is_captured_and_measured(here: Here, backend: str) -> None:
    code, out, err = here("bench", "index", "--length", "1600", "--backend", backend, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["trace"]["backend"] == backend


# -- what cannot be ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--backend", "vllm"], "backend must be auto or transformers or llama.cpp, got 'vllm'"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--gpu-layers", "many"], "--gpu-layers must be a number of layers or all, got 'many'"),
        (["--gpu-layers", "-1"], "--gpu-layers must be a number of layers or all, got '-1'"),
        (
            ["--gpu-layers", "all", "--backend", "transformers"],
            "--gpu-layers all is for llama.cpp, and smollm2 is run by transformers (asked for)",
        ),
        (["--gpu-layers", "2", "--dtype", "fp16"], "(fp16 was asked for)"),
        (["--backend", "llama.cpp", "--dtype", "fp16"], "with llama.cpp keys and values are kept in"),
        (["--backend", "llama.cpp", "--model", "some/model"], "some/model is no GGUF file"),
        (["--window", "512"], "window must be a whole number of at least 8,192 tokens"),
    ],
)
def test_settings_that_a_backend_does_not_have(here: Here, paper: Path, words: list[str], said: str) -> None:
    assert said in here.refused("ask", str(paper), QUESTION, *words)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_evaluations_refuse_before_anything_is_written(here: Here, name: str, tmp_path: Path) -> None:
    words = ["eval", name, "--out", str(tmp_path / "out"), "--model", "some/model"]
    assert "is no GGUF file" in here.refused(*words, "--backend", "llama.cpp")
    assert "is for llama.cpp" in here.refused(*words, "--gpu-layers", "all")
    assert not (tmp_path / "out").exists()


def no_model(path: Path, kind: str) -> Path:
    """A file that is no model to ask."""
    if kind == "text":
        path.write_text("This is not a model.")
    elif kind == "cut":
        with catalogue.get("smollm2").open("rb") as whole:
            path.write_bytes(whole.read(5 << 20))
    else:
        writer = GGUFWriter(path, kind)
        writer.add_block_count(1)
        writer.add_tensor("token_embd.weight", np.ones((8, 8), np.float32))
        for step in ("header_to_file", "kv_data_to_file", "tensors_to_file"):
            getattr(writer, f"write_{step}")()
        writer.close()
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("text", "not a GGUF file"),
        ("cut", "cut off"),
        ("bert", "writes none"),
        ("no-such-architecture", "no-such-architecture"),
    ],
)
@pytest.mark.parametrize(
    "words", [("ask", "PAPER", "Why?"), ("contexts", "add", "it", "PAPER")], ids=" ".join
)
def test_files_that_cannot_be_asked(
    here: Here,
    paper: Path,
    kind: str,
    said: str,
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv(LIBRARY, str(tmp_path / "library"))
    path = no_model(tmp_path / "model.gguf", kind)
    given = [str(paper) if word == "PAPER" else word for word in words]
    found = here.refused(*given, "--model", str(path))
    assert said in found
    assert not list((tmp_path / "library").glob("contexts/*"))


# -- where there is no llama.cpp -----------------------------------------------------------------------------


def test_without_llama_cpp_all_else_works_and_one_sentence_says_what_to_install(paper: Path) -> None:
    install = "`pip install 'sakuin[gguf]'` installs it"
    done = without_packages("ask", str(paper), QUESTION, "--backend", "llama.cpp")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"sakuin: there is no llama.cpp on this machine; {install}.\n"
    listed = without_packages("models", "list")
    assert "transformers" in listed.stdout
    assert install in listed.stderr
    asked = without_packages("ask", str(paper), QUESTION, "--max-new-tokens", "24", "--json")
    assert asked.returncode == 0, asked.stderr
    got = json.loads(asked.stdout)
    assert (got["backend"], "14 March 2031" in got["answer"]) == ("transformers", True)


def test_doctor_says_which_llama_cpp_there_is() -> None:
    report = json.loads(run("doctor", "--json").stdout)
    found = report["llama_cpp"]
    assert (found["source"], found["problem"]) == ("package", None)
    assert found["library"].startswith(("xllamacpp 20", "llama-cpp-python 0."))
    assert found["ggml"].startswith("0.")
    assert all(Path(file).is_file() for file in found["files"])
    assert report["backend_gguf"] == {"backend": "llama.cpp", "why": "a GGUF file"}
    report = json.loads(without_packages("doctor", "--json").stdout)
    assert report["llama_cpp"]["library"] is None
    assert "pip install 'sakuin[gguf]'" in report["llama_cpp"]["problem"]
    assert report["backend_gguf"]["backend"] == "transformers"


DIES = """
#include <signal.h>
__attribute__((constructor)) static void die(void) { raise(SIGILL); }
"""


def test_a_library_that_cannot_be_used_is_said_and_doctor_lives(paper: Path, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere.so")
    words = ("ask", str(paper), QUESTION)
    assert f"SAKUIN_LLAMA_LIBRARY names {nowhere}" in refused(*words, SAKUIN_LLAMA_LIBRARY=nowhere)
    (tmp_path / "text.so").write_text("no library")
    assert "no 64-bit shared library" in refused(*words, SAKUIN_LLAMA_LIBRARY=str(tmp_path / "text.so"))
    native = str(sys.modules["sakuin.index._native"].__file__)
    assert "so it is no llama.cpp that sakuin can use" in refused(*words, SAKUIN_LLAMA_LIBRARY=native)
    for named in (nowhere, native):
        done = run("doctor", "--json", SAKUIN_LLAMA_LIBRARY=named)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)["llama_cpp"]
        assert found["source"] == "SAKUIN_LLAMA_LIBRARY"
        assert named in found["problem"]
    (tmp_path / "dies.c").write_text(DIES)
    deadly = tmp_path / "dies.so"
    built = ["cc", "-shared", "-fPIC", "-o", str(deadly), str(tmp_path / "dies.c")]
    subprocess.run(built, check=True)
    shown = " ".join(run("doctor", SAKUIN_LLAMA_LIBRARY=str(deadly)).stdout.split())
    assert "ends the process that loads it (SIGILL)" in shown
