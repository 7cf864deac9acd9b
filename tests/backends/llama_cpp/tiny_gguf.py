"""Tiny random models as GGUF files beside the same models of transformers, for tests of the llama.cpp
backend: `write("gemma3", tmp_path)`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from gguf import MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from tiny_dense import DENSE, HEADS
from tiny_experts import EXPERTS
from tiny_hybrid import HYBRID
from tiny_mamba import MAMBA
from tiny_recipe import Recipe, is_quantized, make, round_to, tensors, write_common
from tiny_vocabulary import Vocabulary, bytes_vocabulary, pieces_vocabulary
from transformers import PreTrainedModel, PreTrainedTokenizerFast

ARCHITECTURES = (*DENSE, *EXPERTS, *HYBRID, *MAMBA)
RECIPES: dict[str, Recipe] = {**DENSE, **EXPERTS, **HYBRID, **MAMBA, **HEADS}
"""All that `write` takes: each architecture, and architectures with heads of other shapes."""
HYBRIDS = (*HYBRID, *MAMBA)
"""Those with recurrent layers."""


@dataclass(frozen=True)
class Tiny:
    """A model twice: `gguf`, a file, and `model`, of transformers in fp32 and in evaluation."""

    architecture: str
    gguf: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    full: tuple[int, ...]
    """Layers that attend to everything."""
    sliding: tuple[int, ...]
    """Layers with a sliding window."""
    recurrent: tuple[int, ...]
    """Layers with a recurrent state. A layer of Falcon-H1 has one and attends to everything too."""
    permuted: bool
    """Queries and keys in llama.cpp are in pairs (2i, 2i + 1), in transformers (i, i + head_dim / 2)."""

    @property
    def n_layers(self) -> int:
        return int(self.model.config.num_hidden_layers)

    @property
    def n_words(self) -> int:
        return int(self.model.config.vocab_size)

    @property
    def group(self) -> int:
        """Query heads for each KV head."""
        return self.model.config.num_attention_heads // self.model.config.num_key_value_heads

    def tokens(self, n: int, seed: int = 0) -> torch.Tensor:
        """Random token ids `(1, n)`, int64, no special tokens."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(8, self.n_words, (1, n), generator=generator)


def write(
    architecture: str, folder: Path, dtype: str = "F32", seed: int = 1, name: str = "", splits: str = ""
) -> Tiny:
    """Make the model and write `<folder>/<name or architecture>-<dtype>.gguf`; the same bytes each time.

    `dtype`: F32, F16 or Q8_0. The model of transformers has the rounded weights then, in fp32.
    `splits` : as of `Vocabulary.write`.
    """
    recipe = RECIPES[architecture]
    qtype = GGMLQuantizationType[dtype]
    model = make(recipe, seed)
    if dtype != "F32":
        round_to(model, qtype)
    vocabulary = _vocabulary(recipe.vocabulary)
    path = folder / f"{name or architecture}-{dtype}.gguf"
    writer = GGUFWriter(path, MODEL_ARCH_NAMES[recipe.architecture])
    writer.add_name("tiny")  # llama.cpp goes by the name in places: "phi-3" must have certain words
    write_common(writer, recipe, model.config)
    vocabulary.write(writer, splits)
    for tensor_name, tensor in tensors(recipe, model):
        kept = qtype if is_quantized(tensor_name, tensor) else GGMLQuantizationType.F32
        writer.add_tensor(tensor_name, quantize(tensor.numpy(), kept), raw_dtype=kept)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Tiny(
        architecture, path, model, vocabulary.tokenizer, *_layers(model.config), permuted=recipe.permuted
    )


def _vocabulary(kind: str) -> Vocabulary:
    return bytes_vocabulary() if kind == "bytes" else pieces_vocabulary(kind == "spaced pieces")


def _layers(config: object) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Layers with full attention, with a window, with a recurrent state."""
    n = config.num_hidden_layers  # type: ignore[attr-defined]
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * n
    full, sliding, recurrent = [], [], []
    for i, kind in enumerate(kinds):
        if kind == "sliding_attention":
            sliding.append(i)
        elif kind in ("full_attention", "attention", "hybrid"):
            full.append(i)
        if kind in ("linear_attention", "mamba", "conv", "hybrid"):
            recurrent.append(i)
    return tuple(full), tuple(sliding), tuple(recurrent)
