"""`sakuin contexts rm`, `gc`, `keep` and `quota`: what stays in a library and what goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sakuin.cli.errors import reports_errors
from sakuin.cli.options import Folder, Json, Name
from sakuin.cli.show import say, say_json
from sakuin.errors import SakuinError
from sakuin.quantities import bytes_of, seconds_of, size_of

if TYPE_CHECKING:
    from sakuin.library import Swept


def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Contexts, whole or unfinished.")],
    library: Folder = None,
    json: Json = False,
) -> None:
    """Remove contexts and the files that no other needs; nothing where one of the names is wrong."""
    with reports_errors():
        from sakuin import Library

        _print_swept(Library(library).remove(*names), json)


def gc(library: Folder = None, json: Json = False) -> None:
    """Remove what nobody needs: expired contexts, unfinished ones that nobody works on, files left over."""
    with reports_errors():
        from sakuin import Library

        _print_swept(Library(library).gc(), json)


def keep(
    name: Name,
    pin: Annotated[
        bool | None, typer.Option("--pin/--no-pin", help="Never evict it to keep the quota, or do.")
    ] = None,
    keep_for: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="From now on: 12h, 30d, 8w or ever.")
    ] = None,
    library: Folder = None,
) -> None:
    """Change how long a context is kept, and whether it may be evicted. An expired one comes back so."""
    with reports_errors():
        from sakuin import Library

        if pin is None and keep_for is None:
            raise SakuinError("say what to change: --pin, --no-pin or --for TIME.")
        for_ever = keep_for == "ever"
        span = None if keep_for is None else float("inf") if for_ever else seconds_of(keep_for, "--for")
        Library(library).change(name, pinned=pin, keep_for=span)


def quota(
    size: Annotated[
        str | None, typer.Argument(metavar="[SIZE]", help="20GB, 500MB, … or none; what it is if left out.")
    ] = None,
    library: Folder = None,
    json: Json = False,
) -> None:
    """Say how much disk the library may take. It is checked before anything is written; contexts that were
    not used for the longest time make room, pinned ones never."""
    with reports_errors():
        from sakuin import Library

        where = Library(library)
        if size is not None:
            where.quota = None if size == "none" else bytes_of(size, "SIZE")
        taken, most = (where.folder.size() if where.folder.exists else 0), where.quota
        if json:
            say_json({"quota": most, "bytes": taken})
        else:
            say(f"{size_of(taken)} of {'no quota' if most is None else size_of(most)}")


def _print_swept(swept: Swept, json: bool) -> None:
    if json:
        said = {"contexts": swept.contexts, "files": swept.files, "bytes": swept.bytes}
        say_json(said)
    else:
        gone = f"{', '.join(swept.contexts)} and " if swept.contexts else ""
        say(f"removed {gone}{swept.files} file{'' if swept.files == 1 else 's'}, {size_of(swept.bytes)}")
