"""Which stored context a sequence of tokens begins like. Called by `sakuin.server.service`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sakuin.backends.base import Backend
from sakuin.config import RetrievalConfig
from sakuin.library.folder import Folder
from sakuin.library.prefix import Sequel, longest
from sakuin.snapshot.part import Names, owner_of


def beginning_like(
    folder: Folder,
    backend: Backend,
    config: RetrievalConfig,
    ids: Sequence[int],
    among: Collection[str] | None = None,
) -> tuple[str, int]:
    """The whole context that begins most like `ids`, and how many first tokens they share; "" and 0 where
    none does. Nothing is opened.

    config : that contexts are stored with. among : names; None for all.
    """
    fingerprint, shape = backend.fingerprint(), backend.shape
    names = Names(ids, fingerprint, config, shape.head_dim, len(ids), owner_of(backend))
    wanted = [one for one in folder.listed() if not one.unfinished and (among is None or one.name in among)]
    name, parts = longest(wanted, folder.parts.all(), Sequel(fingerprint, names, len(ids), shape.has_windows))
    return name, parts[-1].end if parts else 0
