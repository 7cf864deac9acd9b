"""Which documents a context holds when others come, change or go.

A document is known by its path, and where it has none by its name. One that is there goes on where it was:
where the old text is the beginning of the new one, only the rest is read. Where another document stands after
it, the rest becomes a part of its own behind that, whose lines count on. A text that is there already is not
read again, and one that was changed is not mixed with what it was: it is refused, takes the place of the old
one, or becomes a document beside it, as the caller wants. Called by `sakuin.context.context`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sakuin.documents import Document
from sakuin.documents.reading import NO_FILE
from sakuin.errors import SakuinError
from sakuin.quantities import listed
from sakuin.storage.paths import resolved

_NUMBER = re.compile(r" \(\d+\)\Z")

Edited = Literal["refuse", "replace", "beside"]
"""What becomes of a document whose text does not begin with what the context holds of it."""


class EditedError(SakuinError):
    """A document does not begin with what the context holds of it. what : that, and where it differs. helps :
    what to do."""

    def __init__(self, what: str, helps: str) -> None:
        super().__init__(f"{what}; {helps}.")
        self.what = what


@dataclass(frozen=True)
class Change:
    """What became of one document. what : "new", "grown" (its rest was read), "same" (it was there),
    "replaced" or "removed"."""

    name: str
    what: Literal["new", "grown", "same", "replaced", "removed"]


@dataclass(frozen=True)
class Held:
    """A whole text that a context holds: which of its documents are the parts of it, in order."""

    document: Document
    parts: tuple[int, ...]
    text: str


def held_in(documents: Sequence[Document]) -> list[Held]:
    """The texts that these documents are, parts of one file joined."""
    found: list[Held] = []
    for i, one in enumerate(documents):
        for at in reversed(range(len(found) if one.offset else 0)):
            held = found[at]
            if (held.document.name, held.document.path) == (one.name, one.path) and len(
                held.text
            ) == one.offset:
                found[at] = Held(held.document, (*held.parts, i), held.text + one.text)
                break
        else:
            found.append(Held(one, (i,), one.text))
    return found


def with_added(
    documents: Sequence[Document], more: Iterable[Document], edited: Edited = "refuse"
) -> tuple[list[Document], list[Change]]:
    """The documents of a context after `more`, whole texts, came to it, and what became of each.

    Raises `SakuinError` where one was changed and `edited` is "refuse".
    """
    found, changes = list(documents), []
    for new in more:
        found, change = _with_one(found, new, edited)
        changes.append(change)
    return found, changes


def _with_one(documents: list[Document], new: Document, edited: Edited) -> tuple[list[Document], Change]:
    held = held_in(documents)
    known, sure = _known(held, new)
    for one in known:
        if one.text == new.text:
            return documents, Change(one.document.name, "same")
    if not known or not sure or new.path == NO_FILE:
        return _beside(documents, new)
    last = known[-1]
    name = last.document.name
    if new.text.startswith(last.text):
        rest = last.parts[-1]
        if rest == len(documents) - 1:
            whole = replace(new.part(documents[rest].offset), name=name)
            return [*documents[:rest], _paths_kept(whole, last)], Change(name, "grown")
        part = replace(new.part(len(last.text)), name=name)
        if last.document.path is None and new.path is not None:  # both parts must be known by one path
            for at in last.parts:
                documents[at] = replace(documents[at], path=new.path)
        return [*documents, _paths_kept(part, last)], Change(name, "grown")
    if edited == "beside":
        return _with_another(documents, new)
    if edited == "refuse":
        line = new.line(common_length(last.text, new.text))
        raise EditedError(
            f"{name} was changed since the context read it (it differs from line {line:,} on)",
            "let the new text take the place of the old one with --replace (replace=True), or read it beside "
            "the old one (append_beside)",
        )
    first, *others = last.parts
    documents = list(documents)
    documents[first] = _paths_kept(replace(new, name=name), last)
    return [one for i, one in enumerate(documents) if i not in others], Change(name, "replaced")


def _paths_kept(document: Document, held: Held) -> Document:
    return document if document.path is not None else replace(document, path=held.document.path)


def _known(held: Sequence[Held], new: Document) -> tuple[list[Held], bool]:
    """What the context holds of a document, in order, and whether it is surely that document."""
    if new.path is not None:
        if found := [one for one in held if one.document.path == new.path]:
            return found, True
        # Contexts of earlier releases know no paths: then the name tells, unless two have it.
        found = [one for one in held if one.document.path is None and one.document.name == new.name]
        return found, len(found) == 1 and bool(new.name)
    found = [one for one in held if one.document.name == new.name] if new.name else []
    return found, len(found) == 1


def _beside(documents: list[Document], new: Document) -> tuple[list[Document], Change]:
    """With `new` as another document, by a name that no other has."""
    names = {one.name for one in documents}
    like = [one for one in documents if new.name and f"/{one.name}".endswith(f"/{new.name}")]
    if not like:
        return [*documents, new], Change(new.name, "new")
    if ends := _ends_apart({one.path for one in like}, new.path):
        mine = ends.pop(str(new.path))
        renamed = [
            replace(one, name=ends[str(one.path)]) if one.name == new.name else one for one in documents
        ]
        if mine not in {one.name for one in renamed}:
            return [*renamed, replace(new, name=mine)], Change(mine, "new")
    name, i = new.name, 2
    while name in names:
        name, i = f"{new.name} ({i})", i + 1
    return [*documents, replace(new, name=name)], Change(name, "new")


def _ends_apart(paths: Iterable[str | None], new: str | None) -> dict[str, str]:
    """The shortest ends of paths that tell files of one name apart, by path; none where paths do not tell:
    one file's versions, or a document that has no path."""
    every = [*paths, new]
    if None in every or NO_FILE in every or len(set(every)) < len(every):
        return {}
    steps = {str(path): str(path).strip("/").split("/") for path in every}
    for n in range(1, max(map(len, steps.values())) + 1):
        ends = {path: "/".join(parts[-n:]) for path, parts in steps.items()}
        if len(set(ends.values())) == len(ends):
            return ends
    return {}


