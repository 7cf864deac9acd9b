"""Every causal type of the installed transformers: with a RetrievalCache it agrees with eager attention, or
is refused at the start with the reason; with every other cache it is what it is without sakuin."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sweep import PAGE, page
from tiny_types import NOT_MADE, TYPES


@pytest.fixture(scope="module")
def outcomes():
    """What became of each type, tried in processes of their own."""
    sweep = [sys.executable, str(Path(__file__).with_name("sweep.py"))]
    run = subprocess.run(
        sweep, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("model_type", [each for each in TYPES if each not in NOT_MADE])
def test_a_type_agrees_or_is_refused_at_the_start(outcomes, model_type):
    (found,) = [each for each in outcomes if each["type"] == model_type]
    assert found["others"] == []
    assert found["retrieval"] in ("agrees", "refused"), found["why"]


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_the_page_says_what_became_of_each(outcomes):
    assert PAGE.read_text(encoding="utf-8") == page(outcomes)


def test_the_page_has_every_type():
    rows = re.findall(r"^\| `(.+?)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == sorted(TYPES)
