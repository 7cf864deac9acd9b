"""`sakuin contexts export` and `import`: a context in one file, to be taken elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from sakuin.cli.errors import reports_errors
from sakuin.cli.options import Folder, Json, Name
from sakuin.cli.show import say, say_json
from sakuin.quantities import size_of


def export(
    name: Name,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The new file.")],
    library: Folder = None,
    json: Json = False,
) -> None:
    """Write a context into one file, to take it elsewhere. It holds the documents' text."""
    with reports_errors():
        from sakuin import Library

        where = Library(library)
        from sakuin.library.archive import export_to

        size = export_to(where, name, file)
        if json:
            say_json({"name": name, "file": file, "bytes": size})
        else:
            say(f"{file}: {size_of(size)}")


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file that `export` wrote.")],
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="What to call it; else as the file.")
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Share what is read in it with later contexts, as if it had been read here."
        ),
    ] = False,
    library: Folder = None,
    json: Json = False,
) -> None:
    """Take a context from a file. Import what you trust as you trust the model: answers come from it."""
    with reports_errors():
        from sakuin import Library

        where = Library(library)
        from sakuin.library.archive import import_from

        taken = import_from(where, file, name, trust=trust)
        if json:
            say_json({"name": taken})
        else:
            say(f"{taken} is here now")