def with_beside(documents: Sequence[Document], new: Document) -> tuple[list[Document], list[Change]]:
    """The documents of a context and `new` as another one, whatever is there."""
    found, change = _with_another(list(documents), new)
    return found, [change]


def _with_another(documents: list[Document], new: Document) -> tuple[list[Document], Change]:
    """With `new` as another document: of a file that is there, by the file's name here with another number,
    wherever it is named from now."""
    known, _ = _known(held_in(documents), new)
    if known and new.path not in (None, NO_FILE):
        name = known[0].document.name
        if not str(new.path).endswith(f"/{name}"):
            name = _NUMBER.sub("", name)
        new = replace(new, name=name)
    return _beside(documents, new)


def without(documents: Sequence[Document], names: Iterable[str]) -> tuple[list[Document], list[Change]]:
    """The documents of a context without those that `names` mean: names as the context has them, ends of
    them, or paths of files. Raises `SakuinError` where one means none or several, or no document is left."""
    held, going = held_in(documents), []
    for name in names:
        one = _meant(held, name)
        if one not in going:
            going.append(one)
    gone = {i for one in going for i in one.parts}
    left = [one for i, one in enumerate(documents) if i not in gone]
    if not any(one.text.strip() for one in left):
        raise SakuinError(
            "no document would be left in the context; remove the context itself (`sakuin contexts rm`)."
        )
    return left, [Change(one.document.name, "removed") for one in going]


def _meant(held: Sequence[Held], name: str) -> Held:
    exact = [one for one in held if one.document.name == name]
    path = resolved(name) if "\0" not in name else None
    by_path = [one for one in held if one.document.path == path]
    ending = [one for one in held if one.document.name.endswith(f"/{name}")]
    found = exact or by_path or ending
    if len(found) == 1:
        return found[0]
    every = [one.document.name or "(without a name)" for one in (found or held)]
    shown = listed(every)
    if found:
        raise SakuinError(
            f"several documents of the context are meant by {name!r}: {shown}; name one of them."
        )
    raise SakuinError(f"the context holds no document {name!r}; it holds {shown}.")


def common_length(a: str, b: str) -> int:
    """How many first characters two texts have in common."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def told_apart(documents: Iterable[Document]) -> list[Document]:
    """The documents that a context begins with: a file that is named twice once, and each by a name that no
    other has."""
    found: list[Document] = []
    for new in documents:
        twice = new.path not in (None, NO_FILE) and any(
            (one.path, one.text) == (new.path, new.text) for one in found
        )
        if not twice:
            found, _ = _beside(found, new)
    return found
