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

from sakuin.errors import SakuinError

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
    layers = _checked_layers(gpu_layers)
    _check_threads(threads)
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
        if backend not in BACKENDS:
            raise SakuinError(f"backend must be auto or {' or '.join(BACKENDS)}, got {backend!r}.")
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
    described: Description = _module(chosen.backend).describe(name_or_path, window)
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
    if isinstance(name_or_path, str | os.PathLike):
        name, asked = os.fspath(name_or_path), backend
    else:
        name, asked = name_or_path.name, name_or_path.backend
        if backend not in ("auto", asked):
            raise SakuinError(f"{name} was described for {asked}; describe it for {backend}.")
    chosen = choose(name, asked, device, dtype, gpu_layers, threads)
    _log.info("%s is run by %s (%s)", name, chosen.backend, chosen.why)
    from sakuin.machine.threads import settle

    threads = settle(threads)
    module = _module(chosen.backend)
    if chosen.backend == "llama.cpp":
        layers = _checked_layers(gpu_layers)
        model, tokenizer = module.load(name_or_path, dtype, device, window, layers, threads)
        return model, tokenizer
    model, tokenizer = module.load(name_or_path, dtype, device, window)
    return model, tokenizer


def _checked_layers(gpu_layers: int | str) -> int:
    """So many layers, -1 for all."""
    if gpu_layers == "all":
        return -1
    if isinstance(gpu_layers, bool) or not isinstance(gpu_layers, int) or gpu_layers < 0:
        raise SakuinError(f"gpu_layers must be a number of layers or 'all', got {gpu_layers!r}.")
    return gpu_layers


def _check_threads(threads: int | None) -> None:
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise SakuinError(f"threads must be a whole number of at least 1, got {threads!r}.")


def examine_llama_cpp() -> Report:
    """Which llama.cpp there is, and whether it can be loaded: tried in a process of its own."""
    report: Report = import_module("sakuin.backends.llama_cpp.report").examine()
    return report


def trials() -> list[dict[str, Any]]:
    """What was measured at the first load of GGUF files on this machine, by file, as
    `sakuin.backends.llama_cpp.trial_kept.reports` tells it. Reads files of the cache folder, nothing else."""
    found: list[dict[str, Any]] = import_module("sakuin.backends.llama_cpp.trial_kept").reports()
    return found


def quiet(backend: str) -> None:
    """Let the library behind a backend keep its progress bars and remarks to itself."""
    if backend == "transformers":  # llama.cpp is heard by sakuin alone
        _module(backend).quiet()


def backend_of(model: Any, tokenizer: Any = None) -> Backend:
    """The backend that runs `model`, as `load` or transformers gave it, with `tokenizer` (None where
    no text is made into tokens). Made anew for each call, which costs nothing."""
    from sakuin.backends.base import Backend

    if isinstance(model, Backend):  # one that is its own model
        return model
    backend: Backend = _module("transformers").TransformersBackend(model, tokenizer)
    return backend


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
    vocabulary: Vocabulary = _module("transformers").TransformersVocabulary(tokenizer)
    return vocabulary
