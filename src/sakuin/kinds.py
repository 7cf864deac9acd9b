"""The kinds of index by name: those built in, those registered in this process, those of other packages.

Settings are checked, and stored contexts are listed, without torch, which every index needs. So this file
knows names, and where their classes are. All else about a kind its class says (`sakuin.index.kind`), which is
imported when it is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sakuin.errors import SakuinError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

BUILT_IN: dict[str, str] = {
    "sketch": "sakuin.index.sketch",
    "flat": "sakuin.index.flat",
    "auto": "sakuin.index.auto",
    "ivf": "sakuin.index.ivf",
    "graph": "sakuin.index.graph",
    "topk": "sakuin.index.peers",
    "pages": "sakuin.index.peers",
    "streaming": "sakuin.index.peers",
}
"""Kinds whose settings are all fields of `RetrievalConfig`, and the modules that their classes are in."""
GROUP = "sakuin.index"
"""The group of entry points in which other packages name theirs: `name = "package.module:Class"`."""

_classes: dict[str, Any] = {}


@dataclass(frozen=True)
class Option:
    """A setting that a kind has beside the fields of `RetrievalConfig`, in which `options` holds its value.

    default : the value where none is given; of JSON's types, as a snapshot keeps it.
    check : called with the option's name and a value; raises a `ValueError` that names both where the value
        cannot be.
    meaning : one sentence.
    sealed : whether segments follow from it; else only steps read it, so that it may change while they stay.
    """

    default: Any
    check: Callable[[str, Any], object]
    meaning: str
    sealed: bool = True


def add(name: str, kind: Any) -> None:
    """Make `kind` the class of `name`. Called by `sakuin.index.register`."""
    if name in _classes:
        raise ValueError(f"there is an index of kind {name!r} already; give yours another name")
    _classes[name] = kind


def names() -> tuple[str, ...]:
    """Every name that an index may have, those built in first."""
    return tuple(dict.fromkeys((*BUILT_IN, *_classes, *_elsewhere())))


def is_known(name: object) -> bool:
    """Whether an index may have this name."""
    return isinstance(name, str) and (name in BUILT_IN or name in _classes or name in _elsewhere())


def loaded() -> dict[str, Any]:
    """The classes that are built in, and after them those that others have registered so far, by name."""
    for name in BUILT_IN:
        of(name)
    return {name: _classes[name] for name in (*BUILT_IN, *_classes) if name in _classes}


def of(name: str) -> Any:
    """The class of a name, imported where it is not yet; a `SakuinError` where it cannot be, or where nobody
    knows the name."""
    if name not in _classes and name in BUILT_IN:
        import_module(BUILT_IN[name])
    elif name not in _classes and name in _elsewhere():
        _load(_elsewhere()[name])
    elif name not in _classes:
        raise SakuinError(f"there is no index of kind {name!r} here; install the package that it came from.")
    return _classes[name]


@functools.cache
def _elsewhere() -> dict[str, EntryPoint]:
    from importlib import metadata  # takes longer than all of this file, and few need it

    return {entry.name: entry for entry in metadata.entry_points(group=GROUP)}


def _load(entry: EntryPoint) -> None:
    package = "another package" if entry.dist is None else f"the package {entry.dist.name}"
    try:
        entry.load()
    except Exception as error:  # whatever another package's code may raise
        raise SakuinError(
            f"the index {entry.name!r} of {package} cannot be loaded ({type(error).__name__}: {error}); mend "
            "or remove the package."
        ) from error
    if entry.name not in _classes:
        raise SakuinError(
            f"{package} names an index {entry.name!r}, but {entry.value} registers none of this name; its "
            f"class needs @register({entry.name!r})."
        )


def completed(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a kind: those given, and the defaults of the others; a `ValueError` where one is none of
    the kind's or cannot have its value."""
    known: Mapping[str, Option] = kind.options
    for name, value in given.items():
        if name not in known:
            have = f"its options are {', '.join(known)}" if known else "it has no options"
            raise ValueError(f"an index of kind {kind.kind!r} has no option {name!r}; {have}")
        known[name].check(name, value)
    return {name: given.get(name, option.default) for name, option in known.items()}
