"""Wrong arguments: one clear sentence that names the argument and what was given, before any work."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stored import CONFIG, TEXT, model_of
from tiny_gguf import write

import sakuin
from sakuin import Context, Library, RetrievalConfig
from sakuin.backends.open import choose, describe, vocabulary_of
from sakuin.documents import Document
from sakuin.library import archive


@pytest.fixture(scope="module")
def context() -> Context:
    return Context.from_text(*model_of(), TEXT, CONFIG)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    library = Library(tmp_path_factory.mktemp("library"))
    library.add("one", [Document("a", TEXT)], *model_of(), CONFIG)
    return library


def refused(call: Callable[[], Any], *words: str) -> None:
    """It is refused in one sentence that has these words."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert "\n" not in said
    assert len(said) < 400
    # Not what Python or a library says of itself.
    assert not re.search(r"object has no attribute|NoneType|unsupported operand|positional argument", said), (
        said
    )


def model() -> Any:
    return model_of()[0]


def tokenizer() -> Any:
    return model_of()[1]


READING: list[tuple[Callable[[], Any], tuple[str, ...]]] = [
    (lambda: Context.from_text(model(), tokenizer(), 5), ("text must be a text", "got 5")),
    (lambda: Context.from_text(model(), tokenizer(), None), ("text must be", "got None")),
    (lambda: Context.from_text(model(), tokenizer(), Path("a.txt")), ("text must be", "from_files")),
    (lambda: Context.from_text(model(), tokenizer(), b"text"), ("text must be", "got b'text'")),
    (lambda: Context.from_text(tokenizer(), model(), TEXT), ("model must be", "the other way round")),
    (lambda: Context.from_text(None, None, TEXT), ("model must be a model, got None", "sakuin.load")),
    (lambda: Context.from_text("smollm2", tokenizer(), TEXT), ("model must be", "'smollm2'")),
    (lambda: Context.from_text(model(), None, TEXT), ("tokenizer must be", "got None", "sakuin.load")),
    (lambda: Context.from_text(model(), model(), TEXT), ("tokenizer must be", "got a LlamaForCausalLM")),
    (lambda: Context.from_text(model_of(), tokenizer(), TEXT), ("model must be", "got a tuple")),
    (lambda: Context.from_text(model(), tokenizer(), TEXT, "sketch"), ("config", "index='sketch'")),
    (lambda: Context.from_text(model(), tokenizer(), TEXT, {"index": "flat"}), ("config must be",)),
    (lambda: Context.from_text(model(), tokenizer(), TEXT, np.ones(3)), ("config must be",)),
    (lambda: Context.from_text(model(), tokenizer(), TEXT, CONFIG, 5), ("progress must be a function", "5")),
    (lambda: Context.from_files(model(), tokenizer(), "one string"), ("paths", "['one string']")),
    (lambda: Context.from_files(model(), tokenizer(), Path("a.txt")), ("paths must be a list",)),
    (lambda: Context.from_files(model(), tokenizer(), b"a.txt"), ("paths must be a list",)),
    (lambda: Context.from_files(model(), tokenizer(), 5), ("paths must be a list of files, got 5",)),
    (lambda: Context.from_files(model(), tokenizer(), None), ("paths must be a list", "None")),
    (lambda: Context.from_files(model(), tokenizer(), []), ("paths is empty",)),
    (lambda: Context.from_files(model(), tokenizer(), ["a", 5]), ("paths[1] must be a path", "got 5")),
    (lambda: Context.from_files(model(), tokenizer(), ["a\0b"]), ("paths[0] holds a NUL",)),
    (lambda: Context.from_files(model(), tokenizer(), ["a"], encoding=8), ("encoding must be", "got 8")),
    (lambda: Context.from_files(tokenizer(), model(), ["no such file"]), ("the other way round",)),
    (lambda: Context.from_documents(model(), tokenizer(), "text"), ("texts must be a list of Documents",)),
    (lambda: Context.from_documents(model(), tokenizer(), Document("a", "b")), ("texts", "into a list")),
    (lambda: Context.from_documents(model(), tokenizer(), ["text"]), ("texts[0] must be a Document",)),
    (lambda: Context.from_documents(model(), tokenizer(), None), ("texts must be a list", "None")),
    (lambda: Context.from_documents(model(), tokenizer(), [Document("a", 5)]), ("the text of texts[0]", "5")),
    (lambda: Context.from_documents(model(), tokenizer(), [Document(5, "a")]), ("the name of texts[0]",)),
    (lambda: Context.from_messages(model(), tokenizer(), "hello"), ("messages must be a list",)),
    (lambda: Context.from_messages(model(), tokenizer(), {"role": "user"}), ("messages must be", "list")),
    (lambda: Context.from_messages(model(), tokenizer(), ["hello"]), ("message 1 must be a dict", "'hello'")),
    (lambda: Context.from_messages(model(), tokenizer(), [{"role": 1, "content": "a"}]), ("message 1",)),
    (lambda: Context.from_messages(model(), tokenizer(), None), ("messages must be a list", "None")),
    (lambda: Context.from_documents(model(), tokenizer(), [Document("a", "b")], keeper=5), ("keeper", "5")),
    (
        lambda: Context.from_messages(model(), tokenizer(), [{"role": "user", "content": model()}]),
        ("message",),
    ),
    (lambda: Context.of_snapshot("x"), ("found must be a Snapshot", "'x'")),
    (lambda: Context.load(5, model(), tokenizer()), ("path must be a path", "got 5")),
    (lambda: Context.load("nowhere", tokenizer(), model()), ("the other way round",)),
    (lambda: Context.load("nowhere", model(), tokenizer(), "full"), ("config must be", "'full'")),
]


