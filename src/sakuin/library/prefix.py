"""Which stored context begins most like a sequence of tokens, so that its beginning is not read again.

Names are compared, nothing else: equal names are equal numbers (`sakuin.snapshot.part`). No cache is made and
no file is opened. Called by `sakuin.library.adding`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sakuin.backends.fingerprint import Fingerprint
from sakuin.errors import SakuinError
from sakuin.library.folder import Listed, expired
from sakuin.snapshot.manifest import StoredPart
from sakuin.snapshot.part import Names


@dataclass(frozen=True)
class Sequel:
    """A sequence of tokens that is to be read.

    names : of its parts. limit : a position before which what is taken must end. windows : whether going on
    needs the state of layers without an index, as it was at that position.
    """

    fingerprint: Fingerprint
    names: Names
    limit: int
    windows: bool


def longest(
    contexts: Iterable[Listed], there: Mapping[str, int], sequel: Sequel
) -> tuple[str, list[StoredPart]]:
    """The context that begins most like the sequence, and its parts up to where they differ, so that the last
    ends where the rest begins; "" and none where nothing is common.

    there : the files that may be taken, and their sizes; a part of another size is damaged and not taken.
    """
    best: tuple[str, list[StoredPart]] = "", []
    for one in contexts:
        said = one.said
        if isinstance(said, SakuinError) or said.fingerprint != sequel.fingerprint or expired(said):
            continue
        found = common([part for part in said.parts if there.get(part.file) == part.size], sequel)
        if found and (not best[1] or found[-1].end > best[1][-1].end):
            best = one.name, found
    return best


def common(stored: Sequence[StoredPart], sequel: Sequel) -> list[StoredPart]:
    """Of a context's parts, those that the sequence has too, up to a position where it can go on."""
    names, limit = sequel.names, sequel.limit
    windows = {part.end: part for part in stored if part.kind == "window" and part.end < limit}
    chain: list[StoredPart] = []
    usable = 0
    for part in sorted((p for p in stored if p.kind in ("sink", "segment")), key=lambda p: (p.end, p.start)):
        if part.end >= limit or part.start != (chain[-1].end if chain else 0):
            break
        if names.of(part.kind, part.start, part.end) != part.name:
            break
        chain.append(part)
        if part.kind == "segment" and (part.end in windows or not sequel.windows):
            usable = len(chain)
    chain = chain[:usable]
    end = chain[-1].end if chain else 0
    before = [windows[at] for at in sorted(windows) if at <= end]
    if any(names.of("window", part.start, part.end) != part.name for part in before):
        return []
    return [*before, *chain]
