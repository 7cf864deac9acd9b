"""A document as a manifest tells of it. Called by `sakuin.snapshot.manifest` and `store`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_MOST = 1 << 48
"""Characters and lines that a file can have before what was read of it."""


@dataclass(frozen=True)
class StoredDocument:
    """A document of the context: characters `start` to `end` of the body are its text. more : what else its
    reader knows of it, as JSON."""

    name: str
    start: int
    end: int
    more: dict[str, Any]

    @property
    def is_described(self) -> bool:
        """Whether `more` is of the right form, and gives the document no other name and text than those that
        were read. Where marks lie is checked with the text."""
        more = self.more
        if not isinstance(more, dict) or {"name", "text"} & more.keys():
            return False
        marks, notes = (more.get(name, []) for name in ("marks", "notes"))
        counts = [more.get(name, 0) for name in ("offset", "lines_before")]
        return (
            isinstance(marks, list | tuple)
            and all(isinstance(mark, dict) for mark in marks)
            and isinstance(notes, list | tuple)
            and all(isinstance(note, str) for note in notes)
            and isinstance(more.get("path"), str | None)
            and all(type(count) is int and 0 <= count <= _MOST for count in counts)
        )
