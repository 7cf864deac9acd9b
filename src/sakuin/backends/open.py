"""Finds the backend for a name or a model, without importing the others.

`load` and `describe` are what users and commands call; `backend_of` is how the rooms above reach a model that
a user has loaded.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sakuin.errors import SakuinError

if TYPE_CHECKING:
    import torch

    from sakuin.backends.base import Backend, Description
    from sakuin.prompts.vocabulary import Vocabulary

BACKENDS = {"transformers": "sakuin.backends.transformers.backend"}
"""The module of each backend, by its name."""


def _module(backend: str) -> Any:
    name = "transformers" if backend == "auto" else backend
    if name not in BACKENDS:
        raise SakuinError(f"backend must be auto or {' or '.join(BACKENDS)}, got {backend!r}.")
    return import_module(BACKENDS[name])


def describe(
    name_or_path: str | os.PathLike[str], window: int | None = None, backend: str = "auto"
) -> Description:
    """A model before its weights are read, which is cheap: its shape and its vocabulary, so that a document
    can be measured against the model's window and the machine's memory. Arguments as of `load`."""
    described: Description = _module(backend).describe(name_or_path, window)
    return described


def load(
    name_or_path: str | os.PathLike[str] | Description,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    window: int | None = None,
    backend: str = "auto",
) -> tuple[Any, Any]:
    """A model that attends through sakuin, and its tokenizer.

    name_or_path : a name of `sakuin models list`, a local folder, a `.gguf` file, a hub id, or what
        `describe` returned.
    dtype : of the weights. `"auto"` is bf16 on a GPU and on CPUs that multiply bf16 fast, else fp32
        (transformers' own "auto" is whatever the file holds); or `"fp32"`, `"bf16"`, `"fp16"`, or a torch
        dtype.
    device : `"auto"` is the first GPU where torch sees one, else the CPU; or `"cpu"`, `"cuda"`, and with
        several GPUs `"cuda:1"` and so on.
    window : tokens that the model shall read, where that is more than it was made for: its positions are
        scaled by YaRN (docs/past-the-window.md), at every length. None leaves them as they are.
    backend : who runs the weights: `"auto"` or `"transformers"`.

    Raises `SakuinError` where the model is not there or cannot be read, cannot have that window, or there is
    no such device or too little memory on it.
    """
    loaded: tuple[Any, Any] = _module(backend).load(name_or_path, dtype, device, window)
    return loaded


def quiet() -> None:
    """Let the libraries behind the backends keep their progress bars and remarks to themselves."""
    _module("auto").quiet()


def backend_of(model: Any, tokenizer: Any = None) -> Backend:
    """The backend that runs `model`, as `load` or transformers gave it, with `tokenizer` (None where
    no text is made into tokens). Made anew for each call, which costs nothing."""
    from sakuin.backends.base import Backend

    if isinstance(model, Backend):  # one that is its own model
        return model
    backend: Backend = _module("auto").TransformersBackend(model, tokenizer)
    return backend


def vocabulary_of(tokenizer: Any) -> Vocabulary:
    """The vocabulary of a tokenizer, as `load` or transformers gave it, without its model."""
    vocabulary: Vocabulary = _module("auto").TransformersVocabulary(tokenizer)
    return vocabulary