@pytest.mark.parametrize(("call", "words"), READING)
def test_what_is_wrong_with_reading_is_said(call: Callable[[], Any], words: tuple[str, ...]) -> None:
    refused(call, *words)


ASKING: list[tuple[Callable[[Context], Any], tuple[str, ...]]] = [
    (lambda c: c.append(5), ("text must be", "got 5", "str or a Document")),
    (lambda c: c.append(None), ("text must be", "got None")),
    (lambda c: c.append(["a"]), ("text must be",)),
    (lambda c: c.append(b"a"), ("text must be", "b'a'")),
    (lambda c: c.append(Document("a", None)), ("the text of text", "None")),
    (lambda c: c.append("a", progress="bar"), ("progress must be a function", "'bar'")),
    (lambda c: c.ask(None), ("question must be a text", "got None")),
    (lambda c: c.ask(5), ("question must be a text", "got 5")),
    (lambda c: c.ask(["why"]), ("question must be a text",)),
    (lambda c: c.ask("why", 0), ("max_new_tokens must be a whole number of at least 1", "got 0")),
    (lambda c: c.ask("why", -1), ("max_new_tokens", "got -1")),
    (lambda c: c.ask("why", 1.5), ("max_new_tokens", "got 1.5")),
    (lambda c: c.ask("why", "8"), ("max_new_tokens", "got '8'")),
    (lambda c: c.ask("why", True), ("max_new_tokens", "got True")),
    (lambda c: c.ask("why", None), ("max_new_tokens", "got None")),
    (lambda c: c.ask("why", 1, stream="out"), ("stream must be a function", "'out'")),
    (lambda c: c.ask("why", 1, temperature=-1), ("temperature", "got -1")),
    (lambda c: c.ask("why", 1, temperature="hot"), ("temperature", "got 'hot'")),
    (lambda c: c.ask("why", 1, temperature=None), ("temperature", "got None")),
    (lambda c: c.ask("why", 1, temperature=True), ("temperature", "got True")),
    (lambda c: c.ask("why", 1, temperature=float("nan")), ("temperature", "got nan")),
    (lambda c: c.ask("why", 1, top_p=0), ("top_p", "got 0")),
    (lambda c: c.ask("why", 1, top_p=1.1), ("top_p", "got 1.1")),
    (lambda c: c.ask("why", 1, top_p="all"), ("top_p", "got 'all'")),
    (lambda c: c.ask("why", 1, temperature=1, seed=0.5), ("seed must be a whole number", "got 0.5")),
    (lambda c: c.ask("why", 1, temperature=1, seed="a"), ("seed", "got 'a'")),
    (lambda c: c.ask("why", 1, temperature=1, seed=1 << 70), ("seed",)),
    (lambda c: c.chat(5), ("message must be a text", "got 5")),
    (lambda c: c.chat(" "), ("the message is empty",)),
    (lambda c: c.chat("why", 0), ("max_new_tokens", "got 0")),
    (lambda c: c.save(5), ("path must be a path", "got 5")),
    (lambda c: c.save(None), ("path must be a path", "got None")),
    (lambda c: c.save("a\0b"), ("path holds a NUL",)),
]


