"""From a name to a model: names that sakuin knows, local folders, hub ids and `.gguf` files.

`load` gives a model that attends through sakuin, and its tokenizer. `describe` gives the configuration and
the tokenizer alone, which is cheap, so that a document can be measured against the model's window and the
machine's memory before the weights are read. Fetching files is the business of `sakuin.backends.catalogue`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

from sakuin.backends.gguf_fingerprint import GgufFile
from sakuin.backends.shape import ModelShape
from sakuin.backends.source import Source, known_names, meant_name, resolve
from sakuin.backends.transformers.bars import without_bars
from sakuin.backends.transformers.fingerprint import loaded_from
from sakuin.backends.transformers.gguf import without_vocabulary
from sakuin.backends.transformers.shape import count_weights, shape_of
from sakuin.backends.transformers.vocabulary import TransformersVocabulary
from sakuin.backends.transformers.window import with_window
from sakuin.errors import SakuinError
from sakuin.machine.devices import resolve_device, resolve_dtype
from sakuin.storage import folders
from sakuin.storage.paths import is_folder


@dataclass(frozen=True)
class Description:
    """A model before its weights are read."""

    source: Source
    config: PreTrainedConfig
    tokenizer: Any
    backend: ClassVar[str] = "transformers"

    @cached_property
    def shape(self) -> ModelShape:
        """Its layers, heads and sizes."""
        return shape_of(self.config)

    @cached_property
    def n_weights(self) -> int:
        """Parameters, tied ones once."""
        return count_weights(self.config)

    def weights_nbytes(self, dtype: torch.dtype, gpu_layers: int | str = 0) -> int:
        """Bytes of its weights in memory; those of a GGUF file too are numbers of `dtype` there."""
        return self.n_weights * dtype.itemsize

    @property
    def name(self) -> str:
        """What it was named."""
        return self.source.name

    @cached_property
    def vocabulary(self) -> TransformersVocabulary:
        """Text to its tokens and back."""
        return TransformersVocabulary(self.tokenizer)


def describe(name_or_path: str | os.PathLike[str], window: int | None = None) -> Description:
    """The configuration and the tokenizer of a model, without its weights; `window` as in `load`."""
    source = resolve(name_or_path)
    if source.gguf:
        config, tokenizer = _describe_gguf(source)
    else:
        try:
            with _without_remarks():
                # False: a model that brings code of its own is refused, where transformers would ask.
                config = AutoConfig.from_pretrained(source.place, trust_remote_code=False)
                tokenizer = AutoTokenizer.from_pretrained(source.place, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise _not_there(source, error) from error
    if not getattr(tokenizer, "is_fast", False):
        raise SakuinError(
            f"the tokenizer of {source.name} is a slow one, which does not tell where in the text a token "
            "lies; use a model that has a tokenizer.json."
        )
    if window is not None:
        config = with_window(config, window, source.name)
    return Description(source, config, tokenizer)


def load(
    name_or_path: str | os.PathLike[str] | Description,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    window: int | None = None,
) -> tuple[Any, Any]:
    """As `sakuin.backends.open.load`, by transformers."""
    place = resolve_device(device)
    known = name_or_path if isinstance(name_or_path, Description) else describe(name_or_path)
    if window is not None:
        known = replace(known, config=with_window(known.config, window, known.source.name))
    arguments: dict[str, Any] = {
        "dtype": resolve_dtype(dtype, place),
        "attn_implementation": "sakuin",
        "config": known.config,
        "trust_remote_code": False,
    }
    file = None
    if known.source.gguf:
        file = GgufFile([Path(known.source.place) / known.source.gguf])
        arguments["gguf_file"] = known.source.gguf
        if hasattr(transformers, "GgufConfig"):
            # Without this some architectures keep the weights packed and look for a kernel on a hub.
            arguments["quantization_config"] = transformers.GgufConfig(dequantize=True)
    try:
        is_here = known.source.gguf is not None or is_folder(known.source.place)
        with (
            without_vocabulary() if known.source.gguf else nullcontext(),
            without_bars() if is_here else nullcontext(),
        ):
            model, report = _from_pretrained(known.source.place, **arguments)
    except Exception as error:
        if known.source.gguf is None and not isinstance(error, OSError):
            raise
        raise _not_there(known.source, error) from error
    try:
        model = model.to(place).eval()
    except torch.OutOfMemoryError as error:
        raise SakuinError(
            f"the memory of {place} is too small for {known.source.name}: load it with device cpu, or take a "
            "smaller model."
        ) from error
    model.sakuin_name = known.source.lasting_name  # by which a stored context finds it again
    if file is not None and not report["missing_keys"]:  # what is missing, transformers draws at random
        loaded_from(model, known.tokenizer, file)
    return model, known.tokenizer


def _from_pretrained(place: str, **arguments: Any) -> tuple[Any, dict[str, Any]]:
    """The model, and transformers' report on its loading."""
    found: Any = AutoModelForCausalLM.from_pretrained(place, output_loading_info=True, **arguments)
    model, report = found
    return model, report


