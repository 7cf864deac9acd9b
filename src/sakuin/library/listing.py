"""What a library says of each of its contexts. Needs no torch. Called by `sakuin.library.library`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sakuin.errors import SakuinError
from sakuin.library.folder import Folder, expired
from sakuin.snapshot.manifest import StoredPart


@dataclass(frozen=True)
class Entry:
    """A context of a library.

    state : "whole", "unfinished", "expired" or "damaged". tokens : of an unfinished one those that are stored
    so far. bytes : of its files. own_bytes : of those that no other context needs. created, used, asked,
    kept_until : seconds since 1970; asked is 0 for one that was never opened to be asked.
    """

    name: str
    state: str
    model: str = ""
    tokens: int = 0
    bytes: int = 0
    own_bytes: int = 0
    created: float = 0.0
    used: float = 0.0
    kept_until: float | None = None
    pinned: bool = False
    asked: float = 0.0


def entries_of(folder: Folder) -> list[Entry]:
    """All contexts, by name."""
    found = folder.listed()
    needed: dict[str, int] = {}
    for one in found:
        for file in one.files:
            needed[file] = needed.get(file, 0) + 1
    entries = []
    for one in found:
        said = one.said
        if isinstance(said, SakuinError):
            entries.append(Entry(one.name, "damaged"))
            continue
        entries.append(
            Entry(
                one.name,
                "unfinished" if one.unfinished else "expired" if expired(said) else "whole",
                said.model,
                # The manifest of one that is being read names all its tokens.
                stored_in(said.parts) if one.unfinished else said.tokens,
                said.size,
                sum({p.file: p.size for p in said.parts if needed[p.file] == 1}.values()),
                said.created,
                folder.used(one.name),
                said.kept_until,
                said.pinned,
                0.0 if one.unfinished else folder.asked(one.name),
            )
        )
    return sorted(entries, key=lambda entry: (entry.name, entry.state))


def stored_in(parts: Sequence[StoredPart]) -> int:
    """Tokens of an unfinished context that its parts hold."""
    return max((part.end for part in parts if part.kind == "segment"), default=0)