@pytest.mark.parametrize(("call", "words"), ASKING)
def test_what_is_wrong_with_asking_is_said(
    call: Callable[[Context], Any], words: tuple[str, ...], context: Context
) -> None:
    tokens = context.tokens
    refused(lambda: call(context), *words)
    assert context.tokens == tokens


LOADING: list[tuple[Callable[[], Any], tuple[str, ...]]] = [
    (lambda: sakuin.load(5), ("name_or_path must be a path", "got 5")),
    (lambda: sakuin.load(np.ones(2)), ("name_or_path must be",)),
    (lambda: sakuin.load(None), ("name_or_path must be", "got None")),
    (lambda: sakuin.load(b"smollm2"), ("name_or_path must be", "b'smollm2'")),
    (lambda: sakuin.load(["smollm2"]), ("name_or_path must be",)),
    (lambda: sakuin.load("a\0b"), ("name_or_path holds a NUL",)),
    (lambda: sakuin.load("x" * 5000), ("there is no model",)),
    (lambda: sakuin.load("smollm2", dtype=5), ("dtype must be", "got 5")),
    (lambda: sakuin.load("smollm2", dtype=None), ("dtype must be", "got None")),
    (lambda: sakuin.load("smollm2", dtype=["fp32"]), ("dtype must be",)),
    (lambda: sakuin.load("smollm2", dtype=torch.int32), ("dtype must be", "torch.int32")),
    (lambda: sakuin.load("smollm2", device=5), ("device must be", "5")),
    (lambda: sakuin.load("smollm2", device=None), ("device must be", "None")),
    (lambda: sakuin.load("smollm2", window=0), ("window must be", "got 0")),
    (lambda: sakuin.load("smollm2", window=-5), ("window must be", "got -5")),
    (lambda: sakuin.load("smollm2", window="long"), ("window must be", "got 'long'")),
    (lambda: sakuin.load("smollm2", window=True), ("window must be", "got True")),
    (lambda: sakuin.load("smollm2", window=9000.5), ("window must be", "got 9000.5")),
    (lambda: sakuin.load("smollm2", backend=None), ("backend must be", "got None")),
    (lambda: sakuin.load("smollm2", backend=["auto"]), ("backend must be",)),
    (lambda: sakuin.load("smollm2", gpu_layers=1.5), ("gpu_layers must be", "got 1.5")),
    (lambda: sakuin.load("smollm2", gpu_layers=None), ("gpu_layers must be", "got None")),
    (lambda: sakuin.load("smollm2", threads="all"), ("threads must be", "got 'all'")),
    (lambda: sakuin.load("smollm2", threads=True), ("threads must be", "got True")),
    (lambda: sakuin.load("smollm2", threads=-1), ("threads must be", "got -1")),
    (lambda: vocabulary_of(5), ("tokenizer must be", "got 5")),
    (lambda: vocabulary_of(None), ("tokenizer must be", "got None")),
]


@pytest.mark.parametrize(("call", "words"), LOADING)
def test_what_is_wrong_with_loading_is_said(call: Callable[[], Any], words: tuple[str, ...]) -> None:
    refused(call, *words)


