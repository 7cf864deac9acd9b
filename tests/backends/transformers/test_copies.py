"""Copies of what forks are forks; of pickling the sentence says what to do instead."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stored import CONFIG, QUESTION, model_of, read, said
from tiny import FLAT, close, feed, full, layer_of, prefilled, tiny, tokens

import sakuin
from sakuin import Library, RetrievalConfig
from sakuin.documents import Document

COPIES: dict[str, Callable[[Any], Any]] = {"copy": copy.copy, "deepcopy": copy.deepcopy}
KEPT: dict[str, Callable[[Any], Any]] = {
    "pickle": pickle.dumps,
    "torch.save": lambda one: torch.save(one, io.BytesIO()),
}


@pytest.fixture(scope="module")
def gemma3() -> Any:
    return tiny("gemma3_text")


def index_of(kind: str) -> Any:
    keys = torch.randn(2, 640, 16, generator=torch.Generator().manual_seed(0))
    return sakuin.build_index(kind, keys, keys + 1, queries=torch.randn(4, 160, 16))


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_of_a_cache_is_a_fork(gemma3: Any, copied: str) -> None:
    cache = prefilled(gemma3, 300)
    held = COPIES[copied]({"cache": cache})["cache"] if copied == "deepcopy" else COPIES[copied](cache)
    first = (next(iter(layer_of(one).rows[0].index.blocks()))[0] for one in (cache, held))
    assert len({x.data_ptr() for x in first}) == 1  # segments are shared
    for i, one in enumerate([cache, held]):
        ids = torch.cat([tokens(300), tokens(60, seed=20 + i)], 1)
        assert close(feed(gemma3, one, ids[:, 300:], 20), full(gemma3, ids)[:, 300:])


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_of_a_context_is_a_fork(copied: str) -> None:
    context = read(config=CONFIG)
    expected = said(context)
    other = COPIES[copied](context)
    other.append("Something else. ")
    assert said(context) == expected
    assert other.tokens > context.tokens
    assert other.model is context.model


@pytest.mark.parametrize("kind", ["flat", "sketch", "ivf", "graph"])
@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_of_an_index_is_a_fork(kind: str, copied: str) -> None:
    index = index_of(kind)
    other = COPIES[copied](index)
    other.append(torch.randn(2, 64, 16), torch.randn(2, 64, 16))
    assert (index.n_tokens, other.n_tokens) == (640, 704)
    q = torch.randn(4, 1, 16)
    assert torch.equal(index.attend(q, scaling=0.25).out, COPIES[copied](index).attend(q, scaling=0.25).out)


@pytest.mark.parametrize("kept", KEPT)
def test_pickling_says_what_to_do_instead(gemma3: Any, kept: str) -> None:
    for one, words in (
        (prefilled(gemma3, 20), r"RetrievalCache cannot be pickled .*, which context\.save\(path\) keeps"),
        (read(), r"Context cannot be pickled .* context\.save\(path\).*Context\.load"),
        (index_of("sketch"), r"SketchIndex cannot be pickled .*build_index"),
    ):
        with pytest.raises(TypeError, match=words):
            KEPT[kept](one)


def test_what_is_plain_data_can_be_copied_and_pickled(tmp_path: Path) -> None:
    library = Library(tmp_path / "library")
    library.add("one", [Document("a.txt", "Some text. " * 20)], *model_of(), CONFIG)
    answer = read().ask(QUESTION, 3)
    for one in (copy.copy(library), copy.deepcopy(library), pickle.loads(pickle.dumps(library))):
        assert [entry.name for entry in one.entries()] == ["one"]
    for data in (RetrievalConfig(), answer, library.entries(), read().documents):
        assert copy.deepcopy(data) == pickle.loads(pickle.dumps(data)) == data


def test_a_copy_of_a_model_works_with_a_cache() -> None:
    model = tiny("llama")
    feed(model, sakuin.RetrievalCache(model.config, FLAT), tokens(20))
    other = copy.deepcopy(model)
    ids = tokens(100)
    assert close(feed(other, sakuin.RetrievalCache(other.config, FLAT), ids, 40), full(model, ids))
    assert pickle.loads(pickle.dumps(other)) is not None
