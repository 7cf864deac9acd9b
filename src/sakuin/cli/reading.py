"""What commands have ready before a question is asked: documents, models, stored contexts. What it takes is
said on standard error meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sakuin.cli.loading import Loading
from sakuin.cli.misspelt import check_names
from sakuin.cli.show import notes, tell
from sakuin.errors import SakuinError
from sakuin.quantities import meant

if TYPE_CHECKING:
    from sakuin import Context, Library
    from sakuin.documents import Document
    from sakuin.library import Stored


def documents_of(paths: list[str], encoding: str | None) -> list[Document]:
    """The documents in files, folders and patterns; what they lack is said."""
    from sakuin import documents

    if not paths:
        return []
    check_names(paths)
    with notes.status("reading"):
        texts = _once(documents.read_all(paths, encoding))
    for note in (note for text in texts for note in text.notes):
        tell(note)
    return texts


def _once(texts: list[Document]) -> list[Document]:
    """Without a file that was named before; it is said."""
    found: list[Document] = []
    for text in texts:
        first = next((one for one in found if one.path == text.path not in (None, "-")), None)
        if first is None:
            found.append(text)
        else:
            twice = (
                "is named twice" if text.name == first.name else f"is {first.name}, which is named already"
            )
            tell(f"{text.name} {twice}; it is read once")
    return found


def refuse_system(system: str | None) -> None:
    """Say that a stored context keeps its system prompt, where another is given."""
    if system is not None:
        raise SakuinError(
            f"--system {system!r:.40} comes too late: what the model is told stands before the documents and "
            "belongs to a context from its start; add the documents with --system as a new context."
        )


def refuse_window(window: int | None) -> None:
    """Say that a stored context keeps the window that it was read with, where another is given."""
    if window is not None:
        raise SakuinError(
            f"--window {window} comes too late: every position of a stored context was scaled for the window "
            "that it was read with; add the documents with --window as a new context."
        )


def load_model_of(stored: Stored, named: str | None, loading: Loading) -> tuple[Any, Any]:
    """The model that a stored context was read with, and its tokenizer; `named` : where it is now, if not
    where it was."""
    from sakuin.library.model import model_of

    known = model_of(stored, named)
    loading = replace(
        loading, dtype=known.dtype, backend=known.backend if loading.backend == "auto" else loading.backend
    )
    loading.choose(known.name)  # what is wrong with the options is said first
    return replace(loading, window=known.fitting(loading.backend)).load(known.name)


def open_context(
    library: Library, name: str, model: str | None, loading: Loading, offload: str | None = None
) -> tuple[Context, str]:
    """A stored context with its model, and the model's name."""
    stored = library.find(name)
    config = None
    if offload is not None:
        if offload not in ("memory", "disk"):
            hint = meant(offload, ("memory", "disk"))
            raise SakuinError(f"--offload must be memory or disk, got {offload!r}{hint}.")
        config = stored.manifest.config.with_changes(offload=offload)
    loaded, tokenizer = load_model_of(stored, model, loading)
    return library.open(stored, loaded, tokenizer, config), model or stored.manifest.model
