"""Loading draws no bars of what is here already, in Python and in the commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stored import model_of
from tiny_gguf import write

LOAD = "import sys, sakuin\nsakuin.load(sys.argv[1], backend='transformers')\n"
# A program's own loads keep their bars.
BESIDE = LOAD + (
    "from transformers import AutoModelForCausalLM\n"
    "print('own', file=sys.stderr)\n"
    "AutoModelForCausalLM.from_pretrained(sys.argv[2])\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for one in model_of():
        one.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def said(script: str, *words: str) -> str:
    loud = {name: value for name, value in os.environ.items() if "PROGRESS_BARS" not in name}
    loud.pop("TQDM_DISABLE", None)
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, env=loud, check=True
    )
    return done.stderr


def test_nothing_is_drawn_of_a_gguf_file(tmp_path: Path, folder: str) -> None:
    ours, _, own = said(BESIDE, str(write("qwen2", tmp_path).gguf), folder).partition("own\n")
    assert ours == ""
    assert "Loading weights" in own


def test_nothing_is_drawn_of_a_folder(folder: str) -> None:
    assert said(LOAD, folder) == ""
