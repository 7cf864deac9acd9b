"""What the commands about stored contexts share: their arguments, and how they say sizes and times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sakuin.cli.show import notes

if TYPE_CHECKING:
    from sakuin import Library
    from sakuin.documents import Document

Encoding = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Encoding of text and HTML files: cp932, …, or auto, which guesses."),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A name from `sakuin contexts list`.")]
Folder = Annotated[
    str | None,
    typer.Option(
        "--library", metavar="FOLDER", help="The library's folder; else SAKUIN_LIBRARY, or its place."
    ),
]


def documents_of(paths: list[str], encoding: str | None) -> list[Document]:
    """The documents in files; what they lack is said."""
    from sakuin import documents

    with notes.status("reading"):
        texts = [documents.read(path, encoding) for path in paths]
    for note in (note for text in texts for note in text.notes):
        notes.print(note, style="dim", markup=False)
    return texts


def library_at(path: str | None) -> Library:
    """The library that `--library` means."""
    from sakuin import Library

    return Library(path)


def size_of(size: int) -> str:
    """A size in words."""
    from sakuin.quantities import gb

    return gb(size)


def span_of(seconds: float) -> str:
    """A time in words, roughly."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
