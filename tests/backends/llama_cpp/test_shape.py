"""Shapes of models from the headers of their GGUF files."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest
from tiny_gguf import ARCHITECTURES, Tiny, write
from written import TENSORS, written

from sakuin.backends import catalogue
from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.llama_cpp.library import library
from sakuin.backends.llama_cpp.shape import (
    count_weights,
    layer_kinds,
    permuted,
    rope_limit,
    rotary_dim,
    shape_of,
)
from sakuin.backends.transformers.load import describe
from sakuin.errors import SakuinError


@pytest.fixture(scope="module", params=ARCHITECTURES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return write(request.param, tmp_path_factory.mktemp("shape"))


def test_the_shape_is_that_of_the_same_model_in_transformers(made: Tiny) -> None:
    header, config = Header.read(made.gguf), made.model.config
    shape = shape_of(header)
    kinds = {"full": made.full, "sliding": made.sliding}
    for kind, layers in kinds.items():
        assert tuple(i for i, each in enumerate(shape.layers) if each == kind) == layers
    for i in set(made.recurrent) - set(made.full):
        assert shape.layers[i] in ("recurrent", "none")
    assert shape.n_query_heads == config.num_attention_heads
    assert shape.n_kv_heads == config.num_key_value_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    assert shape.head_dim == head_dim
    assert (shape.hidden, shape.vocabulary) == (config.hidden_size, made.n_words)
    assert shape.window == config.max_position_embeddings
    assert shape.sliding_window == (config.sliding_window if made.sliding else 0)
    assert shape.family == header.architecture
    assert permuted(header) == made.permuted
    rope = getattr(config, "rope_parameters", None) or {}
    assert rotary_dim(header) == int(head_dim * rope.get("partial_rotary_factor", 1))
    assert count_weights(header) == sum(p.numel() for p in made.model.parameters())


def test_llama_cpp_reads_the_same_from_the_file(made: Tiny) -> None:
    lib, header = library(), Header.read(made.gguf)
    shape = shape_of(header)
    parameters = lib.llama_model_default_params()
    parameters.n_gpu_layers = 0
    model = lib.llama_model_load_from_file(os.fsencode(made.gguf), parameters)
    assert model, lib.said()
    try:
        assert lib.llama_model_n_layer(model) == len(shape.layers)
        assert lib.llama_model_n_swa(model) == shape.sliding_window
        assert lib.llama_model_n_params(model) == sum(tensor.n_elements for tensor in header.tensors)
        assert lib.llama_model_is_hybrid(model) == bool(made.recurrent)
        if permuted(header):
            assert lib.llama_model_rope_type(model) == 0
    finally:
        lib.llama_model_free(ctypes.c_void_p(model))


@pytest.mark.parametrize("name", list(catalogue.MODELS))
def test_real_models_have_the_shape_that_transformers_sees(name: str) -> None:
    header = Header.read(catalogue.get(name))
    shape, known = shape_of(header), describe(name)
    expected = {**vars(known.shape), "family": header.architecture}
    assert vars(shape) == expected
    assert count_weights(header) == known.n_weights


def _kinds(path: Path, architecture: str, **own: Any) -> str:
    """The first letters of the kinds of layers."""
    stated = {"block_count": 6, "attention__sliding_window": 32} | own
    header = Header.read(written(path / "model.gguf", architecture, **stated))
    return "".join(kind[0] for kind in layer_kinds(header))


@pytest.mark.parametrize(
    ("architecture", "own", "expected"),
    [
        ("llama", {}, "ffffff"),
        ("qwen2", {}, "ffffff"),
        ("phi3", {}, "ffffff"),
        ("gemma2", {}, "sfsfsf"),
        ("gemma2", {"attention__sliding_window": None}, "sfsfsf"),
        ("gemma3", {}, "sssssf"),
        ("gemma3", {"attention__sliding_window": None}, "ffffff"),
        ("gemma3", {"attention__sliding_window_pattern": 3}, "ssfssf"),
        ("gemma3", {"attention__sliding_window_pattern": [True] * 2 + [False] * 4}, "ssffff"),
        ("gemma3", {"attention__sliding_window_pattern": 0}, "ssssss"),
        ("cohere2", {}, "sssfss"),
        ("cohere2moe", {}, "fsssfs"),
        ("gpt-oss", {}, "sfsfsf"),
        ("olmo2", {}, "sssfss"),
        ("olmo2", {"attention__sliding_window": 0}, "ffffff"),
        ("llama4", {"attention__sliding_window": None}, "sssfss"),
        ("llama4", {"attention__sliding_window": 0}, "ffffff"),
        ("exaone4", {}, "ffffff"),
        ("granite_swa", {"attention__sliding_window_pattern": [True, False] * 3}, "sfsfsf"),
        ("gemma4", {"attention__sliding_window_pattern": [True, False] * 3}, "sfsfsf"),
        (
            "gemma4",
            {"attention__sliding_window_pattern": [True, False] * 3, "attention__shared_kv_layers": 2},
            "sfsfnn",
        ),
        ("qwen3next", {}, "rrrfrr"),
        ("qwen35", {"full_attention_interval": 3}, "rrfrrf"),
        ("qwen35moe", {"attention__recurrent_layers": [False] + [True] * 5}, "frrrrr"),
        ("lfm2", {"attention__head_count_kv": [0, 0, 2] * 2, "attention__sliding_window": 0}, "rrfrrf"),
        ("lfm2", {"attention__head_count_kv": [0, 0, 2] * 2}, "rrsrrs"),
        ("jamba", {"attention__head_count_kv": [0, 2] * 3}, "rfrfrf"),
        ("granitehybrid", {"attention__head_count_kv": [0, 2] * 3}, "rfrfrf"),
        (
            "nemotron_h",
            {"attention__head_count_kv": [0, 0, 2] * 2, "feed_forward_length": [0, 64, 0] * 2},
            "rnfrnf",
        ),
        ("deci", {"attention__head_count_kv": [2, 0, 2] * 2}, "fnffnf"),
        ("falcon-h1", {}, "ffffff"),
        ("glm4moe", {"nextn_predict_layers": 1}, "fffff"),
        ("nanbeige", {"num_loops": 2, "block_count": 2}, "ffff"),
    ],
)
def test_which_layers_attend_to_what(
    tmp_path: Path, architecture: str, own: dict[str, Any], expected: str
) -> None:
    assert _kinds(tmp_path, architecture, **own) == expected


def test_exaone_4_has_windows_in_its_large_form_alone(tmp_path: Path) -> None:
    assert _kinds(tmp_path, "exaone4", block_count=64) == "sssf" * 16


def test_a_file_must_say_which_layers_slide_where_nothing_else_does(tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match="does not say which layers have a sliding window"):
        _kinds(tmp_path, "gemma4")


def test_windows_that_are_not_stated(tmp_path: Path) -> None:
    for architecture, stated, expected in (("gemma2", None, 4096), ("llama4", 16, 8192), ("gemma2", 16, 16)):
        path = written(tmp_path / "m.gguf", architecture, attention__sliding_window=stated)
        assert shape_of(Header.read(path)).sliding_window == expected


def test_the_heads_are_those_of_the_layers_with_an_index(tmp_path: Path) -> None:
    own = {"attention__head_count": [8, 4], "attention__head_count_kv": [1, 2], "attention__key_length": 16}
    pattern = {"attention__sliding_window": 8, "attention__sliding_window_pattern": [True, False]}
    own["attention__value_length"] = 16
    shape = shape_of(Header.read(written(tmp_path / "a.gguf", "step35", **own, **pattern)))
    assert (shape.n_query_heads, shape.n_kv_heads, shape.head_dim) == (4, 2, 16)
    with pytest.raises(SakuinError, match=r"different heads \(query on KV heads: 4 on 2, 8 on 1\)"):
        shape_of(Header.read(written(tmp_path / "b.gguf", "llama", **own)))


def test_heads_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match="4 query heads on 3 KV heads, which do not fit"):
        shape_of(Header.read(written(tmp_path / "a.gguf", attention__head_count_kv=3)))


def test_the_window_from_which_positions_are_scaled(tmp_path: Path) -> None:
    yarn = {"rope__scaling__type": "yarn", "rope__scaling__original_context_length": 1024}
    shape = shape_of(Header.read(written(tmp_path / "a.gguf", **yarn)))
    assert (shape.window, shape.trained_window) == (4096, 1024)
    shape = shape_of(Header.read(written(tmp_path / "b.gguf", rope__scaling__original_context_length=1024)))
    assert (shape.window, shape.trained_window) == (4096, 4096)
    assert rope_limit(Header.read(tmp_path / "a.gguf")) is None
    tensors = [*TENSORS, "rope_factors_long.weight", "rope_factors_short.weight"]
    own = {"rope__scaling__original_context_length": 1024}
    header = Header.read(written(tmp_path / "c.gguf", "phi3", tensors=tensors, **own))
    assert rope_limit(header) == shape_of(header).trained_window == 1024
    assert count_weights(header) == 96 * 64 + 2 * 64


def test_layers_that_only_predict_further_tokens_are_no_model(tmp_path: Path) -> None:
    path = written(tmp_path / "a.gguf", nextn_predict_layers=2)
    with pytest.raises(SakuinError, match="MTP alone"):
        shape_of(Header.read(path))


@pytest.mark.parametrize(
    ("scaling", "window"),
    [
        ({}, 1 << 20),
        ({"type": "yarn", "factor": 4.0, "original_context_length": 32768}, 131072),
        ({"type": "linear", "factor": 2.0, "original_context_length": 4096}, 8192),
        ({"type": "yarn", "factor": 64.0, "original_context_length": 32768}, 1 << 20),
        ({"type": "yarn", "factor": 4.0}, 1 << 20),
    ],
)
def test_a_window_that_the_file_overstates_is_as_long_as_its_positions_reach(
    tmp_path: Path, scaling: dict[str, Any], window: int
) -> None:
    stated = {f"rope__scaling__{name}": value for name, value in scaling.items()}
    path = written(tmp_path / "model.gguf", "qwen2", block_count=2, context_length=1 << 20, **stated)
    assert shape_of(Header.read(path)).window == window
