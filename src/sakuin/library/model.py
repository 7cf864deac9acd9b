"""The model that a stored context was read with, loaded again. Called by `sakuin.library.opening` and by the
command line, which says meanwhile what it loads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sakuin.backends.open import describe, load
from sakuin.dtypes import of_torch_name
from sakuin.errors import SakuinError
from sakuin.library.folder import Stored


@dataclass(frozen=True)
class Loadable:
    """How a context's model is loaded.

    name : of the model. dtype : the word for its dtype. backend : the one that read the context where no
    other can open it, else "auto". window : the tokens that it read by scaled positions, or None.
    """

    name: str
    dtype: str
    backend: str
    window: int | None

    def fitting(self, backend: str) -> int | None:
        """The window to load it with, with that backend: none for a model that reads more as it is. It is
        another one, and what opens the context says so."""
        if self.window is None:
            return None
        own = describe(self.name, backend=backend).shape.window
        return self.window if own is None or own <= self.window else None


def model_of(stored: Stored, named: str | None = None) -> Loadable:
    """The model that a context was read with. named : where it is now, if not where it was."""
    manifest = stored.manifest
    name = named or manifest.model
    if not name:
        raise SakuinError(
            f"the context {stored.name!r} does not say by which name its model was loaded; name the model "
            "yourself."
        )
    backend = manifest.backend if manifest.bound else "auto"
    return Loadable(name, of_torch_name(manifest.fingerprint.dtype) or "auto", backend, manifest.window)


def load_model_of(stored: Stored) -> tuple[Any, Any]:
    """The model that a context was read with, and its tokenizer, in its dtype and with its window."""
    model = model_of(stored)
    return load(model.name, model.dtype, window=model.fitting(model.backend), backend=model.backend)
