"""Ctrl-C while a command is still being loaded: a word, exit code 130, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HOOK = """
import importlib.abc, os, signal, sys

class Interrupts(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            os.kill(os.getpid(), getattr(signal, os.environ["INTERRUPT_BY"]))

sys.meta_path.insert(0, Interrupts())
"""
SWALLOWS = """
try:
    import sakuin_odd_within
except BaseException:
    import traceback
    traceback.print_exc()
"""
SCRIPT = "from sakuin.cli import main; main()"
"""As in the script that pip writes."""


def interrupted(
    folder: Path, at: str, words: list[str], how: tuple[str, ...] = ("-m", "sakuin"), by: str = "SIGINT"
) -> subprocess.CompletedProcess[str]:
    """A command that gets a signal when it first looks for the module `at`."""
    (folder / "sitecustomize.py").write_text(HOOK)
    (folder / "paper.txt").write_text("The contract ends on 14 March 2031.\n")
    place = {"SAKUIN_LIBRARY": str(folder / "library"), "INTERRUPT_AT": at, "INTERRUPT_BY": by}
    path = os.pathsep.join([str(folder), *sys.path[1:]])
    return subprocess.run(
        [sys.executable, *how, *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **place, "PYTHONPATH": path},
        timeout=120,
        check=False,
    )


EARLY = [
    "sakuin.backends.transformers",
    "sakuin.version",
    "sakuin.cli",
    "typer",
    "rich.console",
    "sakuin.cli.talk",
]
LATE = ["sakuin.library", "sakuin.documents", "numpy", "torch", "torch._C", "transformers"]


@pytest.mark.parametrize("at", EARLY)
@pytest.mark.parametrize("how", [("-m", "sakuin"), ("-c", SCRIPT)], ids=["module", "script"])
def test_before_a_command_begins(tmp_path: Path, at: str, how: tuple[str, ...]) -> None:
    done = interrupted(tmp_path, at, ["contexts", "list"], how)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "sakuin: Interrupted.\n")


@pytest.mark.parametrize("at", LATE)
def test_while_a_command_loads_what_it_needs(tmp_path: Path, model: str, at: str) -> None:
    words = ["contexts", "add", "one", "paper.txt", "--model", model]
    done = interrupted(tmp_path, at, words)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.startswith("sakuin: Interrupted.")
    assert done.stderr.count("\n") == 1


def test_a_module_that_passes_over_it(tmp_path: Path) -> None:
    """Some catch everything while they set themselves up, and print it."""
    (tmp_path / "sakuin_odd.py").write_text(SWALLOWS)
    (tmp_path / "sakuin_odd_within.py").write_text("")
    script = (
        "from sakuin.cli import main, errors\n"
        "with errors.reports_errors(left=lambda: 'All is there.'):\n    import sakuin_odd\n"
    )
    done = interrupted(tmp_path, "sakuin_odd_within", [], ("-c", script))
    assert (done.returncode, done.stderr) == (130, "sakuin: Interrupted. All is there.\n")


def test_a_program_that_imports_sakuin_is_interrupted_in_its_own_way(tmp_path: Path) -> None:
    script = "try:\n    import sakuin\nexcept KeyboardInterrupt:\n    print('mine')\n"
    done = interrupted(tmp_path, "sakuin.version", [], ("-c", script))
    assert (done.returncode, done.stdout, done.stderr) == (0, "mine\n", "")


@pytest.mark.parametrize("at", ["typer", "sakuin.library"])
def test_sigterm_ends_it_by_the_signal(tmp_path: Path, at: str) -> None:
    done = interrupted(tmp_path, at, ["contexts", "list"], by="SIGTERM")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "", "")
