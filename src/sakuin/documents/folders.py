"""Folders and patterns as documents: all files in a folder that can be read, in order, and what was skipped.

A file that somebody names must be read, or it is an error. What is found in a folder or by a pattern is read
where it is a document; the rest is skipped, and a note says so.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from sakuin.documents import kinds, reading
from sakuin.documents.below import Below
from sakuin.documents.document import Document
from sakuin.documents.words import with_and
from sakuin.errors import SakuinError
from sakuin.quantities import counted
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
    """By name, why it is no document."""
    folders: dict[str, str] = field(default_factory=dict)
    """By name, why it was not looked at."""
    hidden: list[str] = field(default_factory=list)


def read_all(paths: Iterable[str | os.PathLike[str]], encoding: str | None = None) -> list[Document]:
    """The documents in files, folders, and patterns such as `notes/*.txt`, as `read` reads them.

    A folder is all files below it, by name, but for hidden ones and those that are no documents; a pattern
    that is no file's name all that it matches, `**` any folders. The notes of the first document of each say
    what was skipped. A document of a folder is called by its path from where the folder was named.

    A folder is looked at once, by whatever links it is reached.

    Raises `SakuinError` as `read` does; where a folder cannot be listed, or has no document, more than
    10,000 files, or more than 500,000 files and folders to look at; where a pattern matches nothing; and
    where standard input (`-`) is named twice.
    """
    paths = list(paths)
    if sum(1 for path in paths if isinstance(path, str | os.PathLike) and os.fspath(path) == "-") > 1:
        raise SakuinError("standard input (-) can be read once only; name it once.")
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
        if (said := _said(found)) and documents:
            at = min(first, len(documents) - 1)
            noted = (f"skipped of {found.called}: {said}.", *documents[at].notes)
            documents[at] = replace(documents[at], notes=noted)
    return documents


def _found(path: str | os.PathLike[str]) -> _Found | None:
    """What a folder or a pattern stands for; None where `path` is to be read as a file."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        return None
    text = os.fspath(path)
    if text == "-" or "\0" in text:
        return None
    below = Below(_shown(text))
    if is_folder(text):
        below.take_all([text])
        if (why := below.shut.get(os.path.join(text, ""))) is not None:
            raise SakuinError(f"the folder {_shown(text)} cannot be read: {why.capitalize()}.")
        if not below.files and not below.hidden and not below.shut:
            raise SakuinError(f"{below.called} is a folder without files; name one that has some.")
        return _sorted(below)
    if os.path.lexists(text) or not glob.has_magic(text):
        return None
    below.match(str(expanded(text)))
    if below.folders:
        below.take_all(sorted(below.folders, key=_parts))
    if not below.files and not below.hidden and not below.shut:
        raise SakuinError(f"no file matches {below.called}; check the pattern, or name a folder.")
    return _sorted(below)


def _sorted(below: Below) -> _Found:
    """What was found, by name: files that may be documents, and what is skipped."""
    found = _Found(below.called, hidden=sorted(below.hidden, key=_parts))
    found.folders = dict(sorted((below.links | below.shut).items()))
    for path in sorted(below.files, key=_parts):
        why = _no_document(path)
        if why:
            found.skipped[path] = why
        else:
            found.files.append(path)
    return found


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
    return f" ({said})" if (said := _said(found)) else ""


def _said(found: _Found) -> str:
    """What was skipped: how many of what, and the first few by name with why."""
    said = []
    for thing, skipped in (("file", found.skipped), ("folder", found.folders)):
        if skipped:
            shown = [f"{_shown(path)} {why}" for path, why in list(skipped.items())[:_NAMED]]
            more = len(skipped) - len(shown)
            said.append(
                f"{counted(len(skipped), thing)} ({'; '.join(shown)}{f'; and {more:,} more' * bool(more)})"
            )
    if found.hidden:
        shown = [_shown(path) for path in found.hidden[:_NAMED]]
        more = len(found.hidden) - len(shown)
        names = ", ".join(shown) + f" and {more:,} more" * bool(more)
        said.append(f"{counted(len(found.hidden), 'hidden entry').replace('entrys', 'entries')} ({names})")
    return with_and(said) if said else ""
