"""Loading a GGUF file by llama.cpp: the file is mapped, and nothing of it is converted.

Called by `sakuin.backends.open`.
"""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from sakuin.backends.llama_cpp import footprint, gpu
from sakuin.backends.llama_cpp.backend import LlamaBackend
from sakuin.backends.llama_cpp.description import Description, describe
from sakuin.backends.llama_cpp.library import library
from sakuin.backends.llama_cpp.loaded import Loaded, Options
from sakuin.backends.llama_cpp.shape import permuted, rope_limit, rotary_dim
from sakuin.backends.llama_cpp.trial import tried
from sakuin.backends.llama_cpp.vocabulary import LlamaVocabulary
from sakuin.errors import SakuinError
from sakuin.machine.devices import resolve_device, resolve_dtype

__all__ = ["Description", "describe", "load"]

_DTYPES = (torch.float32, torch.bfloat16)


def load(
    name_or_path: str | os.PathLike[str] | Description,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    window: int | None = None,
    gpu_layers: int = 0,
    threads: int | None = None,
) -> tuple[LlamaBackend, LlamaVocabulary]:
    """As `sakuin.backends.open.load`, by llama.cpp."""
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
    known = name_or_path if isinstance(name_or_path, Description) else describe(name_or_path, window)
    if window is not None and window != known.window:
        known = replace(known, window=window)
    header, shape, window = known.header, known.shape, known.window
    gpu_layers = gpu.settle(known.name, gpu_layers, header, len(shape.layers), library())
    limit = rope_limit(header)
    options = Options(
        dtype=kept,
        n_threads=threads or torch.get_num_threads(),
        gpu_layers=gpu_layers,
        window=shape.window if limit is None and window and shape.window != shape.trained_window else None,
        own_window=shape.trained_window,
        # Beyond it LongRoPE has other frequencies, which llama.cpp chooses by the size of its store.
        least_cells=limit + 1 if limit is not None and window is not None and window > limit else 0,
        most_tokens=limit if limit is not None and (window or 0) <= limit else None,
    )
    footprint.check(known.name, footprint.footprint(header, shape, options))
    loaded = Loaded(library(), header.path, tried(header, options, library()))
    vocabulary = LlamaVocabulary(loaded.model, header, loaded)
    rotary = rotary_dim(header) if permuted(header) else 0
    backend = LlamaBackend(loaded, header, shape, vocabulary, rotary, known.source.lasting_name)
    return backend, vocabulary
