"""Kinds of text, since nobody's documents look like a benchmark, and where each comes from.

Called by `sakuin eval fidelity`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from sakuin.errors import SakuinError
from sakuin.evaluate.texts import generated
from sakuin.evaluate.texts.planted import technical_english
from sakuin.evaluate.texts.records import Records

_GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it leave the largest gaps between each other, however many there are: the places where texts
that are not generated begin."""


def _place(seed: int) -> float:
    return seed * _GOLDEN % 1


def english(characters: int, seed: int = 0) -> str:
    """Python's language reference, all of it; each seed begins at another place."""
    text = technical_english()
    start = text.find("\n", int(_place(seed) * len(text))) + 1 if seed else 0
    return text[start:] + text[:start]


def source_code(characters: int, seed: int = 0) -> str:
    """Modules of Python's standard library, one after another; each seed begins with another."""
    parts, held = [], 0
    names = generated.words("modules")
    first = int(_place(seed) * len(names))
    for name in (*names[first:], *names[:first]):
        try:
            found = find_spec(name)
        except ModuleNotFoundError:
            continue
        if found is None or not found.origin or not found.origin.endswith(".py"):
            continue
        parts.append(f"# {name}\n\n" + Path(found.origin).read_text(encoding="utf-8") + "\n\n")
        held += len(parts[-1])
        if held >= characters:
            break
    return "".join(parts)


@dataclass(frozen=True)
class Domain:
    """A kind of text, and what writes it from a number of characters and a seed."""

    name: str
    title: str
    source: str
    writes: Callable[[int, int], str]

    def make(self, characters: int, seed: int = 0) -> str:
        """At least so many characters of it, where there are so many; another text for each seed."""
        return self.writes(characters, seed)


_OURS = "generated (`sakuin.evaluate.texts.generated`, Apache-2.0)"

DOMAINS: dict[str, Domain] = {
    domain.name: domain
    for domain in (
        Domain(
            "english",
            "technical English",
            "the language reference in Python's `pydoc_data` (PSF licence)",
            english,
        ),
        Domain("contracts", "contracts", _OURS, generated.contracts),
        Domain("logs", "service logs", _OURS, generated.logs),
        Domain("code", "source code", "modules of Python's standard library (PSF licence)", source_code),
        Domain("tables", "tables and JSON", _OURS, generated.tables),
        Domain("japanese", "Japanese rules of a firm", _OURS, generated.japanese),
        Domain(
            "records",
            "records to be extracted as JSON",
            "technical English as above, with generated orders in it "
            "(`sakuin.evaluate.texts.records`, Apache-2.0)",
            lambda characters, seed: Records.make(characters, seed).text,
        ),
    )
}


def domain(name: str) -> Domain:
    """The domain of that name; else an error that lists the names."""
    if name not in DOMAINS:
        raise SakuinError(f"there is no domain {name!r}; the domains are {', '.join(DOMAINS)}.")
    return DOMAINS[name]
