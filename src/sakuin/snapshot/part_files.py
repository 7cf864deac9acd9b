"""The part files of a folder: each is written once, under its name and the hash of its content.

Listing and checking them needs no torch; what reads or writes tensors imports it when it is called.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from sakuin.errors import SakuinError
from sakuin.machine import memory
from sakuin.snapshot.manifest import StoredPart
from sakuin.snapshot.part import Names, Part
from sakuin.storage.folders import free_bytes
from sakuin.storage.whole_files import TEMPORARY, new_file, publish


class PartFiles:
    """The part files of a folder. Each is written once, under its name and the hash of its content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> dict[str, int]:
        """The names of the files that are there, and their sizes."""
        found = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if _FILE.fullmatch(entry.name):
                    found[entry.name] = entry.stat().st_size
        return found

    def strays(self) -> list[str]:
        """Names of files that somebody began to write."""
        return [name for name in os.listdir(self.folder) if name.startswith(TEMPORARY)]

    def put(self, parts: Iterable[Part], names: Names) -> list[StoredPart]:
        """Write what is not there yet; what the files are, in order. The caller holds the folder's lock."""
        there: dict[str, tuple[str, int]] = {}
        for file, size in sorted(self.all().items()):
            if match := _FILE.fullmatch(file):
                there.setdefault(match[1], (match[2], size))
        stored = []
        for part in parts:
            name = names.of(part.kind, part.start, part.end)
            sha256, size = there.get(name[:32]) or self._write(part, name)
            stored.append(StoredPart(part.kind, part.start, part.end, name, size, sha256))
        return stored

    def _write(self, part: Part, name: str) -> tuple[str, int]:
        from sakuin.storage import tensorfile  # torch

        need, free = tensorfile.file_size(part.tensors.values()), free_bytes(self.folder)
        if free < need:
            raise SakuinError(
                f"the disk that holds {self.folder} has {free / 1e6:,.0f} MB free and the next file takes "
                f"{need / 1e6:,.0f} MB; free some and try again. What is stored already stays as it was."
            )
        facts = part.facts | {"name": name, "kind": part.kind, "start": str(part.start), "end": str(part.end)}
        with new_file(self.folder) as (file, path):
            size, sha256 = tensorfile.write(file, part.tensors, facts)
            publish(file, path, self.folder / f"{name[:32]}-{sha256}.safetensors")
        return sha256, size

    def open(self, stored: StoredPart) -> Part:
        """The part in a file, mapped."""
        from sakuin.storage import tensorfile  # torch

        mapped = tensorfile.open_mapped(self.folder / stored.file, stored.size)
        facts = dict(mapped.metadata)
        said = [facts.pop(key, "") for key in ("name", "kind", "start", "end")]
        if said != [stored.name, stored.kind, str(stored.start), str(stored.end)]:
            raise SakuinError(
                f"{self.folder / stored.file} holds another part than its name says: it is damaged."
            )
        return Part(stored.kind, stored.start, stored.end, mapped.tensors, facts)

    def read_ahead(self, parts: Sequence[StoredPart]) -> None:
        """Have the system read these files while something else is done, if they fit into memory."""
        if sum(part.size for part in parts) > memory.available().bytes:
            return
        for part in parts:
            # Advice: a file that is not there is found missing where it is opened.
            with contextlib.suppress(OSError, AttributeError):
                handle = os.open(self.folder / part.file, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_WILLNEED)
                finally:
                    os.close(handle)

    def missing(self, parts: Iterable[StoredPart]) -> str | None:
        """What is wrong with the first file that is not there or has another size; None if all are well."""
        there = self.all()
        for part in parts:
            if part.file not in there:
                return f"{self.folder / part.file} is missing"
            if there[part.file] != part.size:
                found = there[part.file]
                return f"{self.folder / part.file} has {found:,} bytes where {part.size:,} were written"
        return None

    def damage(self, part: StoredPart) -> str | None:
        """What is wrong with a file, all of which is read; None if it is well."""
        if found := self.missing([part]):
            return found
        with (self.folder / part.file).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != part.sha256:
                return f"{self.folder / part.file} is damaged: its content is not what was written"
        return None


_FILE = re.compile(r"([0-9a-f]{32})-([0-9a-f]{64})\.safetensors")
