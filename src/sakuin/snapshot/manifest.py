"""The manifest of a snapshot: one JSON object that says what the context is, with which model, and which
files it needs. Read with distrust: every field is checked before anything is done with it.

docs/format.md is the format. Called by `sakuin.snapshot.store` and `sakuin.library`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sakuin.backends.fingerprint import Fingerprint
from sakuin.cache.drawn import Drawn
from sakuin.config import RetrievalConfig
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.snapshot import stored_drawn
from sakuin.snapshot.numbers import packed, unpacked
from sakuin.snapshot.stored_document import StoredDocument

FORMAT = 1

TRANSFORMERS = "transformers"
"""The backend of a context whose manifest names none."""

_LATER = ("backend", "drawn", "system", "window")
"""Fields that manifests of earlier releases do not have."""

KINDS = ("sink", "segment", "tail", "window")

MOST_BYTES = 1 << 28
"""Of a manifest: those of ten million tokens have fewer."""
_MOST_TOKENS = 1 << 31
_MOST_BYTES = 1 << 48
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StoredPart:
    """A file of a snapshot: which part it is, its size in bytes and the SHA-256 of all of it."""

    kind: str
    start: int
    end: int
    name: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """The file's name: what it was computed from, and what is in it."""
        return f"{self.name[:32]}-{self.sha256}.safetensors"


@dataclass(frozen=True)
class Outline:
    """What a manifest says without the text and its tokens, which are nearly all of it. Fields as of
    `Manifest`; tokens : how many there are."""

    model: str
    fingerprint: Fingerprint
    tokens: int
    parts: tuple[StoredPart, ...]
    created: float
    kept_until: float | None
    pinned: bool

    @property
    def size(self) -> int:
        """Bytes of the files that it names."""
        return sum(part.size for part in self.parts)

    @property
    def files(self) -> set[str]:
        """The files that it names."""
        return {part.file for part in self.parts}


@dataclass(frozen=True)
class Manifest:
    """What a snapshot says of itself.

    model : the name that the model was loaded by, or "". config : settings. ids, starts, ends : tokens in the
    cache, and which characters of `body` each stands for (none for the template's own). at : where in `body`
    the text begins that was not prefilled. lead : tokens that come before the user's next words. exact : so
    many first tokens were computed by exact attention. prefill_s, index_s : what reading took. parts : in
    order of position. created : seconds since 1970. kept_until : the same, or None. complete : not so for a
    context that is still being read. backend : by name, the one that stored it, whose the windows are.
    drawn : what any question draws from the text; None where that was not measured.
    system : what the model was told before the documents, or "".
    window : the tokens that the model read by scaled positions; None where they were not scaled.
    """

    model: str
    fingerprint: Fingerprint
    config: RetrievalConfig
    ids: list[int]
    starts: list[int]
    ends: list[int]
    body: str
    documents: list[StoredDocument]
    at: int
    lead: list[int]
    exact: int
    prefill_s: float
    index_s: float
    parts: list[StoredPart]
    created: float
    kept_until: float | None = None
    pinned: bool = False
    complete: bool = True
    backend: str = TRANSFORMERS
    drawn: Drawn | None = None
    system: str = ""
    window: int | None = None

    @property
    def bound(self) -> bool:
        """Whether only the backend that stored it can open it."""
        return any(part.kind == "window" for part in self.parts) or not self.fingerprint.is_of_file

    @property
    def size(self) -> int:
        """Bytes of the files that it names."""
        return sum(part.size for part in self.parts)

    @property
    def files(self) -> set[str]:
        """The files that it names."""
        return {part.file for part in self.parts}

    @property
    def outline(self) -> Outline:
        """What it says without the text and its tokens."""
        return Outline(
            self.model,
            self.fingerprint,
            len(self.ids),
            tuple(self.parts),
            self.created,
            self.kept_until,
            self.pinned,
        )

    def _unreadable(self) -> str | None:
        """What of it could not be read again, of what comes from users, clocks and models."""
        times = (self.prefill_s, self.index_s, self.created, self.kept_until or 0.0)
        if not all(_seconds(time) for time in times):
            return "a time of it is none that can be written"
        if self.drawn is not None and not self.drawn.is_sound:
            return "what is drawn from it is no number"
        if odd := next((one for one in self.documents if not one.is_described), None):
            return f"its document {odd.name!r:.80} has marks, notes or a path of a wrong type"
        return None

    def encode(self) -> bytes:
        """The manifest file's bytes. Raises `SakuinError` where `decode` would not take them: what cannot be
        read again must not take the place of what can."""
        if why := self._unreadable():
            raise SakuinError(f"the context cannot be kept: {why}.")
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        said |= {
            "format": FORMAT,
            "fingerprint": asdict(self.fingerprint),
            "config": self.config.as_dict(),
            "documents": [asdict(document) for document in self.documents],
            "parts": [asdict(part) for part in self.parts],
        }
        said |= {name: packed(getattr(self, name)) for name in ("ids", "starts", "ends")}
        if self.backend == TRANSFORMERS:  # as before there were others, so that earlier releases read it
            del said["backend"]
        if self.drawn is None:
            del said["drawn"]
        else:
            said["drawn"] = stored_drawn.said_of(self.drawn)
        if not self.system:  # as before
            del said["system"]
        if self.window is None:
            del said["window"]
        return json.dumps(said | {"checksum": _checksum(said)}, ensure_ascii=False, allow_nan=False).encode(
            "utf-8", "surrogatepass"
        )


