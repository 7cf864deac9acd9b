"""The benchmarks can be run: each says what it measures, helpers are not among them, old commands lead on."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = sorted(f"{path.parent.name}.{path.stem}" for path in (ROOT / "benchmarks").glob("*/*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_help_says_what_a_benchmark_measures(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    benchmark = importlib.import_module(f"benchmarks.{name}")
    with pytest.raises(SystemExit) as left:
        benchmark.main()
    assert left.value.code == 0
    assert benchmark.__doc__.splitlines()[0] in capsys.readouterr().out
    assert f"python -m benchmarks.{name}" in benchmark.__doc__


def test_what_make_bench_runs_are_the_benchmarks_alone() -> None:
    listed = [line.split(":")[0] for line in listing("--list").stdout.splitlines()]
    assert listed == NAMES
    assert len(listed) > 15
    refused = listing("common")
    assert refused.returncode == 2
    assert "there is no benchmark 'common'" in refused.stderr


def test_the_command_of_every_result_leads_to_a_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools/docs")
    today = importlib.import_module("commands").today
    assert today("python benchmarks/scaling.py --shapes d64") == (
        "python -m benchmarks.speed.scaling --shapes d64"
    )
    assert today("python benchmarks/contexts.py") == "python -m benchmarks.contexts.keeping"
    assert today("python -m benchmarks.speed.choice --isa avx2") == (
        "python -m benchmarks.speed.choice --isa avx2"
    )
    assert today("sakuin eval needle") == "sakuin eval needle"


def listing(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
