"""What this machine gives sakuin: CPU, kernels, threads, memory, extras, and how long a context fits.

`examine` returns a plain dict, which `sakuin doctor` prints. It measures and changes nothing, and loads torch
only where a figure needs it: for a model, and where torch may see a GPU.
"""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

from sakuin.backends import catalogue
from sakuin.backends.open import choose_for_gguf, describe, examine_llama_cpp, trials
from sakuin.config import RetrievalConfig
from sakuin.dtypes import FLOATS
from sakuin.errors import SakuinError
from sakuin.index import _native, choice
from sakuin.machine import cpu, memory, torch_files
from sakuin.machine.cpu import cpu_name
from sakuin.storage import folders
from sakuin.version import __version__

if TYPE_CHECKING:
    from sakuin.backends.base import Description

_USEFUL = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd")
_SHAPES = tuple(choice.HeadShape(*heads) for heads in ((64, 7, 2), (128, 4, 8), (256, 4, 1)))
"""Where no model is named, what `index="auto"` chooses is shown for heads that models of 0.5B, 8B and 0.3B
have."""


def machine() -> dict[str, Any]:
    """The machine, the libraries, the day and the commit in few words, to stand beside measured figures."""
    import torch

    return {
        "cpu": cpu_name(),
        "isa": _native.isa(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": date.today().isoformat(),
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit that runs, with a + where files differ from it; None where this is not a checkout of it."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    # An environment can lie in the checkout of something else, whose settings name programs for git to run.
    if not (Path(__file__).parents[3] / ".git").exists():
        return None
    try:
        git("ls-files", "--error-unmatch", "--", Path(__file__).name)
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", "../../native")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def examine(model: str | None = None, window: int | None = None, backend: str = "auto") -> dict[str, Any]:
    """Everything that `sakuin doctor` shows.

    model : a name or path as for `sakuin.load`; adds how many tokens fit with each index, and the model's
        window, and `auto` is for its heads. window, backend : as for `sakuin.load`, with a model.

    Sizes are in bytes. Raises `SakuinError` where the model is not there or cannot have that window.
    """
    if window is not None and model is None:
        raise SakuinError(f"a window of {window:,} tokens is that of a model: name the model too (--model).")
    if backend != "auto" and model is None:
        raise SakuinError(f"the backend {backend} is for a model: name the model too (--model).")
    known = None if model is None else describe(model, window, backend)
    gpu = _gpu()
    on_gpu = gpu is not None and (known is None or known.backend != "llama.cpp")
    dtype = "bf16" if on_gpu or cpu.multiplies_bf16() else "fp32"
    have = memory.available()
    current, older = trials(model)
    report: dict[str, Any] = {
        "sakuin": __version__,
        "python": platform.python_version(),
        "torch": torch_files.version(),
        "transformers": metadata.version("transformers"),
        "cpu": cpu_name(),
        "cpu_features": [flag for flag in _USEFUL if flag in cpu.cpu_flags()],
        "kernel": _native.isa(),
        "kernels": list(_native.isas()),
        "threads": cpu.threads_by_itself(),
        "cpus": cpu.usable_cpus(),
        "openmp": torch_files.openmp_runtimes(),
        "gpu": gpu,
        "memory": {"available": have.bytes, "bound": have.bound},
        "dtype": FLOATS[dtype],
        "llama_cpp": asdict(examine_llama_cpp()),
        "backend_gguf": asdict(choose_for_gguf()),
        "trials": current,
        "older_trials": older,
        "cache_folder": str(folders.cache_folder()),
        "models": {name: entry.is_here for name, entry in catalogue.MODELS.items()},
        "extras": extras(),
    }
    shapes = _SHAPES
    if known is not None:
        report["fits"] = _fits(known, dtype, have.bytes)
        shapes = (known.shape.heads,)
    report["auto"] = [_auto(shape, dtype) for shape in shapes]
    return report


def _gpu() -> str | None:
    """The first GPU that torch sees; it is asked where it may see one."""
    if not torch_files.may_see_gpus():
        return None
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _auto(shape: choice.HeadShape, stored: str) -> dict[str, Any]:
    """What `index="auto"` chooses for the heads of a layer: `flat`, and `sketch` with these sizes from
    `sketch_from` offloaded tokens on (None: never)."""
    config, d = RetrievalConfig(index="auto"), shape.head_dim
    return {
        **vars(shape),
        "kv_dtype": stored,
        "sketch_from": shape.sketch_from(config, stored),
        "segment": config.segment_tokens(d),
        "sketch_bits": config.sketch_bits_for(d),
        "code_bits": config.code_bits_for(d),
    }


def extras() -> dict[str, list[str]]:
    """For each extra of the package, the distributions that it still lacks (none: it is there)."""
    requirements = [Requirement(text) for text in metadata.requires("sakuin") or []]
    return {
        extra: [
            requirement.name
            for requirement in requirements
            if requirement.name != "sakuin"
            and requirement.marker is not None
            and not requirement.marker.evaluate({"extra": ""})
            and requirement.marker.evaluate({"extra": extra})
            and not _installed(requirement)
        ]
        for extra in metadata.metadata("sakuin").get_all("Provides-Extra") or []
        if extra not in ("all", "dev")
    }


def _installed(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def _fits(known: Description, name: str, have: int) -> dict[str, Any]:
    from sakuin.capacity import need
    from sakuin.machine.devices import resolve_dtype

    dtype = resolve_dtype(name)
    settings: dict[str, RetrievalConfig | None] = {
        "sketch": RetrievalConfig(),
        "flat": RetrievalConfig(index="flat"),
        "full": None,
    }
    return {
        "model": known.name,
        "backend": known.backend,
        "window": known.shape.window,
        "own_window": known.shape.trained_window,
        "tokens": {
            index: need.tokens_that_fit(known.shape, dtype, setting, have, known.weights_nbytes(dtype))
            for index, setting in settings.items()
        },
    }
