"""The rooms of the package as the code has them: their order, what lies in them, what they import.

Called by house_picture.py, and by generate.py for the map in docs/architecture.md.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_parts import table
from places import ROOT

PACKAGE = ROOT / "src" / "sakuin"
MARKED = re.compile(r"(<!-- map: begin -->\n).*?(<!-- map: end -->\n)", re.DOTALL)


@dataclass(frozen=True)
class Room:
    """A folder of the package. about : the first sentence of its docstring. parts : its files and folders."""

    name: str
    about: str
    parts: tuple[str, ...]


@cache
def order() -> list[str]:
    """Rooms and single files from the ground up, as the import checker holds them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (contract["layers"] for contract in contracts if contract["id"] == "rooms")
    return [name for name in reversed(layers) if name != "__main__"]


@cache
def ground() -> list[str]:
    """The single files that every room may import."""
    return [name for name in order() if (PACKAGE / f"{name}.py").is_file()]


@cache
def rooms() -> list[Room]:
    """The folders, from the ground up."""
    return [_room(PACKAGE / name) for name in order() if (PACKAGE / name).is_dir()]


def _room(folder: Path) -> Room:
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
    said = " ".join(docstring.partition("\n\n")[0].split())
    end = re.search(r"[.?](?= |$)", said)
    files = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    inner = sorted(f"{path.name}/" for path in folder.iterdir() if any(path.glob("*.py")))
    return Room(folder.name, said[: end.end()] if end else said, (*files, *inner))


@cache
def imports() -> dict[str, set[str]]:
    """By room, the rooms that it imports from; types and imports inside functions count."""
    names = [room.name for room in rooms()]
    found: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        for path in sorted((PACKAGE / name).rglob("*.py")):
            for module in _modules(ast.parse(path.read_text("utf-8"))):
                other = module.split(".")[1] if module.startswith("sakuin.") else ""
                if other in found and other != name:
                    found[name].add(other)
    return found


def _modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "sakuin":
            yield from (f"sakuin.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@cache
def below(name: str) -> set[str]:
    """All rooms that a room reaches, over others too."""
    return imports()[name].union(*(below(other) for other in imports()[name]))


def direct(name: str) -> list[str]:
    """The rooms that a room imports from and reaches over no other room."""
    found = imports()[name]
    return sorted(other for other in found if not any(other in below(between) for between in found))


@cache
def height(name: str) -> int:
    """Rooms on the longest way down from here."""
    return 1 + max((height(other) for other in imports()[name]), default=-1)


def inserted(page: str) -> str:
    """The page with the map of the rooms between its marks."""
    return MARKED.sub(lambda mark: mark[1] + _map() + mark[2], page)


def _map() -> str:
    columns = {"room": "l", "what lives here": "l", "its files": "l"}
    rows = [["the top", "Ground that every room may stand on.", _named(ground())]]
    rows += [[f"`{room.name}/`", room.about, _named(room.parts)] for room in rooms()]
    return table(columns, rows)


def _named(parts: list[str] | tuple[str, ...]) -> str:
    return " ".join(f"`{part}`" for part in parts)
