"""Options of the command line that several commands share: the same everywhere, and what is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from test_cli_contexts import Here
from tiny import byte_tokenizer, tiny

from sakuin.cli import app
from sakuin.cli.evaluate.options import Subject
from sakuin.cli.loading import Loading

EVALUATIONS = ("fidelity", "needle", "extract", "ruler", "harness")
ON_DEVICES = [("eval", name) for name in EVALUATIONS]
ON_DEVICES += [("ask",), ("chat",), *(("contexts", name) for name in ("add", "ask", "append"))]
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def options(*words: str) -> dict[str, Any]:
    found: Any = typer.main.get_command(app)
    for word in words:
        found = found.commands[word]
    return {parameter.opts[0]: parameter for parameter in found.params if parameter.opts[0].startswith("--")}


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(capsys)


@pytest.fixture(scope="module")
def folder(smollm2_by_transformers: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with a window of 2,048 tokens."""
    path = tmp_path_factory.mktemp("models") / "small"
    tiny("llama", vocab_size=len(smollm2_by_transformers[1]), max_position_embeddings=2048).save_pretrained(
        path
    )
    smollm2_by_transformers[1].save_pretrained(path)
    return path


def test_evaluations_call_the_same_thing_by_the_same_name() -> None:
    every = {name: options("eval", name) for name in EVALUATIONS}
    for found in every.values():
        assert {"--model", "--dtype", "--device", "--window", "--out", "--json"} <= set(found)
    for name in {name for found in every.values() for name in found} - {"--tasks"}:  # RULER's, lm-eval's
        assert len({found[name].help for found in every.values() if name in found}) == 1, name


@pytest.mark.parametrize("words", ON_DEVICES, ids=" ".join)
def test_a_device_can_be_named_wherever_a_model_is_loaded(words: tuple[str, ...]) -> None:
    assert options(*words)["--device"].default == "auto"


@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_unknown_device_is_told_before_anything_is_written(here: Here, name: str, tmp_path: Path) -> None:
    said = here.refused("eval", name, "--device", "tpu", "--out", str(tmp_path / "out"))
    assert "device must be auto, cpu, cuda" in said
    assert "got 'tpu'" in said
    assert not (tmp_path / "out").exists()


@no_gpu
@pytest.mark.parametrize("words", [("eval", "extract"), ("chat",), ("ask", "PAPER", "Why?")], ids=" ".join)
def test_a_gpu_that_is_not_there_is_told(
    here: Here, words: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "paper.txt").write_text("It ends soon.")
    given = [str(tmp_path / "paper.txt") if word == "PAPER" else word for word in words]
    more = ["--out", str(tmp_path)] if words[0] == "eval" else []
    said = here.refused(*given, *more, "--model", str(folder), "--device", "cuda")
    assert "device 'cuda' needs a GPU, and torch sees none here: take cpu or auto" in said


def test_a_command_repeats_what_was_asked_for_and_no_more() -> None:
    plain = Subject.of("some/model", Loading("fp32"))
    assert plain.words() == {"--model": "some/model", "--dtype": "fp32"}
    assert (plain.name, plain.folder(Path("out"), "needle", "-2")) == (
        "some/model",
        Path("out/needle-model-2"),
    )
    other = Subject.of("some/model", Loading("bf16", "cpu", 4096))
    assert other.words() == {
        "--model": "some/model",
        "--dtype": "bf16",
        "--window": "4096",
        "--device": "cpu",
    }
    assert other.folder(Path("out"), "needle") == Path("out/needle-model-to-4096")
    assert (other.used, other.place, other.on_device()) == ("bf16", "cpu", {})


def test_what_auto_means_is_part_of_what_results_belong_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same words on a machine with a GPU do not go on with a CPU's results."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    here = Subject.of("m", Loading())
    assert (here.place, here.on_device()) == ("cpu", {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    there = Subject.of("m", Loading())
    assert (there.used, there.place, there.on_device()) == ("bf16", "cuda", {"device": "cuda"})


def test_other_weights_under_the_same_name_are_other_results() -> None:
    tokenizer, subject = byte_tokenizer(), Subject.of("m", Loading("fp32", "cpu"))
    marks = [subject.marks(tiny("llama", initializer_range=x), tokenizer) for x in (0.2, 0.2, 0.3)]
    assert marks[0] == marks[1] != marks[2]


def test_extraction_reads_past_the_window_and_goes_on(here: Here, folder: Path, tmp_path: Path) -> None:
    words = ["eval", "extract", "--model", str(folder), "--dtype", "fp32", "--device", "cpu"]
    words += ["--configurations", "flat", "--lengths", "2048", "--out", str(tmp_path)]
    assert f"this model reads {2048:,}" in here.refused(*words)
    words += ["--window", "4096"]
    code, out, err = here(*words, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert [score["configuration"] for score in report["configurations"]] == ["full", "flat"]
    assert (report["dtype"], report["device"]) == ("fp32", "cpu")
    assert "--window 4096 --device cpu" in report["command"]
    kept = tmp_path / "extract-small-to-4096" / "results.jsonl"
    held = kept.read_text()
    assert json.loads(held.splitlines()[0])["about"]["model"] == f"{folder} to 4096"
    assert held.count("\n") == 1 + 1 + 2  # what was run, the machine, and two answers
    code, out, _ = here(*words)
    assert (code, kept.read_text()) == (0, held)
    assert "Results are in" in out
