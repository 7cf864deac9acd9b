"""Imports under fire: whatever an archive, its manifest or a part says, it is refused before anything is
taken, or it is a context that harms no other; and nothing that stood is lost."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forged import LONG, ODD, changed, entries_of, file_of, packed, rewritten, signed
from stored import CONFIG, TEXT, WINDOWED, model_of, read, said
from torch import Tensor

from sakuin import Context, Library
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.library import archive

CASES = 1000 if LONG else 50
Entries = list[tuple[str, bytes]]


class Fire:
    """What is done to an archive. Each way gives other entries, or writes the archive itself."""

    def __init__(self, entries: Entries, folder: Path, seed: int) -> None:
        self.entries, self.folder, self.draw = entries, folder, random.Random(seed)
        self.said = json.loads(entries[0][1])

    def archive(self) -> tuple[Path, str]:
        ways: list[Callable[[], Entries | bytes]] = [
            self.forged_manifest,
            self.forged_part,
            self.forged_part,
            self.forged_numbers,
            self.damaged_part,
            self.shuffled,
            self.torn,
            self.odd_entry,
        ]
        way, path = self.draw.choice(ways), self.folder / "odd.tar"
        made = way()
        if isinstance(made, bytes):
            path.write_bytes(made)
        else:
            packed(path, made)
        return path, way.__name__

    def forged_manifest(self) -> Entries | bytes:
        """One place of the manifest is another, and its checksum fits."""
        said = self.said
        for _ in range(self.draw.randrange(1, 3)):
            said, _ = changed(said, self.draw)
            if not isinstance(said, dict):
                break
        try:
            return [("manifest.json", signed(said)), *self.entries[1:]]
        except (ValueError, AttributeError):
            return [("manifest.json", json.dumps(said).encode()), *self.entries[1:]]

    def _with_part(self, change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> Entries:
        """A part is another, and all checksums fit."""
        said = json.loads(json.dumps(self.said))
        part = self.draw.choice(said["parts"])
        old, place = file_of(part), self.folder / "part"
        place.write_bytes(dict(self.entries)[old])
        data = rewritten(place, change)
        part |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        files = [(file_of(part), data) if name == old else (name, held) for name, held in self.entries[1:]]
        return [("manifest.json", signed(said)), *files]

    def forged_part(self) -> Entries:
        """Tensors of other shapes, dtypes or names, or missing, or other facts beside them."""

        def change(tensors: dict[str, Tensor], facts: dict[str, str]) -> None:
            for _ in range(self.draw.randrange(1, 4)):
                name = self.draw.choice(sorted(tensors))
                x, how = tensors[name], self.draw.randrange(8)
                axis = self.draw.randrange(max(x.dim(), 1))
                if how == 0 and len(tensors) > 1:
                    del tensors[name]
                elif how == 1:
                    tensors[name] = x.to(
                        self.draw.choice([torch.int64, torch.uint8, torch.float64, torch.half])
                    )
                elif how == 2:
                    tensors[name] = torch.cat([x, x], axis)
                elif how == 3:
                    tensors[name] = x.narrow(axis, 0, x.shape[axis] // 2).contiguous()
                elif how == 4:
                    tensors[name] = x[:0]
                elif how == 5:
                    tensors[name] = x.transpose(0, -1).contiguous()
                elif how == 6:
                    tensors[f"{self.draw.randrange(3)}.{self.draw.choice(['keys', 'next', 'more'])}"] = x
                else:
                    words = ["", "x", "9", "{", "[]", '{"1": "flat"}', '{"0": []}', "tail", "1" * 5000]
                    facts[self.draw.choice([*facts, "index"])] = self.draw.choice(words)

        return self._with_part(change)

    def forged_numbers(self) -> Entries:
        """Bits of the numbers are others."""

        def change(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
            for _i in range(self.draw.randrange(1, 5)):
                held = tensors[self.draw.choice(sorted(tensors))].view(-1).view(torch.uint8)
                for _j in range(self.draw.randrange(1, 9)):
                    if len(held):
                        held[self.draw.randrange(len(held))] ^= 1 << self.draw.randrange(8)

        return self._with_part(change)

    def damaged_part(self) -> Entries:
        """A part is not what its checksum says."""
        at = self.draw.randrange(1, len(self.entries))
        name, data = self.entries[at]
        place = self.draw.randrange(len(data))
        other = bytearray(data)
        other[place] ^= 1 << self.draw.randrange(8)
        cut = bytes(other if self.draw.random() < 0.5 else data[:place])
        return [*self.entries[:at], (name, cut), *self.entries[at + 1 :]]

    def shuffled(self) -> Entries:
        """Entries are missing, doubled, renamed or in another order."""
        entries = list(self.entries)
        at, how = self.draw.randrange(len(entries)), self.draw.randrange(4)
        if how == 0:
            del entries[at]
        elif how == 1:
            entries.insert(self.draw.randrange(len(entries)), entries[at])
        elif how == 2:
            names = ["../" * 3, "/", "x", "key", "codes", "parts/", "é" * 60, "\n\x1b[2J"]
            entries[at] = (self.draw.choice(names) + entries[at][0], entries[at][1])
        else:
            first, *rest = entries
            self.draw.shuffle(rest)
            entries = [*rest, first]
        return entries

    def torn(self) -> bytes:
        """The archive ends somewhere, or bits of it are others."""
        data = bytearray(packed(self.folder / "whole.tar", self.entries).read_bytes())
        if self.draw.random() < 0.5:
            return bytes(data[: self.draw.randrange(len(data))])
        for _ in range(self.draw.randrange(1, 4)):
            block = 512 * self.draw.randrange(len(data) // 512)
            data[block + self.draw.randrange(512)] ^= 1 << self.draw.randrange(8)
        return bytes(data)

    def odd_entry(self) -> bytes:
        """An entry of another kind, or with a header that it should not have."""
        out = io.BytesIO()
        odd = self.draw.randrange(len(self.entries))
        with tarfile.open(fileobj=out, mode="w") as held:
            for i, (name, data) in enumerate(self.entries):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                if i == odd:
                    entry.type = self.draw.choice([b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"V", b"Z"])
                    entry.linkname = self.draw.choice(["/etc/passwd", "manifest.json", ""])
                    keys = ["size", "path", "GNU.sparse.size", "GNU.sparse.map", "comment", "linkpath"]
                    entry.pax_headers = {self.draw.choice(keys): str(self.draw.choice(ODD))}
                try:
                    held.addfile(entry, io.BytesIO(data))
                except (ValueError, TypeError, tarfile.TarError):
                    held.addfile(tarfile.TarInfo("x"))
        return out.getvalue()


def files_of(library: Library) -> dict[str, Any]:
    """All that lies in a library, but when it was used."""
    found = {}
    for path in library.folder.path.rglob("*"):
        if path.is_file() and path.suffix not in (".used", ".asked") and path.parent.name != "locks":
            about = path.stat()
            found[str(path)] = (about.st_ino, about.st_size, about.st_mtime_ns)
    return found


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", ["llama", WINDOWED])
def test_whatever_is_imported_nothing_that_stood_is_lost(family: str, tmp_path: Path) -> None:
    theirs, mine = Library(tmp_path / "theirs"), Library(tmp_path / "mine")
    theirs.add("theirs", [Document("a.txt", TEXT)], *model_of(family), CONFIG)
    archive.export_to(theirs, "theirs", tmp_path / "theirs.tar")
    entries = entries_of(tmp_path / "theirs.tar")
    # Three stand; an import has room only where one of them goes.
    for name in ("one", "two"):
        text = [Document("a.txt", f"{name} {TEXT}")]
        mine.add(name, text, *model_of(family), CONFIG, pin=True)
    bait = read(family, f"bait {TEXT}")
    mine.save("bait", bait)
    mine.quota = mine.folder.size() + sum(len(data) for _, data in entries) // 2
    answers = {name: said(mine.open(name, *model_of(family))) for name in ("one", "two")}
    fire, counts = Fire(entries, tmp_path, CASES), {"refused": 0, "useless": 0, "taken": 0}
    for case in range(CASES // 2):
        before = files_of(mine)
        path, way = fire.archive()
        try:
            if not taken(mine, path):
                assert files_of(mine) == before
                counts["refused"] += 1
                continue
            counts["taken" if usable(mine, family) else "useless"] += 1
            (held,) = [one.files for one in mine.folder.listed() if one.name == "odd"]
            assert set(mine.imported("odd")["odd"]) == held
        except Exception as error:
            raise AssertionError(f"case {case}, {way}: {error!r}") from error
        mine.remove("odd")
        if not mine.is_there("bait"):
            mine.save("bait", bait)
        if case % 25 == 0:
            assert all(damage == [] for damage in mine.verify().values())
    print(family, counts)
    assert counts["refused"] > 0.3 * CASES / 2
    assert mine.verify() == {"bait": [], "one": [], "two": []}
    assert {name: said(mine.open(name, *model_of(family))) for name in answers} == answers
    mine.quota = None
    own = mine.add("own", [Document("a.txt", TEXT)], *model_of(family), CONFIG)
    alone = Context.from_documents(*model_of(family), own.documents, CONFIG)
    assert said(own)[0] == said(alone)[0]


def taken(library: Library, path: Path) -> bool:
    """Whether the archive can be imported; where not, a sentence says why."""
    return not refusal(lambda: archive.import_from(library, path, "odd"))


def usable(library: Library, family: str) -> bool:
    """Whether the context can be asked; where not, a sentence says why."""
    return not refusal(lambda: library.open("odd", *model_of(family)).ask("Who?", max_new_tokens=2))


def refusal(call: Callable[[], Any]) -> str:
    """Why `call` is refused; "" where it is not. Any other error fails the test."""
    sentence = ""
    try:
        call()
    except SakuinError as error:
        sentence = str(error)
    assert not sentence or (20 < len(sentence) < 900 and sentence.endswith("."))
    return sentence
