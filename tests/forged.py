"""Snapshots and archives as whoever forges them makes them: something is changed, and all checksums fit
again."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from sakuin.snapshot import manifest as manifests
from sakuin.snapshot import store
from sakuin.storage import tensorfile

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
"""Whether this is `make fuzz`."""

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**30,
    0.5,
    1e400,
    "",
    "x",
    "../../x",
    "é" * 9,
    [],
    {},
    [[]],
]

Change = Callable[[dict[str, Tensor], dict[str, str]], None]
"""Changes the tensors of a part, by "LAYER.FIELD", and the strings beside them."""


def signed(said: dict[str, Any]) -> bytes:
    """A manifest with a checksum that fits, as whoever forges one would make it."""
    said = {key: value for key, value in said.items() if key != "checksum"}
    return json.dumps(said | {"checksum": manifests._checksum(said)}, ensure_ascii=False).encode()


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a JSON value something stands."""
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        found += places(one, (*path, key))
    return found


def changed(said: dict[str, Any], draw: random.Random) -> tuple[dict[str, Any], str]:
    """A copy in which one place is something else, missing, or doubled."""
    said = json.loads(json.dumps(said))
    path = draw.choice(places(said))
    holder = said
    for key in path[:-1]:
        holder = holder[key]
    last, how = path[-1], draw.randrange(4)
    if how == 0:
        del holder[last]
    elif how == 1 and isinstance(holder, list):
        holder.insert(last, holder[last])
    else:
        old = holder[last]
        near = (
            [old + 1, old - 1, -old]
            if type(old) is int
            else [old[1:], old + "0"]
            if isinstance(old, str)
            else []
        )
        holder[last] = draw.choice([*ODD, *near, *near])
    return said, f"{path} {how}"


def file_of(part: dict[str, Any]) -> str:
    """The name of a part's file, by what the manifest says of it."""
    return f"{part['name'][:32]}-{part['sha256']}.safetensors"


def rewritten(path: Path, change: Change) -> bytes:
    """The part file at `path` with a change."""
    mapped = tensorfile.open_mapped(path)
    tensors = {name: x.clone() for name, x in mapped.tensors.items()}
    facts = dict(mapped.metadata)
    change(tensors, facts)
    out = io.BytesIO()
    tensorfile.write(out, tensors, facts)
    return out.getvalue()


def forge(folder: Path, kind: str, change: Change) -> None:
    """Change the last part of this kind of the snapshot in `folder`, and let its manifest say so."""
    path = folder / store.MANIFEST
    said = json.loads(path.read_bytes())
    part = [one for one in said["parts"] if one["kind"] == kind][-1]
    data = rewritten(folder / store.PARTS / file_of(part), change)
    part |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / store.PARTS / file_of(part)).write_bytes(data)
    path.write_bytes(signed(said))


def entries_of(archive: Path) -> list[tuple[str, bytes]]:
    """Names and contents of the files in a tar."""
    with tarfile.open(archive) as held:
        return [(entry.name, held.extractfile(entry).read()) for entry in held]  # type: ignore[union-attr]


def packed(path: Path, entries: Sequence[tuple[str, bytes]]) -> Path:
    """A tar of these at `path`."""
    with tarfile.open(path, "w") as odd:
        for name, data in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            odd.addfile(entry, io.BytesIO(data))
    return path


def forged_archive(source: Path, target: Path, kind: str, change: Change) -> Path:
    """The exported context in `source` with its last part of this kind changed, at `target`."""
    (_, manifest), *files = entries_of(source)
    said = json.loads(manifest)
    part = [one for one in said["parts"] if one["kind"] == kind][-1]
    old = file_of(part)
    place = target.with_suffix(".part")
    place.write_bytes(dict(files)[old])
    data = rewritten(place, change)
    part |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    entries = [(file_of(part), data) if name == old else (name, held) for name, held in files]
    return packed(target, [("manifest.json", signed(said)), *entries])
