"""Finds the backend for a name or a model, without importing the others.

`load` and `describe` are what users and commands call; `backend_of` is how the rooms above reach a model that
a user has loaded.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sakuin.arguments import integer, path, shown, whole
from sakuin.errors import SakuinError
from sakuin.quantities import meant

if TYPE_CHECKING:
    import torch

    from sakuin.backends.base import Backend, Description
    from sakuin.backends.llama_cpp.report import Report
    from sakuin.prompts.vocabulary import Vocabulary

_log = logging.getLogger("sakuin")

BACKENDS = {
    "transformers": "sakuin.backends.transformers.backend",
    "llama.cpp": "sakuin.backends.llama_cpp.load",
}
"""The module of each backend, by its name."""


@dataclass(frozen=True)
class Choice:
    """The backend of a model, and why in a few words."""

    backend: str
    why: str


def choose(
    name_or_path: str | os.PathLike[str],
    backend: str = "auto",
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    gpu_layers: int | str = 0,
    threads: int | None = None,
) -> Choice:
    """Who runs a model where `load` is given these. Reads nothing of the model.

    Raises `SakuinError` where there is no such backend, no model of that name, or a setting is none that the
    backend has.
    """
    path("name_or_path", name_or_path, "name a model, a folder, a .gguf file or a hub id")
    layers = _checked_layers(gpu_layers)
    _checked_threads(threads)
    chosen = _chosen(name_or_path, backend, device, dtype)
    if layers and chosen.backend != "llama.cpp":
        raise SakuinError(
            f"gpu_layers={gpu_layers!r} is for llama.cpp, and {name_or_path} is run by {chosen.backend} "
            f"({chosen.why}); leave it out, or take device cuda."
        )
    return chosen


def _chosen(
    name_or_path: str | os.PathLike[str], backend: str, device: str | torch.device, dtype: str | torch.dtype
) -> Choice:
    if backend != "auto":
        if not isinstance(backend, str) or backend not in BACKENDS:
            hint = meant(backend, ("auto", *BACKENDS)) if isinstance(backend, str) else ""
            raise SakuinError(f"backend must be auto or {' or '.join(BACKENDS)}, got {shown(backend)}{hint}.")
        return Choice(backend, "asked for")
    from sakuin.backends.source import resolve

    if resolve(name_or_path).gguf is None:
        return Choice("transformers", "the model is no GGUF file")
    return choose_for_gguf(device, dtype)


def choose_for_gguf(device: str | torch.device = "auto", dtype: str | torch.dtype = "auto") -> Choice:
    """Who runs GGUF files by itself, also one that is not here yet. Arguments as of `load`."""
    from sakuin.backends.llama_cpp import locate

    if str(device).startswith("cuda"):
        return Choice("transformers", "a GPU was asked for")
    if str(dtype) in ("fp16", "torch.float16"):
        return Choice("transformers", "fp16 was asked for")
    if not locate.available():
        return Choice("transformers", f"there is no llama.cpp here; {locate.INSTALL} installs it")
    return Choice("llama.cpp", "a GGUF file")


def _module(backend: str) -> Any:
    return import_module(BACKENDS[backend])


def describe(
    name_or_path: str | os.PathLike[str],
    window: int | None = None,
    backend: str = "auto",
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
) -> Description:
    """A model before its weights are read, which is cheap: its shape and its vocabulary, so that a document
    can be measured against the model's window and the machine's memory. Arguments as of `load`, whose backend
    it has."""
    chosen = choose(name_or_path, backend, device, dtype)
    described: Description = _module(chosen.backend).describe(name_or_path, _plain(window))
    return described


def load(
    name_or_path: str | os.PathLike[str] | Description,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    window: int | None = None,
    backend: str = "auto",
    gpu_layers: int | str = 0,
    threads: int | None = None,
) -> tuple[Any, Any]:
    """A model that attends through sakuin, and its tokenizer.

    name_or_path : a name of `sakuin models list`, a local folder, a `.gguf` file, a hub id, or what
        `describe` returned, which has its backend.
    dtype : of the weights, keys and values; llama.cpp leaves the weights as they are. `"auto"` is bf16 on a
        GPU and on CPUs that multiply bf16 fast, else fp32 (transformers' own "auto" is whatever the file
        holds); or `"fp32"`, `"bf16"`, `"fp16"`, or a torch dtype.
    device : `"auto"` is the first GPU where torch sees one, else the CPU; or `"cpu"`, `"cuda"`, and with
        several GPUs `"cuda:1"` and so on.
    window : tokens that the model shall read, where that is more than it was made for: its positions are
        scaled by YaRN (docs/past-the-window.md), at every length. None leaves them as they are.
    backend : who runs the weights: `"transformers"`, `"llama.cpp"` (GGUF files as they are; the extra
        `gguf`), or `"auto"`: llama.cpp for a `.gguf` file where it is installed, else transformers.
    gpu_layers : with llama.cpp, the layers whose weights go to the GPU that it was built for: a number, or
        `"all"`.
    threads : of the CPU; None is as many as torch uses, one for each core that the process and its
        container's quota may keep busy.

    Raises `SakuinError` where the model is not there or cannot be read, cannot have that window, or there is
    no such device or too little memory on it.
    """
    if isinstance(name_or_path, str | os.PathLike) or not hasattr(name_or_path, "weights_nbytes"):
        name, asked = path("name_or_path", name_or_path, "name a model, a folder or a .gguf file"), backend
    else:
        name, asked = name_or_path.name, name_or_path.backend
        if not isinstance(backend, str) or backend not in ("auto", asked):
            raise SakuinError(f"{name} was described for {asked}; describe it for {backend}.")
    chosen = choose(name, asked, device, dtype, gpu_layers, threads)
    _log.info("%s is run by %s (%s)", name, chosen.backend, chosen.why)
    from sakuin.machine.threads import settle

    threads, window = settle(_checked_threads(threads)), _plain(window)
    module = _module(chosen.backend)
    if chosen.backend == "llama.cpp":
        layers = _checked_layers(gpu_layers)
        model, tokenizer = module.load(name_or_path, dtype, device, window, layers, threads)
        return model, tokenizer
    model, tokenizer = module.load(name_or_path, dtype, device, window)
    return model, tokenizer


def _checked_layers(gpu_layers: int | str) -> int:
    """So many layers, -1 for all."""
    if isinstance(gpu_layers, str) and gpu_layers == "all":
        return -1
    layers = integer(gpu_layers)
    if layers is None or layers < 0:
        raise SakuinError(f"gpu_layers must be a number of layers or 'all', got {shown(gpu_layers)}.")
    return layers


def _plain(window: int | None) -> int | None:
    """A whole number of NumPy as Python's; what is none the backend refuses, with the model's own window."""
    number = integer(window)
    return window if number is None or isinstance(window, bool) else number


def _checked_threads(threads: int | None) -> int | None:
    return None if threads is None else whole("threads", threads, 1)


def examine_llama_cpp() -> Report:
    """Which llama.cpp there is, and whether it can be loaded: tried in a process of its own."""
    report: Report = import_module("sakuin.backends.llama_cpp.report").examine()
    return report


def trials(model: str | os.PathLike[str] | None = None) -> tuple[list[dict[str, Any]], int]:
    """What was measured at the first load of GGUF files on this machine, or of `model` alone, and how many
    such measurements are of what is another file or version now, as
    `sakuin.backends.llama_cpp.trial_kept.reports` tells it. Reads files of the cache folder, nothing else."""
    from sakuin.backends.source import resolve

    file = None if model is None else resolve(model).gguf_path
    if model is not None and file is None:
        return [], 0
    told: tuple[list[dict[str, Any]], int]
    told = import_module("sakuin.backends.llama_cpp.trial_kept").reports(file)
    return told


def quiet(backend: str) -> None:
    """Let the library behind a backend keep its progress bars and remarks to itself."""
    if backend == "transformers":  # llama.cpp is heard by sakuin alone
        _module(backend).quiet()


def backend_of(model: Any, tokenizer: Any = None) -> Backend:
    """The backend that runs `model`, as `load` or transformers gave it, with `tokenizer` (None where
    no text is made into tokens). Made anew for each call, which costs nothing.

    Raises `TypeError` where one of them is none, or they are the other way round.
    """
    from sakuin.backends.base import Backend

    if isinstance(model, Backend):  # one that is its own model
        if tokenizer is not None:
            _check_own(model, tokenizer)
        return model
    if not _is_model(model):
        swapped = _is_tokenizer(model) and (_is_model(tokenizer) or isinstance(tokenizer, Backend))
        remedy = "model and tokenizer are the other way round" if swapped else _LOADED
        raise TypeError(f"model must be a model, got {shown(model)}: {remedy}.")
    if tokenizer is not None and not _is_tokenizer(tokenizer):
        raise TypeError(f"tokenizer must be the model's tokenizer, got {shown(tokenizer)}: {_LOADED}.")
    backend: Backend = _module("transformers").TransformersBackend(model, tokenizer)
    return backend


_LOADED = "give what `model, tokenizer = sakuin.load(…)` returns"


def backend_with_vocabulary(model: Any, tokenizer: Any) -> Backend:
    """As `backend_of`, for what makes text into tokens."""
    backend = backend_of(model, tokenizer)
    if tokenizer is None and backend.model is not backend:
        raise TypeError(f"tokenizer must be the model's tokenizer, got None: {_LOADED}.")
    return backend


def _is_model(value: Any) -> bool:
    """Whether it is one of transformers, or has at least what sakuin asks of one."""
    return all(hasattr(value, name) for name in ("config", "forward", "dtype", "device"))


def _is_tokenizer(value: Any) -> bool:
    from sakuin.prompts.vocabulary import Vocabulary

    return isinstance(value, Vocabulary) or all(
        hasattr(value, name) for name in ("eos_token_id", "convert_ids_to_tokens")
    )


def _check_own(model: Backend, tokenizer: Any) -> None:
    """A model that is its own backend has the vocabulary of its file, and takes no other."""
    own = model.tokenizer
    if tokenizer is not own and getattr(tokenizer, "file", None) != getattr(own, "file", tokenizer):
        raise TypeError(
            f"tokenizer must be the one of the model's file, which {model.name} brings, got "
            f"{shown(tokenizer)}: {_LOADED}."
        )


def for_transformers(tokenizer: Any) -> Any:
    """transformers' form of a tokenizer that `load` gave, for programs of others that want one. Raises
    `SakuinError` where transformers cannot read it."""
    from sakuin.prompts.vocabulary import Vocabulary

    file: Any = getattr(tokenizer, "file", None)
    known = not isinstance(tokenizer, Vocabulary)
    return tokenizer if known else _module("transformers").describe(file).tokenizer


def vocabulary_of(tokenizer: Any) -> Vocabulary:
    """The vocabulary of a tokenizer, as `load` or transformers gave it, without its model."""
    from sakuin.prompts.vocabulary import Vocabulary

    if isinstance(tokenizer, Vocabulary):  # one that is its own tokenizer
        return tokenizer
    if not _is_tokenizer(tokenizer):
        raise TypeError(f"tokenizer must be a tokenizer, got {shown(tokenizer)}: {_LOADED}.")
    vocabulary: Vocabulary = _module("transformers").TransformersVocabulary(tokenizer)
    return vocabulary
