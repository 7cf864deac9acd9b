"""What cannot be used in a library is passed over or said, and the rest goes on."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from stored import CONFIG, TEXT, model_of

from sakuin import Library, RetrievalConfig
from sakuin.documents import Document
from sakuin.errors import SakuinError


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """A library that holds one context, `first`."""
    library = Library(tmp_path / "library")
    library.add("first", [Document("a.txt", TEXT)], *model_of(), CONFIG)
    return library


def with_config(library: Library, config: RetrievalConfig) -> None:
    """Let the manifest of `first` state these settings."""
    stored = library.find("first")
    library.folder.write("first", replace(stored.manifest, config=config))


def test_a_part_of_another_size_is_not_taken_and_what_is_before_it_is(library: Library) -> None:
    segments = [part for part in library.find("first").manifest.parts if part.kind == "segment"]
    assert len(segments) > 3
    os.truncate(library.folder.parts.folder / segments[2].file, 100)
    second = Library(library.folder.path).add("second", [Document("a.txt", TEXT)], *model_of(), CONFIG)
    assert second.reused_tokens == segments[1].end


def test_a_context_of_a_kind_that_is_not_installed_is_listed_swept_and_refused(library: Library) -> None:
    with_config(library, RetrievalConfig(index="elsewhere", ask_kind=False))
    again = Library(library.folder.path)
    assert [entry.state for entry in again.entries()] == ["whole"]
    assert again.gc().contexts == []
    with pytest.raises(SakuinError, match=r"no index of kind 'elsewhere' here; install the package"):
        again.open("first", *model_of())
    again.remove("first")


def test_settings_that_contradict_each_other_are_refused_in_their_own_sentence(library: Library) -> None:
    with_config(library, RetrievalConfig(index="ivf", kv_dtype="int8", ask_kind=False))
    with pytest.raises(SakuinError, match=r"holds settings that cannot be: kv_dtype='int8' needs an index"):
        Library(library.folder.path).open("first", *model_of())
