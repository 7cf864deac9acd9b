"""Writes a Llama of random weights as a GGUF file, in the shape and the quantization of a real model.

    python -m benchmarks.random_gguf FILE [--shape 0.5b|3b]

Speed does not depend on what weights say, and a model of that size cannot be fetched everywhere. The
vocabulary is that of SmolLM2, filled up to the size of the real one. Weights are quantized as llama.cpp's
Q4_K_M does: rows whose length is no multiple of 256 fall back to Q5_0 and Q8_0.
"""

from __future__ import annotations

import argparse
import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

from sakuin.backends.catalogue import get
from sakuin.backends.llama_cpp.library import library


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, as its GGUF header names them."""

    hidden: int
    ff: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int


SHAPES = {
    "0.5b": Shape(896, 4864, 24, 14, 2, 64, 151936),
    "3b": Shape(3072, 8192, 28, 24, 8, 128, 128256),
}


def write(path: Path, shape: Shape, seed: int = 0) -> Path:
    """Write the file, unless it is there."""
    if path.exists():
        return path
    part = path.with_name(path.name + ".part")
    writer = gguf.GGUFWriter(str(part), "llama")
    _metadata(writer, shape)
    _tensors(writer, shape, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.rename(path)
    return path


def _metadata(writer: Any, shape: Shape) -> None:
    writer.add_block_count(shape.layers)
    writer.add_context_length(1 << 20)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.ff)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(shape.vocabulary)
    fields = gguf.GGUFReader(str(get("smollm2"))).fields
    tokens = [str(token).encode() for token in fields["tokenizer.ggml.tokens"].contents()]
    kinds = [int(kind) for kind in fields["tokenizer.ggml.token_type"].contents()]
    more = shape.vocabulary - len(tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(fields["tokenizer.ggml.pre"].contents())
    writer.add_token_list(tokens + [f"<unused{i}>".encode() for i in range(more)])
    writer.add_token_types(kinds + [int(gguf.TokenType.UNUSED)] * more)
    writer.add_token_merges(fields["tokenizer.ggml.merges"].contents())
    writer.add_bos_token_id(int(fields["tokenizer.ggml.bos_token_id"].contents()))
    writer.add_eos_token_id(int(fields["tokenizer.ggml.eos_token_id"].contents()))
    writer.add_chat_template(fields["tokenizer.chat_template"].contents())


def _tensors(writer: Any, shape: Shape, rng: np.random.Generator) -> None:
    def add(name: str, rows: int, depth: int, kind: Kind, gain: float = 1.0) -> None:
        numbers = rng.standard_normal((rows, depth), dtype=np.float32) * np.float32(gain / np.sqrt(depth))
        writer.add_tensor(name, quantized(numbers, _fitting(kind, depth)), raw_dtype=_fitting(kind, depth))

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(shape.hidden, np.float32))

    h, d = shape.hidden, shape.head_dim
    add("token_embd.weight", shape.vocabulary, h, Kind.Q6_K)
    ones("output_norm.weight")
    for layer in range(shape.layers):
        at = f"blk.{layer}."
        # As llama.cpp mixes them: the first and last eighth, and every third between, in 6 bits.
        eighth = shape.layers // 8
        better = layer < eighth or layer >= 7 * eighth or (layer - eighth) % 3 == 2
        ones(at + "attn_norm.weight")
        ones(at + "ffn_norm.weight")
        add(at + "attn_q.weight", shape.heads * d, h, Kind.Q4_K, 2.0)
        add(at + "attn_k.weight", shape.kv_heads * d, h, Kind.Q4_K, 2.0)
        add(at + "attn_v.weight", shape.kv_heads * d, h, Kind.Q6_K if better else Kind.Q4_K)
        add(at + "attn_output.weight", h, shape.heads * d, Kind.Q4_K)
        add(at + "ffn_gate.weight", shape.ff, h, Kind.Q4_K)
        add(at + "ffn_up.weight", shape.ff, h, Kind.Q4_K)
        add(at + "ffn_down.weight", h, shape.ff, Kind.Q6_K if better else Kind.Q4_K)


def _fitting(kind: Kind, depth: int) -> Kind:
    """`kind`, or what llama.cpp takes where rows are no whole number of its blocks."""
    if depth % 256 == 0:
        return kind
    return Kind.Q5_0 if kind == Kind.Q4_K else Kind.Q8_0


def quantized(numbers: np.ndarray, kind: Kind) -> np.ndarray:
    """Rows of fp32 in a quantized form, by ggml's own function: uint8 `(rows, bytes of a row)`."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows, depth = numbers.shape
    out = np.empty((rows, depth // block * size), np.uint8)
    pointer, whole = ctypes.c_void_p, ctypes.c_int64
    types = (ctypes.c_int, pointer, pointer, whole, whole, whole, pointer)
    quantize = library().bind("ggml_quantize_chunk", ctypes.c_size_t, types)
    quantize(int(kind), numbers.ctypes.data, out.ctypes.data, 0, rows, depth, None)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="0.5b")
    arguments = parser.parse_args()
    write(arguments.file, SHAPES[arguments.shape])


if __name__ == "__main__":
    main()
