"""From a stored context to one that can be asked. Called by `sakuin.library.library`."""

from __future__ import annotations

from typing import Any

from sakuin.config import RetrievalConfig
from sakuin.context.checks import check_stored, ready_backend
from sakuin.context.context import Context
from sakuin.errors import SakuinError
from sakuin.library.folder import Folder, Stored
from sakuin.library.model import load_model_of
from sakuin.snapshot import store

_TRIES = 3


def opened(
    folder: Folder, stored: Stored, model: Any, tokenizer: Any, config: RetrievalConfig | None = None
) -> tuple[Stored, Context]:
    """The context, mapped, and the manifest that it was opened by, which is a newer one where somebody
    changed the context meanwhile. Without a model, the one that it was read with is loaded."""
    if model is None:
        model, tokenizer = load_model_of(stored)
    check_stored(config)
    backend = ready_backend(model, tokenizer)
    stored = folder.newest(stored)
    for left in reversed(range(_TRIES)):
        try:
            where = folder.manifest(stored.name)
            found = store.snapshot_of(stored.manifest, folder.parts, where, backend, config)
            return stored, Context.of_snapshot(found)
        except (SakuinError, FileNotFoundError):
            # Somebody may have appended, and removed what is no longer needed.
            if not left or folder.is_newest(stored):
                raise
            stored = folder.find(stored.name)
    raise AssertionError