def decode(data: bytes, where: str) -> Manifest:
    """The manifest in `data`; a `SakuinError` that names `where` and what is wrong with it."""
    try:
        said = json.loads(data.decode("utf-8", "surrogatepass"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _damaged(where, "it is not JSON") from None
    if not isinstance(said, dict) or "format" not in said:
        raise _damaged(where, "it is no manifest of a snapshot")
    if said["format"] != FORMAT or isinstance(said["format"], bool):
        raise SakuinError(
            f"{where} has the format version {said['format']!r:.40} and this sakuin reads version {FORMAT}; "
            "use the sakuin that wrote it, or read the documents again."
        )
    checksum = said.pop("checksum", None)
    try:
        if checksum != _checksum(said):
            raise _damaged(where, "its checksum does not fit its content")
        return _manifest(said, where)
    except SakuinError:
        raise
    except KeyError as error:
        raise _damaged(where, f"it lacks {error!s:.80}") from None
    except ValueError as error:
        raise _damaged(where, f"it holds what it should not ({error!s:.120})") from None
    except (TypeError, AttributeError, OverflowError, RecursionError):
        raise _damaged(where, "something in it is of another form than it should be") from None


def read(path: Path) -> Manifest:
    """The manifest at `path`."""
    return decode(_bytes_of(path), str(path))


def is_manifest(path: Path) -> bool:
    """Whether the file at `path` is a manifest of ours, well or damaged, by what it holds: many programs
    call a file so."""
    try:
        said = json.loads(_bytes_of(path).decode("utf-8", "surrogatepass"))
    except (SakuinError, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and {"format", "fingerprint", "parts", "checksum"} <= said.keys()


def _bytes_of(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not be waited for
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise _damaged(str(path), "it is no regular file")
            if about.st_size > MOST_BYTES:
                raise _damaged(str(path), f"a manifest does not have {about.st_size:,} bytes")
            return file.read(MOST_BYTES)
    except FileNotFoundError:
        raise SakuinError(f"there is no snapshot at {path}; check the path.") from None
    except OSError as error:
        raise SakuinError(f"{path} cannot be read: {error.strerror or error}.") from None


def described(manifest: Manifest) -> dict[str, Any]:
    """What a person wants to know of a snapshot."""
    return {
        "model": manifest.model,
        "backend": manifest.backend,
        "dtype": manifest.fingerprint.dtype,
        "index": manifest.config.index,
        "tokens": len(manifest.ids),
        "documents": list(dict.fromkeys(document.name for document in manifest.documents)),
        "system": manifest.system,
        "window": manifest.window,
        "bytes": manifest.size,
        "files": len(manifest.parts),
        "created": manifest.created,
        "prefill_s": manifest.prefill_s,
        "config": json.loads(json.dumps(manifest.config.as_dict())),
    }


def documents_of(manifest: Manifest, where: Path | str) -> list[Document]:
    """The documents of a snapshot, as they were read. Raises `SakuinError` where it does not describe them;
    where : what the error calls it."""
    found = []
    for one in manifest.documents:
        values = {"name": one.name, "text": manifest.body[one.start : one.end], **one.more}
        try:
            found.append(Document.from_dict(values))
        except (TypeError, ValueError):
            raise SakuinError(f"{where} is damaged: {one.name!r:.80} is not described.") from None
    return found


def _manifest(said: dict[str, Any], where: str) -> Manifest:
    def need(ok: bool, what: str) -> None:
        if not ok:
            raise _damaged(where, what)

    ids, starts, ends = (unpacked(said[name]) for name in ("ids", "starts", "ends"))
    body, at, lead = said["body"], said["at"], said["lead"]
    n = len(ids)
    need(isinstance(body, str), "its text is none")
    need(len(starts) == len(ends) == n, "its tokens and their places differ in number")
    need(
        all(0 <= a <= b <= len(body) for a, b in zip(starts, ends, strict=True)),
        "a token lies outside the text",
    )
    need(_whole(at, len(body)), "what was read ends outside the text")
    need(isinstance(lead, list) and all(_whole(token, _MOST_TOKENS) for token in lead), "its tokens are none")
    need(all(_whole(token, _MOST_TOKENS) for token in ids), "its tokens are none")
    need(_whole(said["exact"], _MOST_TOKENS), "it does not say what was computed exactly")
    documents = [StoredDocument(**_exactly(one, StoredDocument)) for one in said["documents"]]
    for one in documents:
        need(isinstance(one.name, str), "a document is not described")
        need(_whole(one.end, len(body)) and _whole(one.start, one.end), "a document lies outside the text")
        need(one.is_described, f"{one.name!r:.80} is not described")
    need([d.start for d in documents] == sorted(d.start for d in documents), "its documents are out of order")
    parts = [StoredPart(**_exactly(one, StoredPart)) for one in said["parts"]]
    for part in parts:
        need(part.kind in KINDS, f"it names a file of the unknown kind {part.kind!r:.40}")
        need(_whole(part.end, n) and _whole(part.start, part.end), "a file's tokens lie outside the context")
        need(_whole(part.size, _MOST_BYTES), "a file's size is none")
        need(
            all(isinstance(x, str) and _HEX.fullmatch(x) for x in (part.name, part.sha256)),
            "a file has no name",
        )
    times = (said["prefill_s"], said["index_s"], said["created"])
    need(all(_seconds(time) for time in times), "a time is none")
    need(said["kept_until"] is None or _seconds(said["kept_until"]), "a time is none")
    need(isinstance(said["model"], str), "its model has no name")
    backend = said.get("backend", TRANSFORMERS)
    need(isinstance(backend, str) and 0 < len(backend) <= 40, "its backend has no name")
    system = said.get("system", "")
    need(isinstance(system, str), "its system prompt is no text")
    window = said.get("window")
    need(window is None or _whole(window, _MOST_TOKENS), "its window is none")
    need(all(isinstance(said[name], bool) for name in ("pinned", "complete")), "a mark is neither on nor off")
    print_ = _exactly(said["fingerprint"], Fingerprint)
    need(all(isinstance(value, str) for value in print_.values()), "its fingerprint is none")
    rest = {name: said[name] for field in fields(Manifest) if (name := field.name) not in _LATER}
    return Manifest(
        **rest
        | {
            "fingerprint": Fingerprint(**print_),
            "config": _config(said["config"], where),
            "ids": ids,
            "starts": starts,
            "ends": ends,
            "documents": documents,
            "parts": parts,
            "backend": backend,
            "drawn": stored_drawn.read(said["drawn"], n, 4 * (len(body) - at)) if "drawn" in said else None,
            "system": system,
            "window": window,
        }
    )


def _config(said: Any, where: str) -> RetrievalConfig:
    known = {field.name for field in fields(RetrievalConfig)}
    if not isinstance(said, dict) or set(said) - known:
        raise SakuinError(
            f"{where} holds settings that this sakuin does not know; use the sakuin that wrote it, or read "
            "the documents again."
        )
    try:
        return RetrievalConfig(**said, ask_kind=False)
    except (TypeError, ValueError) as error:
        raise SakuinError(f"{where} holds settings that cannot be: {error}.") from None


def _exactly(said: Any, kind: type) -> dict[str, Any]:
    """`said` if it has just the fields of `kind`."""
    if not isinstance(said, dict) or set(said) != {field.name for field in fields(kind)}:
        raise ValueError(f"as {kind.__name__}: {str(said)[:40]}")
    return said


def _whole(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e12


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _checksum(said: dict[str, Any]) -> str:
    """SHA-256 of the manifest without its checksum, as JSON with sorted keys and no blanks."""
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _damaged(where: str, why: str) -> SakuinError:
    return SakuinError(f"{where} is damaged: {why}.")
