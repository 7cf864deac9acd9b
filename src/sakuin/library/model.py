"""The model that a stored context was read with, loaded again. Called by `sakuin.library.opening` and by the
command line, which says meanwhile what it loads."""

from __future__ import annotations

from typing import Any

from sakuin.backends.open import load
from sakuin.dtypes import of_torch_name
from sakuin.errors import SakuinError
from sakuin.library.folder import Stored


def model_of(stored: Stored, named: str | None = None) -> tuple[str, str, str]:
    """The name of the model that a context was read with, the word for its dtype, and the backend: the one
    that read it where no other can open it, else "auto". named : where the model is now, if not where it
    was."""
    name = named or stored.manifest.model
    if not name:
        raise SakuinError(
            f"the context {stored.name!r} does not say by which name its model was loaded; name the model "
            "yourself."
        )
    backend = stored.manifest.backend if stored.manifest.bound else "auto"
    return name, of_torch_name(stored.manifest.fingerprint.dtype) or "auto", backend


def load_model_of(stored: Stored) -> tuple[Any, Any]:
    """The model that a context was read with, and its tokenizer, in its dtype."""
    name, dtype, backend = model_of(stored)
    return load(name, dtype, backend=backend)
