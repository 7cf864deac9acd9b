"""Results of an evaluation survive an interruption, and are not mixed with those of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from sakuin.errors import SakuinError
from sakuin.evaluate.results import Results

ABOUT = {"evaluation": "test", "lengths": (1, 2)}


def test_what_was_added_is_there_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    Results(path, ABOUT).add("a", {"x": 1.5})
    again = Results(path, ABOUT)
    again.add("b", [2])
    assert (again["a"], "b" in again, "c" in again) == ({"x": 1.5}, True, False)
    assert list(Results(path, ABOUT)) == ["a", "b"]


@pytest.mark.parametrize("torn", ['{"key": "b", "res', '{"about": {"evalu'])
def test_a_torn_line_is_dropped(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "results.jsonl"
    if "about" not in torn:
        Results(path, ABOUT).add("a", 1)
    with path.open("a") as file:
        file.write(torn)
    results = Results(path, ABOUT)
    results.add("b", 2)
    assert "b" in Results(path, ABOUT)
    assert ("a" in Results(path, ABOUT)) == ("about" not in torn)


def test_another_run_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    Results(path, ABOUT)
    with pytest.raises(SakuinError, match=r"another run \(lengths \[1, 2\], now \[3\]\)"):
        Results(path, {**ABOUT, "lengths": [3]})
    path.write_text("something else\n")
    with pytest.raises(SakuinError, match="does not hold results of an evaluation"):
        Results(path, ABOUT)
    with pytest.raises(SakuinError, match="cannot be used for results"):
        Results(path / "under" / "a-file.jsonl", ABOUT)
