"""The marks of a GGUF file: what a context belongs to that was read with its model, whichever backend ran it.

Both backends ask here, so that both say the same of a file. All of the file is read once, and its hashes are
kept in the user's cache folder. Called by `sakuin.backends.llama_cpp.backend` and
`sakuin.backends.transformers.fingerprint`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sakuin.backends.fingerprint import Fingerprint, hash_of, of_file
from sakuin.backends.gguf_file import GgufHeader, Place
from sakuin.errors import SakuinError
from sakuin.storage.folders import cache_folder, make_folder
from sakuin.storage.small_files import read_json
from sakuin.storage.whole_files import write_whole

_BLOCK = 1 << 20
_THREADS = 8
_FORM = 1
"""Of what is kept in the cache folder."""
_TABLES = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors that change the frequencies of rotary embeddings; some files have them in each layer."""


@dataclass(frozen=True)
class Rope:
    """The rotary embeddings by which a backend turns keys, in the same words for every backend.

    base : of the frequencies. dims : numbers of a head that are turned. scaling : how positions are scaled;
    then factor, original : by how much, and from which window. tables : tensors that change the frequencies.
    """

    base: float
    dims: int
    scaling: str = ""
    factor: float = 1.0
    original: int = 0
    tables: tuple[str, ...] = ()

    def yarn(self, own: int, window: int) -> Rope:
        """The same for `window` tokens in the place of `own`, by YaRN."""
        return replace(self, scaling="yarn", factor=window / own, original=own)

    def long(self, long: bool) -> Rope:
        """Of LongRoPE, which has tables for short and for long contexts: with one of them."""
        other = f"rope_factors_{'short' if long else 'long'}.weight"
        return replace(self, tables=tuple(table for table in self.tables if table != other))

    def __str__(self) -> str:
        said: dict[str, Any] = {"base": self.base, "dims": self.dims}
        if self.scaling:
            said |= {"scaling": self.scaling, "factor": self.factor, "original": self.original}
        if self.tables:
            said["tables"] = self.tables
        return json.dumps(said, sort_keys=True)


@dataclass(frozen=True)
class Marks:
    """Hashes of what a file holds: the architecture's metadata, all tensors, the vocabulary. rope : its
    rotary embeddings, as llama.cpp reads them."""

    config: str
    weights: str
    tokenizer: str
    rope: Rope

    def fingerprint(self, dtype: str, rope: object, template: str, tokenizer: str = "") -> Fingerprint:
        """That of a model of this file. tokenizer : a hash, where it is not the file's any more."""
        return Fingerprint(
            dtype=dtype,
            config=self.config,
            rope=str(rope),
            weights=self.weights,
            tokenizer=tokenizer or self.tokenizer,
            template=hash_of(template),
        )


