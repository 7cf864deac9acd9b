"""What the name of a model means: a name that sakuin knows, a local folder, a `.gguf` file or a hub id.

Fetching files is the business of `sakuin.backends.catalogue`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sakuin import arguments
from sakuin.backends import catalogue
from sakuin.errors import SakuinError
from sakuin.quantities import meant
from sakuin.storage.paths import expanded, is_address, is_file, is_folder, shortened

_MOST_ID = 193
"""Characters of a hub id: two names of 96 and the slash."""


@dataclass(frozen=True)
class Source:
    """Where a model's files are.

    name : what it was named. place : the folder, absolute, or the hub id. gguf : the GGUF file in the folder
    if it is one. known : whether the name is one of sakuin's own.
    """

    name: str
    place: str
    gguf: str | None = None
    known: bool = False

    @property
    def gguf_path(self) -> Path | None:
        return Path(self.place) / self.gguf if self.gguf else None

    @property
    def lasting_name(self) -> str:
        """By which the model is found from any folder, as a stored context keeps it: of files the absolute
        path."""
        if self.known:
            return self.name
        return str(self.gguf_path) if self.gguf else self.place


def resolve(name_or_path: str | os.PathLike[str]) -> Source:
    """Find out what `name_or_path` means; an error says what to do where it means nothing."""
    name = arguments.path("name_or_path", name_or_path)
    if is_address(name):
        raise SakuinError(_address(name))
    if name in catalogue.MODELS:
        model = catalogue.MODELS[name]
        if not model.is_here:
            raise SakuinError(
                f"the model {name} is not on this machine yet; `sakuin models get {name}` fetches it."
            )
        catalogue.check(model)
        return Source(name, str(model.path.parent.absolute()), model.file, known=True)
    path = expanded(name)
    if name and is_folder(path):
        if is_file(path / "config.json"):
            return Source(name, str(path.absolute()))
        raise SakuinError(
            f"the folder {name} holds no config.json, so it is no model folder; name a folder that "
            "transformers' save_pretrained wrote, or a .gguf file."
        )
    if path.suffix.lower() == ".gguf":
        if not is_file(path):
            raise SakuinError(f"there is no file {shortened(name)}; check the path of the model.")
        if (kept := catalogue.kept_at(path)) is not None:
            catalogue.check(kept)
        return Source(name, str(path.parent.absolute()), path.name)
    if is_file(path):
        raise SakuinError(
            f"{name} is a file but not a .gguf file; name a model folder, a .gguf file or a hub id."
        )
    if not name or name.startswith((".", "/", "~")) or name.count("/") > 1 or len(name) > _MOST_ID:
        raise SakuinError(
            f"there is no model at {shortened(name)!r}{meant_name(name)}; name a folder, a .gguf file, a hub "
            f"id, or {known_names()}."
        )
    return Source(name, name)


def _address(name: str) -> str:
    what = f"{shortened(name)} is an address, and sakuin fetches no model from one"
    hub = re.match(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)", name)
    if hub is not None and ".gguf" not in name.lower():
        return f"{what}; name it by its hub id: {hub[1]}."
    return f"{what}; download the file and name that, or take {known_names()}."


def meant_name(name: str) -> str:
    """ " (did you mean …?)" where a name of sakuin's own is nearly `name`; else ""."""
    return meant(name, catalogue.MODELS)


def known_names() -> str:
    return " or ".join(f"{name}" for name in catalogue.MODELS)
