"""What the name of a model means: a name that sakuin knows, a local folder, a `.gguf` file or a hub id.

Fetching files is the business of `sakuin.backends.catalogue`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sakuin.backends import catalogue
from sakuin.errors import SakuinError
from sakuin.storage.paths import expanded, is_file, is_folder, shortened


@dataclass(frozen=True)
class Source:
    """Where a model's files are: a folder or a hub id, and the GGUF file in the folder if it is one."""

    name: str
    place: str
    gguf: str | None = None

    @property
    def gguf_path(self) -> Path | None:
        return Path(self.place) / self.gguf if self.gguf else None


def resolve(name_or_path: str | os.PathLike[str]) -> Source:
    """Find out what `name_or_path` means; an error says what to do where it means nothing."""
    name = os.fspath(name_or_path)
    if name in catalogue.MODELS:
        model = catalogue.MODELS[name]
        if not model.is_here:
            raise SakuinError(
                f"the model {name} is not on this machine yet; `sakuin models get {name}` fetches it."
            )
        return Source(name, str(model.path.parent), model.file)
    path = expanded(name)
    if name and is_folder(path):
        if is_file(path / "config.json"):
            return Source(name, str(path))
        raise SakuinError(
            f"the folder {name} holds no config.json, so it is no model folder; name a folder that "
            "transformers' save_pretrained wrote, or a .gguf file."
        )
    if path.suffix.lower() == ".gguf":
        if not is_file(path):
            raise SakuinError(f"there is no file {shortened(name)}; check the path of the model.")
        return Source(name, str(path.parent), path.name)
    if is_file(path):
        raise SakuinError(
            f"{name} is a file but not a .gguf file; name a model folder, a .gguf file or a hub id."
        )
    if not name or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise SakuinError(
            f"there is no model at {shortened(name)!r}; name a folder, a .gguf file, a hub id, or "
            f"{known_names()}."
        )
    return Source(name, name)


def known_names() -> str:
    return " or ".join(f"{name}" for name in catalogue.MODELS)