KEEPING: list[tuple[Callable[[Library], Any], tuple[str, ...]]] = [
    (lambda _: Library(5), ("path must be a path", "got 5")),
    (lambda _: Library(b"x"), ("path must be a path",)),
    (lambda lib: lib.find(5), ("name must be a text", "got 5")),
    (lambda lib: lib.show(None), ("name must be a text", "got None")),
    (lambda lib: lib.open(5), ("name must be a text", "got 5")),
    (lambda lib: lib.open("one", tokenizer(), model()), ("the other way round",)),
    (lambda lib: lib.open("one", model()), ("tokenizer must be", "got None")),
    (lambda lib: lib.open("one", *model_of(), "full"), ("config must be", "'full'")),
    (lambda lib: lib.add(5, [Document("a", "b")], *model_of()), ("name must be a text", "got 5")),
    (lambda lib: lib.add("two", "text", *model_of()), ("texts must be a list",)),
    (lambda lib: lib.add("two", [], *model_of()), ("the document is empty",)),
    (lambda lib: lib.add("two", [Document("a", "b")], tokenizer(), model()), ("the other way round",)),
    (lambda lib: lib.add("two", [Document("a", "b")], *model_of(), "full"), ("config must be",)),
    (lambda lib: lib.add("two", [Document("a", "b")], *model_of(), keep_for="1d"), ("keep_for", "'1d'")),
    (lambda lib: lib.add("two", [Document("a", "b")], *model_of(), keep_for=True), ("keep_for", "True")),
    (
        lambda lib: lib.add("two", [Document("a", "b")], *model_of(), pin="yes"),
        ("pin must be True or False",),
    ),
    (lambda lib: lib.add("two", [Document("a", "b")], *model_of(), resume=1), ("resume must be True",)),
    (lambda lib: lib.append("one", 5, *model_of()), ("text must be", "got 5")),
    (lambda lib: lib.append(5, "text", *model_of()), ("name must be a text", "got 5")),
    (lambda lib: lib.save("two", 5), ("context must be a Context", "got 5")),
    (lambda lib: lib.change("one", pinned="yes"), ("pinned must be True or False",)),
    (lambda lib: lib.change("one", keep_for="1d"), ("keep_for must be", "'1d'")),
    (lambda lib: lib.change("one", keep_for=float("nan")), ("keep_for must be", "nan")),
    (lambda lib: lib.remove(5), ("name must be a text", "got 5")),
    (lambda lib: lib.is_there(5), ("name must be a text", "got 5")),
    (lambda lib: archive.export_to(lib, "one", 5), ("path must be a path", "got 5")),
    (lambda lib: archive.import_from(lib, None), ("path must be a path", "got None")),
    (lambda lib: archive.import_from(lib, "nowhere", 5), ("name must be a text", "got 5")),
    (lambda lib: lib.verify(5), ("name must be a text", "got 5")),
    (lambda lib: setattr(lib, "quota", -1), ("quota must be a whole number", "got -1")),
    (lambda lib: setattr(lib, "quota", "1 GB"), ("quota must be", "'1 GB'")),
    (lambda lib: setattr(lib, "quota", 1.5), ("quota must be", "got 1.5")),
]


@pytest.mark.parametrize(("call", "words"), KEEPING)
def test_what_is_wrong_with_keeping_is_said(
    call: Callable[[Library], Any], words: tuple[str, ...], library: Library
) -> None:
    refused(lambda: call(library), *words)
    assert [entry.name for entry in library.entries()] == ["one"]


