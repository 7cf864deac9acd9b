"""The fenced blocks of a page of the docs, and what prose stands between them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
_FENCE = re.compile(r"^( *)(`{3,}|~{3,})([^\n`]*)\n(.*?)^\1\2[ \t]*$", re.DOTALL | re.MULTILINE)
_GENERATED = "<!-- Written by tools/docs/generate.py"


@dataclass(frozen=True)
class Block:
    """A fenced block. line : that of its first line of code. words : what the fence says after the language,
    as `file=NAME`, the file as which a reader saves the block."""

    page: str
    line: int
    language: str
    words: dict[str, str]
    code: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def named(page: Path) -> str:
    """The page's path in the repository."""
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


def blocks_of(page: Path) -> list[Block]:
    """The page's blocks, in order. A page that is written from the code has none here: it is compared with
    the code as a whole."""
    text = page.read_text(encoding="utf-8")
    return [] if text.startswith(_GENERATED) else found_in(text, named(page))


def found_in(text: str, page: str) -> list[Block]:
    blocks = []
    for found in _FENCE.finditer(text):
        indent, _, said, code = found.groups()
        language, *words = said.split() or [""]
        blocks.append(
            Block(
                page,
                text.count("\n", 0, found.start()) + 2,
                language,
                {word.partition("=")[0]: word.partition("=")[2] for word in words},
                "".join(line.removeprefix(indent) for line in code.splitlines(keepends=True)),
            )
        )
    return blocks


def prose(page: Path) -> str:
    """The page without its blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    """What stands in backquotes in the page's prose, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(page))]
