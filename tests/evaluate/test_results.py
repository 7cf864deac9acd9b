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


def test_each_result_knows_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on elsewhere, or with other code, does not put its name to what was there."""
    path = tmp_path / "results.jsonl"

    def run(key: str, commit: str | None) -> Results:
        monkeypatch.setattr("sakuin.evaluate.results.machine", lambda: {"cpu": "A", "commit": commit})
        results = Results(path, ABOUT)
        if key not in results:
            results.add(key, 1)
        return results

    run("a", "one").add("b", 2)
    run("c", "two")
    later = run("c", "three")
    assert later.machine() == {}  # nothing was asked for
    assert later["a"] == 1
    assert later.machine() == {"cpu": "A", "commit": "one"}
    assert later["c"] == 1
    assert later.machine() == {"cpu": "A", "commit": "one, two"}
    assert path.read_text().count('"machine"') == 2
    assert run("d", None)["d"] == 1


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
