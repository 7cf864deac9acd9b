"""A GGUF model before its weights are read: shape, vocabulary, number of weights."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch

from sakuin.backends.llama_cpp.footprint import always_read
from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.llama_cpp.shape import count_weights, rope_limit, shape_of
from sakuin.backends.llama_cpp.vocabulary import LlamaVocabulary
from sakuin.backends.shape import ModelShape
from sakuin.backends.source import Source, resolve
from sakuin.backends.window import check_window
from sakuin.errors import SakuinError


@dataclass(frozen=True)
class Description:
    """As `sakuin.backends.base.Description`. The vocabulary is read when it is asked for.

    window : tokens that the model shall read, or None.
    """

    source: Source
    header: Header
    window: int | None = None
    backend: ClassVar[str] = "llama.cpp"

    @property
    def name(self) -> str:
        """What it was named."""
        return self.source.name

    @cached_property
    def shape(self) -> ModelShape:
        """Its layers, heads and sizes."""
        shape = shape_of(self.header)
        if self.window is None or rope_limit(self.header) is not None:
            return shape
        return _with_window(self.header, shape, self.window, self.name)

    @cached_property
    def vocabulary(self) -> LlamaVocabulary:
        """Text to its tokens and back."""
        return LlamaVocabulary.load(self.header)

    @property
    def tokenizer(self) -> LlamaVocabulary:
        """The vocabulary, as `load` hands it to the user."""
        return self.vocabulary

    @property
    def n_weights(self) -> int:
        """Parameters, tied ones once."""
        return count_weights(self.header)

    def weights_nbytes(self, dtype: torch.dtype, gpu_layers: int | str = 0) -> int:
        """Bytes of its weights that must lie in memory: as in the file, whatever the dtype."""
        layers = -1 if gpu_layers == "all" else int(gpu_layers)
        return always_read(self.header, len(self.shape.layers), layers)


def describe(name_or_path: str | os.PathLike[str], window: int | None = None) -> Description:
    """The model of a GGUF file. Arguments as of `sakuin.backends.open.load`. Raises `SakuinError` where it is
    none, or none that sakuin can use."""
    source = resolve(name_or_path)
    path = source.gguf_path
    if path is None:
        raise SakuinError(
            f"{source.name} is no GGUF file, which the backend llama.cpp reads; name a .gguf file, or take "
            "the backend transformers."
        )
    described = Description(source, Header.read(path), window)
    _ = described.shape  # a shape that cannot be used is said at once
    return described


def _with_window(header: Header, shape: ModelShape, window: int, name: str) -> ModelShape:
    """The shape of a model whose positions are scaled by YaRN so that it reads `window` tokens."""
    own = check_window(name, shape.window, window)
    kind = header.text(header.own("rope.scaling.type"), "none")
    if window == own:
        return shape
    if kind not in ("none", "yarn"):
        raise SakuinError(
            f"{name} scales its positions already ({kind}), which YaRN cannot be put upon: use it within its "
            f"window of {own:,} tokens."
        )
    return replace(shape, window=window, trained_window=shape.trained_window or own)
