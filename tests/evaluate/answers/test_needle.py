"""Needles and extraction: what is found is counted right, full attention always runs, nothing twice."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny

from sakuin.backends import catalogue
from sakuin.backends.transformers import load as models
from sakuin.errors import SakuinError
from sakuin.evaluate.answers import extraction, needle
from sakuin.evaluate.answers.needle import Cell, Grid, tallies
from sakuin.evaluate.configurations import configurations
from sakuin.evaluate.results import Results
from sakuin.evaluate.texts.planted import technical_english
from sakuin.evaluate.texts.records import Records, as_lines, parsed

SMALL = "sink=16,recent=32,segment=128"


def test_a_model_finds_needles_by_full_and_exact_attention(smollm2: tuple[Any, Any], tmp_path: Path) -> None:
    grid = Grid((400,), (0.1, 0.5), 1, 1)
    text = technical_english()[:20_000]
    path = tmp_path / "results.jsonl"
    facts = needle.about("smollm2", "auto", grid, text)
    wanted = configurations(f"flat:{SMALL} streaming:{SMALL}")
    cells = list(needle.run(*smollm2, text, grid, wanted, Results(path, facts)))
    full, flat, none = tallies(cells)
    assert (full.configuration, full.cells, full.lost, full.gained) == ("full", 2, 0, 0)
    assert full.found == 1.0
    assert (flat.found, flat.lost) == (1.0, 0)
    assert (none.found, none.lost) == (0.0, 2)
    # More depths later: what is there stays.
    heard: list[str] = []
    more = Grid((400,), (0.1, 0.5, 0.9), 1, 1)
    again = list(needle.run(*smollm2, text, more, wanted, Results(path, facts), heard.append))
    assert [cell for cell in again if cell.depth != 0.9] == cells
    assert all("depth 0.9" in text for text in heard)


def test_a_document_that_leaves_nothing_to_an_index_is_told(smollm2: tuple[Any, Any]) -> None:
    grid, wanted = Grid((500,), (0.5,)), configurations("balanced")
    with pytest.raises(SakuinError, match=r"500 tokens leaves nothing .* 128 sink .* 512; take a larger"):
        list(needle.run(*smollm2, technical_english(), grid, wanted, Results(None, {})))


def test_answers_to_another_question_are_not_those_of_this_one(
    tmp_path: Path, smollm2: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, text, wanted = Grid((300,), (0.5,)), technical_english(), configurations(f"flat:{SMALL}")
    results = Results(tmp_path / "results.jsonl", {})
    list(needle.run(*smollm2, text, grid, wanted, results))
    monkeypatch.setattr(needle, "_ONE", "Which magic number belongs to the {what}?")
    list(needle.run(*smollm2, text, grid, wanted, results))
    assert len(results) == 2 * 2


def test_tallies_count_what_is_lost_and_gained() -> None:
    cells = [
        Cell(100, depth, 0, 3, name, "", list(found), 0.1)
        for name, finds in (("full", ("abc", "ab", "")), ("ours", ("abc", "ac", "b")))
        for depth, found in zip((0.0, 0.5, 1.0), finds, strict=True)
    ]
    full, ours = tallies(cells)
    assert (full.found, full.solved) == (5 / 9, 2)
    assert (ours.found, ours.lost, ours.gained) == (6 / 9, 1, 2)


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"lengths": (100,), "depths": (0.5,)}, "lengths must be at least 256 tokens, got 100"),
        ({"lengths": (400,), "depths": (50.0,)}, "depths must be from 0 to 1, got 50"),
        ({"lengths": (400,), "depths": (0.5,), "needles": 99}, "1 to 16 needles, got 1 and 99"),
    ],
)
def test_wrong_grids_are_told(grid: dict[str, Any], said: str) -> None:
    with pytest.raises(SakuinError, match=said):
        Grid(**grid)


def test_haystacks_and_windows_that_are_too_short_are_told(smollm2: tuple[Any, Any]) -> None:
    for length, text, said in (
        (1000, "Hay.\n" * 20, "the haystack has 60 tokens, and 1,000 are needed"),
        (8190, technical_english(), r"this model reads 8,192; take at most 8,1"),
    ):
        with pytest.raises(SakuinError, match=said):
            list(needle.run(*smollm2, text, Grid((length,), (0.5,)), [], Results(None, {})))


def test_records_are_told_from_other_text() -> None:
    made = Records.make(5000, seed=3)
    assert len(made.records) == len(made.ends)
    for record, end in zip(made.records, made.ends, strict=True):
        sentence = made.text[:end].rstrip().rsplit("\n", 1)[1]
        assert sentence.startswith(f"Order {record['order']}: name {record['name']}, depot")
    written = "Here they are:\n" + as_lines(made.records) + "[1, 2]\n{broken\n"
    assert parsed(written) == made.records


def test_records_asked_for_by_number_are_lines_of_their_own(tmp_path: Path) -> None:
    catalogue.get("smollm2")
    facts = extraction.about("smollm2", "auto")
    results = Results(tmp_path / "results.jsonl", facts)
    wanted = configurations(f"full flat:{SMALL}")
    model = tiny("llama", vocab_size=49_152), models.describe("smollm2").tokenizer
    full, ours = extraction.run(*model, [1024], 1, wanted, results, by_number=True)
    assert len(full.answer.splitlines()) == full.records > 1
    made = Records.make(6 * 1024).records[extraction.SHOWN :]
    for line, record in zip(full.answer.splitlines(), made[: full.records], strict=True):
        assert line.startswith(f'{{"order": {record["order"]}, "name":')
    assert ours.answer == full.answer
    assert all("by number" in key for key in results)


def test_extraction_runs_full_attention_beside_others_and_nothing_twice(tmp_path: Path) -> None:
    catalogue.get("smollm2")
    model = tiny("llama", vocab_size=49_152), models.describe("smollm2").tokenizer
    path, facts = tmp_path / "results.jsonl", extraction.about("smollm2", "auto")
    wanted = configurations(f"flat:{SMALL}")
    found = list(extraction.run(*model, [1024], 1, wanted, Results(path, facts)))
    assert [each.configuration for each in found] == ["full", wanted[0].name]
    assert found[0].records > 1
    assert found[0].answer.startswith('{"order":')
    again = list(extraction.run(*model, [1024], 1, wanted, Results(path, facts)))
    assert again == found


def test_a_text_that_is_too_long_is_refused_before_any_is_read(tmp_path: Path) -> None:
    catalogue.get("smollm2")
    model = tiny("llama", vocab_size=49_152), models.describe("smollm2").tokenizer
    results = Results(tmp_path / "results.jsonl", {})
    with pytest.raises(SakuinError, match=r"a text of 5,000 tokens .* reads 4,096; take a smaller"):
        next(extraction.run(*model, [1024, 5000], 1, configurations("full"), results))
    assert len(results) == 0


def test_scores_compare_answers() -> None:
    made = Records.make(6 * 2000, seed=0)
    first, _, *rest = made.records[:6]

    def wrote(name: str, records: list[dict[str, Any]]) -> extraction.Extraction:
        return extraction.Extraction(2000, 0, name, 4, len(records), 0, as_lines(records), 0.1)

    full, ours = extraction.scores([wrote("full", rest[:3]), wrote("ours", rest[1:4])])
    assert (full.right, full.records, full.like_full, full.same) == (3, 4, 1.0, 1)
    assert (ours.right, ours.like_full, ours.same) == (3, 2 / 3, 0)
    assert json.loads(as_lines([first])) == first


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["needle", "--depths", "deep"], "--depths takes a count above 1, or numbers from 0 to 1"),
        (["extract", "--seeds", "0"], "--seeds must be at least 1, got 0"),
    ],
)
def test_wrong_words_are_told_in_a_sentence(words: list[str], said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sakuin", "eval", *words, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_the_heat_map_is_drawn(tmp_path: Path) -> None:
    from sakuin.evaluate.answers.pictures import draw_needle

    cells = [
        Cell(length, depth, 0, 1, name, "", ["12345"] * (name == "full"), 0.1)
        for length in (100, 200)
        for depth in (0.0, 0.5, 1.0)
        for name in ("full", "ours")
    ]
    png, svg = draw_needle(cells, tmp_path, "tiny")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in svg.read_bytes()
