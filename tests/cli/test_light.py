"""Commands that read small files load neither torch nor a model library: they answer at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stored import CONFIG, TEXT, model_of

from sakuin import Library
from sakuin.documents import Document

HEAVY = ("torch", "transformers", "numpy", "llama_cpp", "xllamacpp")
SCRIPT = (
    "import atexit, sys\n"
    f"heavy = {HEAVY!r}\n"
    "atexit.register(lambda: print([one for one in heavy if one in sys.modules], file=sys.stderr))\n"
    "from sakuin.cli import main\nmain()\n"
)
COMMANDS = [
    "--help",
    "--version",
    "contexts --help",
    "ask --help",
    "chat --help",
    "contexts list",
    "contexts list --json",
    "contexts show paper",
    "contexts show papr",
    "contexts quota",
    "contexts keep paper --pin",
    "contexts rm papr",
    "models list",
    "doctor",
    "doctor --json",
    "models get smollm",
    "contxts",
    "contexts ask papr Why?",
    "contexts ask paper Why is it so",
    "ask nosuch.txt Why?",
    "ask https://example.com/a.html Why?",
    "ask README.md What is it",
    "ask README.md Why? --index flatt",
    "ask README.md Why? --repeat-penalty 0",
    "chat --context papr",
    "contexts append papr README.md",
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("library")
    Library(folder).add("paper", [Document("a.txt", TEXT[:400])], *model_of(), CONFIG)
    return str(folder)


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_heavy_is_loaded(library: str, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command.split()],
        capture_output=True,
        text=True,
        env={**os.environ, "SAKUIN_LIBRARY": library},
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode in (0, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
