"""Whether the text speaks of what was asked: how much an answer looks up, beside what this model looks up
where the answer is certainly there.

Models differ tenfold in how many of their heads look things up, so each is measured once, on a short text
whose facts are known. What was found is kept in the cache folder, for models that can be loaded again. Called
by `sakuin.context.context` and `.answer`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from sakuin.backends.base import Backend
from sakuin.cache.drawn import Drawn
from sakuin.config import RetrievalConfig
from sakuin.context import lookup
from sakuin.context.generate import Decoding, Pass, Passes, prefilling
from sakuin.context.lookup import Lookups
from sakuin.context.saying import Saying
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.prompts.reading import Reading
from sakuin.prompts.template import Prompt
from sakuin.storage.folders import cache_folder, make_folder
from sakuin.storage.small_files import read_json
from sakuin.storage.whole_files import write_whole

LITTLE = 0.3
"""Support below which a text seems not to speak of what was asked; docs/evidence.md has the rates of
error."""

USUAL = 0.58
"""Share of a model's scale that is support in full: in the short text that it is measured on more is looked
up than in most."""

_FORM = 2
"""Of what is kept in the cache folder: of texts, questions and what is counted."""

_TEXT = (
    "Notes of the house committee. The stairs were painted in spring, and the roof is sound. The door code "
    "of the cellar is 4519. Two families asked for a place for their bicycles. The phone number of the "
    "plumber is 6027. The trees in the yard will be cut back in autumn. The new manager of the house is "
    "Maria Tanaka. The rent of a garage is 85 euros. Somebody had left paint in the passage, and it was "
    "taken away. The ferry to the island leaves at 7:40. The summer party takes place in Norby."
)
_FACTS = (
    ("What is the door code of the cellar?", "4519"),
    ("What is the phone number of the plumber?", "6027"),
    ("Who is the new manager of the house?", "Tanaka"),
    ("How much is the rent of a garage?", "85"),
    ("When does the ferry to the island leave?", "7:40"),
    ("Where does the summer party take place?", "Norby"),
)
_ENOUGH = 3
"""Facts that a model must find for what it looks up to say something. Rounding, which differs from machine to
machine, decides over one or two of six."""
_TOKENS = 16

_measured: WeakKeyDictionary[Any, float] = WeakKeyDictionary()


def of(looked_up: float, scale: float) -> float | None:
    """Support from 0 to 1: what was looked up beside `USUAL` of `scale`; None where there is no scale."""
    return min(looked_up / (USUAL * scale), 1.0) if scale > 0 else None


class Draws:
    """What any question draws from the text of a context: measured once, and kept while the text is the same.
    May be shared by forks, and asked from several threads.

    kept : what was measured last.
    """

    def __init__(self, kept: Drawn | None = None) -> None:
        self.kept = kept

    def of(
        self, backend: Backend, prompt: Prompt, reading: Reading, cache: Any
    ) -> Callable[[], Passes[Drawn | None]]:
        """What finds it of a text that was read. It is None where a neutral question has no room, where there
        is no text, and with full attention.

        cache : holds the reading; it may be used at once, before what is returned is called.
        """
        kept = self.kept
        if backend.retrieval(cache) is None or not reading.body.strip():
            return lambda: _known(None)
        if kept is not None and kept.fits(reading.body):
            return lambda: _known(kept)
        before = backend.fork(cache)

        def drawn() -> Passes[Drawn | None]:
            retrieval = backend.retrieval(before)
            assert retrieval is not None
            retrieval.let_fail()
            mass = yield from lookup.neutral(backend, before, prompt, reading)
            if mass is not None:
                self.kept = lookup.packed(mass, reading.body)
                return self.kept
            return None

        return drawn


def _known(drawn: Drawn | None) -> Passes[Drawn | None]:
    return drawn
    yield  # nothing is to be computed


def scale_of(backend: Backend, prompt: Prompt) -> Passes[float]:
    """What this model looks up in a step where the answer is there; 0 where it does not find the answers."""
    with suppress(KeyError, TypeError):  # TypeError: a model that cannot be referred to weakly
        return _measured[backend.model]
    kept = _file(backend)
    scale = _read(kept)
    if scale is None:
        scale = yield from _measure(backend, prompt)
        if kept is not None and scale:  # none is not kept: another kernel's rounding may find it
            with suppress(SakuinError, OSError):  # a cache folder that cannot be written costs time, no more
                make_folder(kept.parent)
                write_whole(kept, json.dumps({"form": _FORM, "scale": scale}).encode())
    with suppress(TypeError):
        _measured[backend.model] = scale
    return scale


def _measure(backend: Backend, prompt: Prompt) -> Passes[float]:
    reading = Reading(lead=prompt.head).with_document(Document("", _TEXT)).grown(prompt)
    window = backend.shape.window
    if window is not None and len(reading.ids) + 4 * _TOKENS > window:
        return 0.0
    cache = backend.new_cache(RetrievalConfig())
    yield from prefilling(backend, cache, reading.ids)
    drawn = yield from lookup.neutral(backend, backend.fork(cache), prompt, reading)
    if drawn is None:
        return 0.0
    found: list[float] = []
    for i, fact in enumerate(_FACTS):
        if len(found) + len(_FACTS) - i < _ENOUGH:
            return 0.0
        looked_up = yield from _answered(backend, backend.fork(cache), prompt, reading, fact, drawn)
        if looked_up is not None:
            found.append(looked_up)
    return median(found) if len(found) >= _ENOUGH else 0.0


def _answered(
    backend: Backend, cache: Any, prompt: Prompt, reading: Reading, fact: tuple[str, str], drawn: Tensor
) -> Passes[float | None]:
    """What is looked up to answer the question of `fact`; None where its value is not in the answer."""
    question, value = fact
    asked = prompt.question(reading.waiting, question, reading.lead)
    yield from prefilling(backend, cache, asked.ids[:-1])
    lookups, saying = Lookups(backend.retrieval(cache), len(drawn)), Saying(prompt, None)
    decoding = Decoding(backend, asked.ids[-1])
    for _ in range(_TOKENS):
        logits = yield Pass(cache, decoding.newest, decodes=True)
        lookups.note()
        if saying.add(decoding.choose(logits)):
            break
    return lookups.most(drawn) if value in saying.text else None


def _file(backend: Backend) -> Path | None:
    """Where the scale of a model is kept that can be loaded again; None for others."""
    if not backend.source:
        return None
    try:
        return cache_folder() / "support" / f"{backend.fingerprint().digest[:24]}.json"
    except SakuinError:  # a file that was changed since it was loaded
        return None


def _read(path: Path | None) -> float | None:
    """The scale that is kept; None where there is none, or it was measured in another form."""
    if path is None:
        return None
    try:
        said = read_json(path)
        scale = float(said["scale"]) if said["form"] == _FORM else -1.0
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return scale if 0 <= scale < float("inf") else None
