"""Folders and patterns as documents: all files in a folder that can be read, in order, and what was skipped.

A file that somebody names must be read, or it is an error. What is found in a folder or by a pattern is read
where it is a document; the rest is skipped, and a note says so.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from sakuin.documents import kinds, reading
from sakuin.documents.document import Document
from sakuin.documents.limits import MOST_FILES
from sakuin.documents.words import counted, listed
from sakuin.errors import SakuinError
from sakuin.storage.paths import expanded, is_folder, named, shortened

_NAMED = 8
"""Things that a note names."""

_HEAD = 1 << 16
"""Bytes of a file from which it is told whether it is a document."""


@dataclass
class _Found:
    """What a folder or a pattern stands for: files, by the names that their documents get."""

    called: str
    files: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """By name, why it is no document; "" where it is hidden."""


def read_all(paths: Iterable[str | os.PathLike[str]], encoding: str | None = None) -> list[Document]:
    """The documents in files, folders, and patterns such as `notes/*.txt`, as `read` reads them.

    A folder is all files below it, by name, but for hidden ones and those that are no documents; a pattern
    that is no file's name all that it matches, `**` any folders. The notes of the first document of each say
    what was skipped. A document of a folder is called by its path from where the folder was named.

    Raises `SakuinError` as `read` does; where a folder cannot be listed, or has no document or more than
    10,000 files; and where a pattern matches nothing.
    """
    documents: list[Document] = []
    known: set[str] = set()
    for path in paths:
        found = _found(path)
        if found is None:
            documents.append(reading.read(path, encoding))
            known.add(_resolved(path))
            continue
        first = len(documents)
        for file in found.files:
            if (same := _resolved(file)) in known:
                found.skipped[file] = "is read already"
                continue
            known.add(same)
            try:
                documents.append(reading.read(file, encoding))
            except SakuinError as error:
                found.skipped[file] = _why(str(error), file)
        if len(documents) == first and not any(why == "is read already" for why in found.skipped.values()):
            raise SakuinError(f"{found.called} holds no document that can be read{_for(found)}.")
        if found.skipped and documents:
            at = min(first, len(documents) - 1)
            noted = (f"skipped of {found.called}: {_said(found)}.", *documents[at].notes)
            documents[at] = replace(documents[at], notes=noted)
    return documents


def _found(path: str | os.PathLike[str]) -> _Found | None:
    """What a folder or a pattern stands for; None where `path` is to be read as a file."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        return None
    text = os.fspath(path)
    if text == "-" or "\0" in text:
        return None
    if is_folder(text):
        found = _Found(_shown(text))
        _walk(text, found, set())
        if not found.files and not found.skipped:
            raise SakuinError(f"{found.called} is a folder without files; name one that has some.")
        return found
    if os.path.lexists(text) or not glob.has_magic(text):
        return None
    return _matched(text)


def _matched(pattern: str) -> _Found:
    found = _Found(_shown(pattern))
    matches = _limited(glob.iglob(str(expanded(pattern)), recursive=True), found.called)
    for match in sorted(set(matches), key=_parts):
        if os.path.isdir(match):
            if not match.endswith(os.sep) and "**" not in pattern:
                _walk(match, found, set())
        else:
            _take(match, found)
    if not found.files and not found.skipped:
        raise SakuinError(f"no file matches {found.called}; check the pattern, or name a folder.")
    return found


def _walk(folder: str, found: _Found, above: set[tuple[int, int]]) -> None:
    """Take the files below a folder. `above` : the folders that it lies in, which a link may lead back to."""
    try:
        held = os.stat(folder)
        entries = sorted(os.listdir(folder))
    except OSError as error:
        why = error.strerror or str(error)
        if not above:
            raise SakuinError(f"the folder {_shown(folder)} cannot be read: {why}.") from None
        found.skipped[folder + os.sep] = why.lower()
        return
    within = above | {(held.st_dev, held.st_ino)}
    for entry in entries:
        path = os.path.join(folder, entry)
        if entry.startswith("."):
            found.skipped[path] = ""
        elif is_folder(path):
            below = os.stat(path)
            if (below.st_dev, below.st_ino) in within:
                found.skipped[path] = "is a link to a folder that it lies in"
            else:
                _walk(path, found, within)
        else:
            _take(path, found)


def _take(path: str, found: _Found) -> None:
    """Take a file, or skip it where it is no document."""
    why = _no_document(path)
    if why:
        found.skipped[path] = why
    else:
        found.files.append(path)
    if len(found.files) + len(found.skipped) > MOST_FILES:
        raise _too_many(found.called)


def _no_document(path: str) -> str:
    """Why a file is no document; nothing where it may be one."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return "is no file"
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    if not head.strip():
        return "is empty"
    try:
        kinds.of(head, named(path))
    except SakuinError as error:
        return _why(str(error), path)
    return ""


def _limited(paths: Iterator[str], called: str) -> Iterator[str]:
    for number, path in enumerate(paths):
        if number >= MOST_FILES:
            raise _too_many(called)
        yield path


def _too_many(called: str) -> SakuinError:
    return SakuinError(f"{called} holds more than {MOST_FILES:,} files; name the ones that matter.")


def _parts(path: str) -> list[str]:
    return path.split(os.sep)


def _resolved(path: str | os.PathLike[str]) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return os.fspath(path)


def _shown(path: str) -> str:
    return shortened(named(path))


def _why(sentence: str, path: str) -> str:
    """Of the sentence of an error, what follows the file's name, up to what to do."""
    name = shortened(named(path))
    return sentence.removeprefix(named(path)).removeprefix(name).strip().rstrip(".").partition(";")[0]


def _for(found: _Found) -> str:
    return f" ({_said(found)})" if found.skipped else ""


def _said(found: _Found) -> str:
    """What was skipped: how many of what, and the first few by name with why."""
    hidden = [path for path, why in found.skipped.items() if not why]
    others = {path: why for path, why in found.skipped.items() if why}
    said = []
    if others:
        shown = [f"{_shown(path)} {why}" for path, why in list(others.items())[:_NAMED]]
        more = len(others) - len(shown)
        said.append(
            f"{counted(len(others), 'file')} ({'; '.join(shown)}{f'; and {more:,} more' * bool(more)})"
        )
    if hidden:
        shown = [_shown(path) for path in hidden[:_NAMED]]
        more = len(hidden) - len(shown)
        names = ", ".join(shown) + f" and {more:,} more" * bool(more)
        said.append(f"{counted(len(hidden), 'hidden entry').replace('entrys', 'entries')} ({names})")
    return listed(said)