class GgufFile:
    """A GGUF file, or all parts of a split one, as it is when this is made: before a model is loaded of
    it."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files = [path.resolve() for path in files]
        self._state = self._now()
        self._marks: Marks | None = None

    def marks(self) -> Marks:
        """The file's marks. The first call for a file reads all of it, at the speed of SHA-256.

        Raises `SakuinError` where it cannot be read, or is not what it was.
        """
        if self._marks is None:
            kept = cache_folder() / "fingerprints" / f"{hash_of(self._state)[:24]}.json"
            found = _kept(kept, self._state) or _read(self._files)
            if self._now() != self._state:
                raise SakuinError(
                    f"{self._files[0]} was changed after the model was loaded from it, so a context of the "
                    "model cannot be marked as the file's; load the model again."
                )
            _keep(kept, self._state, found)
            self._marks = found
        return self._marks

    def _now(self) -> list[list[Any]]:
        try:
            stats = [(path, path.stat()) for path in self._files]
        except OSError as error:
            raise SakuinError(f"{error.filename} cannot be read: {error.strerror}.") from error
        return [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats]


# -- what is kept --------------------------------------------------------------------------------------------


def _kept(path: Path, state: list[list[Any]]) -> Marks | None:
    """What was kept of a file; None where that is nothing, torn, or of another file."""
    try:
        said = read_json(path)
        checksum = said.pop("checksum")
        if checksum != hash_of(said) or said["form"] != _FORM or said["files"] != state:
            return None
        rope = Rope(**said["rope"] | {"tables": tuple(said["rope"]["tables"])})
        marks = Marks(said["config"], said["weights"], said["tokenizer"], rope)
        words = (marks.config, marks.weights, marks.tokenizer, rope.scaling, *rope.tables)
        numbers = (rope.base, rope.dims, rope.factor, rope.original)
        if not all(isinstance(word, str) for word in words) or not all(map(math.isfinite, numbers)):
            return None
        return marks
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _keep(path: Path, state: list[list[Any]], marks: Marks) -> None:
    """Keep them, if they are not; a cache folder that cannot be written costs time at the next call, no
    more."""
    if _kept(path, state) == marks:
        return
    said = {"form": _FORM, "files": state, **asdict(marks)}
    with contextlib.suppress(OSError, SakuinError):
        make_folder(path.parent)
        write_whole(path, json.dumps(said | {"checksum": hash_of(said)}).encode())


# -- what a file says ----------------------------------------------------------------------------------------


def _read(files: Sequence[Path]) -> Marks:
    headers = [GgufHeader.read(path) for path in files]
    first = headers[0]
    architecture = first.text("general.architecture")
    config = {key for key in first.values if key.startswith(f"{architecture}.")}
    tokenizer = {key for key in first.values if key.startswith("tokenizer.")}
    return Marks(
        config=_hash_values(first, [*config, *({"general.architecture"} & set(first.values))]),
        weights=of_file(_hash_tensors(headers)),
        tokenizer=_hash_values(first, {key for key in tokenizer if "chat_template" not in key}),
        rope=_rope(first, architecture, {place.name for header in headers for place in header.tensors}),
    )


def _hash_values(header: GgufHeader, keys: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for key in sorted(keys):
        raw = header.values[key]
        digest.update(f"{key} {len(raw)}\n".encode())
        digest.update(raw)
    return digest.hexdigest()


def _hash_tensors(headers: Sequence[GgufHeader]) -> str:
    """Of all tensors in the order of their names, so that a split file has the hash of the whole."""
    every = sorted(((header.path, place) for header in headers for place in header.tensors), key=_name_of)
    with ThreadPoolExecutor(max(1, min(_THREADS, os.cpu_count() or 1))) as pool:
        digests = list(pool.map(_hash_place, every))
    digest = hashlib.sha256()
    for (_, place), one in zip(every, digests, strict=True):
        digest.update(f"{place.name} {place.type} {list(place.shape)} {one}\n".encode())
    return digest.hexdigest()


def _name_of(one: tuple[Path, Place]) -> str:
    return one[1].name


def _hash_place(one: tuple[Path, Place]) -> str:
    path, place = one
    digest, block, at = hashlib.sha256(), memoryview(bytearray(_BLOCK)), place.start
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(at)
            while at < place.end:
                n = file.readinto(block[: min(_BLOCK, place.end - at)])
                if not n:
                    raise SakuinError(f"{path} is cut off; fetch it again.")
                digest.update(block[:n])
                at += n
    except OSError as error:
        raise SakuinError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


def _rope(header: GgufHeader, architecture: str, names: Iterable[str]) -> Rope:
    def number(key: str, default: float = 0) -> float:
        return header.number(f"{architecture}.{key}", default)

    head_dim = number("attention.key_length") or number("embedding_length") // max(
        number("attention.head_count"), 1
    )
    factor = number("rope.scaling.factor") or number("rope.scale_linear") or 1.0
    scaling = header.text(f"{architecture}.rope.scaling.type") or "linear"
    if scaling == "none" or (scaling == "linear" and factor == 1):
        scaling = ""
    return Rope(
        base=float(number("rope.freq_base", 10000.0)),
        dims=int(number("rope.dimension_count", head_dim)),
        scaling=scaling,
        factor=float(factor) if scaling else 1.0,
        original=int(number("rope.scaling.original_context_length")) if scaling else 0,
        tables=tuple(table for table in _TABLES if any(name.endswith(table) for name in names)),
    )
