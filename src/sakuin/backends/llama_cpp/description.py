"""A GGUF model before its weights are read: shape, vocabulary, number of weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.llama_cpp.shape import count_weights, shape_of
from sakuin.backends.llama_cpp.vocabulary import LlamaVocabulary
from sakuin.backends.shape import ModelShape
from sakuin.backends.source import Source
from sakuin.errors import SakuinError


@dataclass(frozen=True)
class Description:
    """As `sakuin.backends.base.Description`. The vocabulary is read when it is asked for."""

    source: Source
    header: Header

    @property
    def name(self) -> str:
        """What it was named."""
        return self.source.name

    @cached_property
    def shape(self) -> ModelShape:
        """Its layers, heads and sizes."""
        return shape_of(self.header)

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


def describe(source: Source) -> Description:
    """The model of a GGUF file. Raises `SakuinError` where it is none, or none that sakuin can use."""
    path = source.gguf_path
    if path is None:
        raise SakuinError(
            f"{source.name} is no GGUF file, which the backend llama.cpp reads; name a .gguf file, or take "
            "the backend transformers."
        )
    described = Description(source, Header.read(path))
    _ = described.shape  # a shape that cannot be used is said at once
    return described
