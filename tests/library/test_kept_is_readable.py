"""What is kept can be read again: what could not be is refused before it takes the place of anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stored import CONFIG, TEXT, model_of, read

from sakuin import Context, Library
from sakuin.cache.drawn import Drawn, digest
from sakuin.context.support import Draws
from sakuin.documents import Document, Mark
from sakuin.errors import SakuinError

LONG = TEXT[:600]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    library = Library(tmp_path / "library")
    library.add("x", [Document("first", LONG)], *model_of(), CONFIG)
    return library


@pytest.mark.parametrize("keep_for", [1e300, 1e12, 10**400, float("nan"), float("-inf")])
def test_a_time_that_no_manifest_holds_is_refused(keep_for: Any, library: Library) -> None:
    with pytest.raises(SakuinError, match="keep_for must be a number of seconds, at most"):
        library.add("y", [Document("second", LONG)], *model_of(), CONFIG, keep_for=keep_for)
    with pytest.raises(SakuinError, match="keep_for must be a number of seconds, at most"):
        library.change("x", keep_for=keep_for)
    assert [entry.state for entry in library.entries()] == ["whole"]


@pytest.mark.parametrize(
    ("keep_for", "state"), [(3e10, "whole"), (float("inf"), "whole"), (-1e300, "expired")]
)
def test_every_other_time_can_be_read_again(keep_for: float, state: str, library: Library) -> None:
    library.change("x", keep_for=keep_for)
    assert [entry.state for entry in Library(library.folder.path).entries()] == [state]


def test_clocks_that_are_far_off_spoil_nothing(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sakuin.snapshot.store.time.time", lambda: 1e13)
    with pytest.raises(SakuinError, match="cannot be kept: a time of it is none that can be written"):
        library.save("y", read(text=LONG))
    assert [entry.name for entry in Library(library.folder.path).entries()] == ["x"]


@pytest.mark.parametrize(
    "odd",
    [
        {"marks": (1,)},
        {"marks": (Mark(10), Mark(5))},
        {"marks": (Mark(10**9),)},
        {"notes": (5,)},
        {"path": Path("/a")},
        {"offset": -1},
        {"lines_before": 1.5},
    ],
    ids=str,
)
def test_a_document_that_could_not_be_read_again_is_refused(odd: dict[str, Any], library: Library) -> None:
    document = Document("odd", LONG, **odd)
    with pytest.raises(TypeError, match=r"\('odd'\) has marks, notes, a path or an offset of a wrong type"):
        Context.from_documents(*model_of(), [document], CONFIG)
    with pytest.raises(TypeError, match=r"\('odd'\) has marks, notes, a path or an offset of a wrong type"):
        library.append("x", document, *model_of())
    assert len(library.open("x", *model_of()).documents) == 1


def test_what_a_model_gives_no_numbers_for_is_measured_again(library: Library) -> None:
    context = read(text=LONG)
    context._draws = Draws(Drawn(digest(context._reading.body), [3, 4], [float("nan"), 1.0]))
    library.save("y", context)
    again = library.open("y", *model_of())
    assert again._draws.kept is None
    again.ask("Who?", max_new_tokens=2)


@pytest.mark.parametrize("temperature", [1e-320, 1e-40, 1e-12, 1e300])
def test_any_temperature_draws(temperature: float) -> None:
    context = read(text=LONG)
    said = context.ask("Who?", max_new_tokens=5, temperature=temperature, seed=1).text
    if temperature < 1:
        assert said == context.ask("Who?", max_new_tokens=5).text


@pytest.mark.parametrize("name", ["sink", "recent", "exact_above", "list_size"])
def test_a_setting_beyond_all_memory_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at most 2147483647, got 4611686018427387904"):
        CONFIG.with_changes(**{name: 2**62})