def _describe_gguf(source: Source) -> tuple[PreTrainedConfig, Any]:
    """Configuration and tokenizer of a GGUF file.

    Reading them takes transformers ten seconds and more (each of 262,144 words is a Python object of its
    own), so both are kept in the cache folder in transformers' ordinary form, under a name that changes with
    the file. All loads read that form, the first one too.
    """
    if missing := [name for name in ("accelerate", "gguf") if find_spec(name) is None]:
        raise SakuinError(
            f"reading {source.gguf} needs the package {' and '.join(missing)}; `pip install 'sakuin[gguf]'` "
            "brings what is missing."
        )
    path = source.gguf_path
    assert path is not None
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise SakuinError(
                f"{path} is not a GGUF file (it does not begin with the letters GGUF); check the path, or "
                "fetch it again."
            )
    stat = path.stat()
    state = json.dumps([str(path.resolve()), stat.st_size, stat.st_mtime_ns, transformers.__version__])
    kept = folders.cache_folder() / "gguf" / hashlib.sha256(state.encode()).hexdigest()[:24]
    with suppress(Exception):  # whatever a folder raises that is not there or damaged: it is made anew
        return _read_kept(kept)
    with tempfile.TemporaryDirectory(prefix="sakuin-") as name:
        fresh = Path(name)
        _convert(source, path, fresh)
        # What transformers makes of the file is not what it makes of what it has saved (a Gemma tokenizer
        # has no normalizer at first), so that the first load too reads what later ones will read.
        return _read_kept(kept if _keep(fresh, kept) else fresh)


def _read_kept(folder: Path) -> tuple[PreTrainedConfig, Any]:
    if not folder.is_dir():
        raise FileNotFoundError(folder)  # transformers would ask a hub
    return (
        AutoConfig.from_pretrained(folder, trust_remote_code=False),
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
    )


def _convert(source: Source, path: Path, folder: Path) -> None:
    """Write the configuration and the tokenizer of a GGUF file into a folder."""
    try:
        config = AutoConfig.from_pretrained(source.place, gguf_file=source.gguf)
        tokenizer = AutoTokenizer.from_pretrained(source.place, gguf_file=source.gguf)
    except Exception as error:  # whatever a parser raises that runs past the end of a torn file
        raise SakuinError(f"transformers cannot read {path}: {_first_line(error)}.") from error
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _keep(fresh: Path, folder: Path) -> bool:
    """Copy what was converted to `folder`, all or nothing. False where the cache folder cannot be written,
    which costs time at the next call, no more."""
    try:
        folders.make_folder(folder.parent)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    except (OSError, SakuinError):
        return False
    old = new.with_name(f"{new.name}-old")
    try:
        shutil.copytree(fresh, new, dirs_exist_ok=True)
        if folder.is_dir():  # which could not be read, or another process has made it just now
            folder.rename(old)
        new.rename(folder)
        return True
    except OSError:
        return False
    finally:
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Within, the hub's client keeps its remarks about every try to itself; the error says it once."""
    log = logging.getLogger("huggingface_hub")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _not_there(source: Source, error: Exception) -> SakuinError:
    if Path(source.place).is_dir():
        return SakuinError(f"the model in {source.name} cannot be read: {_first_line(error)}.")
    return SakuinError(
        f"there is no model {source.name!r}{meant_name(source.name)}: it is not one of {known_names()}, no "
        "folder or .gguf file of that name is here, and the model hub did not give it (check the spelling "
        "and the network)."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
