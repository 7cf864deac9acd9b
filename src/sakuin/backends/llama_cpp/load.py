"""Loading a GGUF file by llama.cpp: the file is mapped, and nothing of it is converted.

Called by `sakuin.backends.open`.
"""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from sakuin.backends.llama_cpp.backend import LlamaBackend
from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.llama_cpp.library import library
from sakuin.backends.llama_cpp.loaded import Loaded, Options
from sakuin.backends.llama_cpp.shape import permuted, rope_limit, rotary_dim, shape_of
from sakuin.backends.llama_cpp.vocabulary import LlamaVocabulary
from sakuin.backends.shape import ModelShape
from sakuin.backends.source import resolve
from sakuin.errors import SakuinError
from sakuin.machine.devices import resolve_device, resolve_dtype

_DTYPES = (torch.float32, torch.bfloat16)


def load(
    name_or_path: str | os.PathLike[str],
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    window: int | None = None,
    gpu_layers: int = 0,
    threads: int | None = None,
) -> tuple[LlamaBackend, LlamaVocabulary]:
    """As `sakuin.backends.open.load`, by llama.cpp."""
    source = resolve(name_or_path)
    path = source.gguf_path
    if path is None:
        raise SakuinError(
            f'llama.cpp runs GGUF files, and {source.name} is none; take `backend="transformers"` for it.'
        )
    if device != "auto" and resolve_device(device).type != "cpu":
        raise SakuinError(
            "with llama.cpp the attention runs on the CPU, so device must be cpu or auto, got "
            f"{str(device)!r}; weights go to a GPU by `gpu_layers`."
        )
    kept = resolve_dtype(dtype, "cpu")
    if kept not in _DTYPES:
        raise SakuinError(
            "with llama.cpp keys and values are kept in fp32 or bf16, so dtype must be one of these or auto, "
            f"got {dtype!r}; the weights stay as the file has them."
        )
    header = Header.read(path)
    shape = shape_of(header)
    limit = rope_limit(header)
    scaled = window is not None and limit is None
    if scaled:
        shape = _with_window(header, shape, window, source.name)
    options = Options(
        dtype=kept,
        n_threads=threads or torch.get_num_threads(),
        gpu_layers=gpu_layers,
        window=shape.window if scaled and shape.window != shape.trained_window else None,
        own_window=shape.trained_window,
        # Beyond it LongRoPE has other frequencies, which llama.cpp chooses by the size of its store.
        least_cells=limit + 1 if limit is not None and window is not None and window > limit else 0,
        most_tokens=limit if limit is not None and (window or 0) <= limit else None,
    )
    loaded = Loaded(library(), header.path, options)
    vocabulary = LlamaVocabulary(loaded.model, header, loaded)
    rotary = rotary_dim(header) if permuted(header) else 0
    backend = LlamaBackend(loaded, header, shape, vocabulary, rotary, source.name)
    return backend, vocabulary


def _with_window(header: Header, shape: ModelShape, window: int | None, name: str) -> ModelShape:
    """The shape of a model whose positions are scaled by YaRN so that it reads `window` tokens."""
    own, kind = shape.window, header.text(header.own("rope.scaling.type"), "none")
    if own is None:
        raise SakuinError(
            f"{name} does not state how many tokens it reads, so its window cannot be made longer."
        )
    if isinstance(window, bool) or not isinstance(window, int) or window < own:
        raise SakuinError(
            f"window must be a whole number of at least {own:,} tokens, which {name} reads as it is; got "
            f"{window!r}."
        )
    if window == own:
        return shape
    if kind not in ("none", "yarn"):
        raise SakuinError(
            f"{name} scales its positions already ({kind}), which YaRN cannot be put upon: use it within its "
            f"window of {own:,} tokens."
        )
    return replace(shape, window=window, trained_window=shape.trained_window or own)