def test_numbers_of_numpy_are_numbers(context: Context) -> None:
    config = RetrievalConfig(
        sink=np.int64(4),
        recent=np.int32(16),
        segment=np.uint16(128),
        tolerance=np.float32(0.5),
        budget=np.int8(9),
    )
    assert [type(x) for x in (config.sink, config.segment, config.tolerance, config.budget)] == [
        int,
        int,
        float,
        int,
    ]
    assert config == RetrievalConfig(sink=4, recent=16, segment=128, tolerance=0.5, budget=9)
    plain = context.ask("Who?", 2, temperature=0.5, seed=3)
    assert (
        context.ask("Who?", np.int64(2), None, np.float32(0.5), np.float64(1), np.int64(3)).text == plain.text
    )
    assert choose("some/model", threads=np.int64(2)).backend == "transformers"
    assert choose("smollm2", gpu_layers=np.int64(2)).backend == "llama.cpp"
    assert describe("smollm2", np.int64(16384)).shape.window == 16384


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sink": True}, ("sink must be a whole number", "got True")),
        ({"sink": -1}, ("sink", "got -1")),
        ({"recent": 0}, ("recent", "got 0")),
        ({"recent": np.bool_(True)}, ("recent must be a whole number",)),
        ({"recent": 512.0}, ("recent", "got 512.0")),
        ({"recent": "512"}, ("recent", "got '512'")),
        ({"segment": 100}, ("segment must be a multiple of 64",)),
        ({"segment": np.arange(3)}, ("segment must be a whole number",)),
        ({"segment": None}, ("segment", "got None")),
        ({"segment": "all"}, ("segment", "got 'all'")),
        ({"index": 5}, ("index must be one of", "got 5")),
        ({"index": ["flat"]}, ("index must be one of",)),
        ({"kv_dtype": None}, ("kv_dtype must be one of", "got None")),
        ({"kv_dtype": torch.bfloat16}, ("kv_dtype must be one of", "torch.bfloat16")),
        ({"offload": True}, ("offload must be one of", "got True")),
        ({"tolerance": "fine"}, ("tolerance", "got 'fine'")),
        ({"tolerance": np.nan}, ("tolerance", "got nan")),
        ({"tolerance": None}, ("tolerance", "got None")),
        ({"cap": np.ones(2)}, ("cap must be between 0 and 1",)),
        ({"budget": True}, ("budget must be a count", "got True")),
        ({"budget": 0}, ("budget must be a count", "got 0")),
        ({"nprobe": "all"}, ("nprobe must be a count", "got 'all'")),
        ({"estimate_rest": 1}, ("estimate_rest must be True or False", "got 1")),
        ({"options": [1]}, ("options must be a dict",)),
        ({"sketch_bits": "many"}, ("sketch_bits must be between", "got 'many'")),
    ],
)
def test_settings_that_are_none_are_refused(settings: dict[str, Any], words: tuple[str, ...]) -> None:
    refused(lambda: RetrievalConfig(**settings), *words)


def test_presets_that_are_none_are_refused() -> None:
    refused(lambda: RetrievalConfig.preset("best"), "preset must be one of", "'best'")
    refused(lambda: RetrievalConfig.preset(["fast"]), "preset must be one of")


def test_the_vocabulary_of_another_file_is_refused(tmp_path: Path) -> None:
    model, own = sakuin.load(write("qwen2", tmp_path).gguf, "fp32", backend="llama.cpp", threads=1)
    other = sakuin.load(write("gemma3", tmp_path).gguf, "fp32", backend="llama.cpp", threads=1)[1]
    refused(lambda: Context(model, other), "tokenizer must be the one of the model's file")
    refused(lambda: Context(model, tokenizer()), "tokenizer must be the one of the model's file")
    refused(lambda: Context(own, model), "model must be a model", "the other way round")
    assert Context(model, own).tokens == Context(model, None).tokens


# -- names that hold from any folder -------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["llama.cpp", "transformers"])
@pytest.mark.parametrize("form", [str, Path, "./{}".format])
def test_a_context_finds_its_model_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, form: Callable[[str], Any]
) -> None:
    monkeypatch.setenv("SAKUIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "models").mkdir()
    (tmp_path / "elsewhere").mkdir()
    path = write("qwen2", tmp_path / "models").gguf
    monkeypatch.chdir(tmp_path)
    named = form(f"models/{path.name}")
    loaded = sakuin.load(named, "fp32", backend=backend, threads=1)
    Library("library").add("one", [Document("a", TEXT)], *loaded, CONFIG)
    monkeypatch.chdir(tmp_path / "elsewhere")
    library = Library(tmp_path / "library")
    assert library.find("one").manifest.model == str(path)
    assert library.open("one").ask("Who?", max_new_tokens=1).new_tokens == 1
    # A model that was described in one folder may be loaded in another.
    monkeypatch.chdir(tmp_path)
    described = describe(named, backend=backend)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert sakuin.load(described, "fp32", threads=1)[0] is not None


def test_a_relative_name_of_an_older_context_is_read_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write("qwen2", tmp_path).gguf
    model, tokenizer = sakuin.load(path, "fp32", backend="llama.cpp", threads=1)
    model.source = path.name  # as it was kept
    library = Library(tmp_path / "library")
    library.add("old", [Document("a", TEXT)], model, tokenizer, CONFIG)
    assert library.find("old").manifest.model == path.name
    assert library.open("old").tokens > 100


def test_a_model_folder_is_kept_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = model_of()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    assert Context(*sakuin.load("model", "fp32")).backend.source == str(tmp_path / "model")
