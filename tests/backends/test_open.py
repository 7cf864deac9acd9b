"""Which backend runs a model, and what both do alike when they describe and load one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sakuin.backends import catalogue
from sakuin.backends import open as models
from sakuin.backends.open import BACKENDS, Choice, backend_of, for_transformers
from sakuin.errors import SakuinError


@pytest.fixture(autouse=True, scope="module")
def _here() -> None:
    catalogue.get("smollm2")


@pytest.mark.parametrize(
    ("name", "settings", "chosen"),
    [
        ("smollm2", {}, Choice("llama.cpp", "a GGUF file")),
        ("smollm2", {"backend": "transformers"}, Choice("transformers", "asked for")),
        ("smollm2", {"device": "cuda:1"}, Choice("transformers", "a GPU was asked for")),
        ("smollm2", {"device": torch.device("cuda")}, Choice("transformers", "a GPU was asked for")),
        ("smollm2", {"dtype": "fp16"}, Choice("transformers", "fp16 was asked for")),
        ("smollm2", {"dtype": torch.float16}, Choice("transformers", "fp16 was asked for")),
        ("smollm2", {"gpu_layers": "all", "threads": 2}, Choice("llama.cpp", "a GGUF file")),
        ("some/model", {}, Choice("transformers", "the model is no GGUF file")),
    ],
)
def test_a_gguf_file_is_run_by_llama_cpp_where_it_can(name: str, settings: dict, chosen: Choice) -> None:
    assert models.choose(name, **settings) == chosen


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"backend": "vllm"}, "backend must be auto or transformers or llama.cpp, got 'vllm'"),
        ({"gpu_layers": -2}, "gpu_layers must be a number of layers or 'all', got -2"),
        ({"gpu_layers": True}, "gpu_layers must be"),
        ({"gpu_layers": 1, "backend": "transformers"}, "gpu_layers=1 is for llama.cpp"),
        ({"threads": 0}, "threads must be a whole number of at least 1, got 0"),
        ({"threads": 1.5}, "threads must be"),
    ],
)
def test_settings_that_are_none_are_refused_before_anything_is_read(settings: dict, said: str) -> None:
    with pytest.raises(SakuinError) as error:
        models.load("smollm2", **settings)
    assert said in str(error.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_described_is_what_is_loaded(backend: str) -> None:
    known = models.describe("smollm2", 16384, backend)
    assert (known.name, known.backend) == ("smollm2", backend)
    assert (known.shape.window, known.shape.trained_window) == (16384, 8192)
    loaded = backend_of(*models.load(known, "fp32"))
    assert (loaded.name, loaded.source) == (backend, "smollm2")
    assert (loaded.shape.window, loaded.shape.trained_window) == (16384, 8192)
    text = "The index of a book."
    assert loaded.vocabulary.encode(text) == known.vocabulary.encode(text)
    other = next(name for name in BACKENDS if name != backend)
    with pytest.raises(SakuinError, match=f"was described for {backend}; describe it for {other}"):
        models.load(known, backend=other)


def test_weights_take_what_each_backend_makes_of_them() -> None:
    size = catalogue.get("smollm2").stat().st_size
    ours, theirs = (models.describe("smollm2", backend=name) for name in ("llama.cpp", "transformers"))
    for dtype in (torch.float32, torch.bfloat16):
        assert 0.9 * size < ours.weights_nbytes(dtype) < size
        assert ours.weights_nbytes(dtype, "all") == 0 < ours.weights_nbytes(dtype, 10) < 0.7 * size
        assert theirs.weights_nbytes(dtype) == theirs.n_weights * dtype.itemsize


def test_a_tokenizer_for_programs_that_know_transformers(tmp_path: Path) -> None:
    text = "It reads <|im_start|> as it stands."
    ours = models.describe("smollm2").tokenizer
    theirs = for_transformers(ours)
    theirs.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    assert theirs(text).input_ids == ours.special(text)
    assert for_transformers(theirs) is theirs
    vocabulary = models.vocabulary_of(theirs)
    assert (ours.begin_token, ours.end_token) == (vocabulary.begin_token, vocabulary.end_token)
