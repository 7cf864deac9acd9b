"""`sakuin contexts rm`, `gc`, `keep`, `rename` and `quota`: what stays in a library and what goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from sakuin.cli.errors import reports_errors
from sakuin.cli.options import Folder, Json, Name
from sakuin.cli.show import say, say_json
from sakuin.errors import SakuinError
from sakuin.quantities import bytes_of, seconds_of, size_of, span_of

if TYPE_CHECKING:
    from sakuin.library import Swept
    from sakuin.snapshot.manifest import Manifest


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
    json: Json = False,
) -> None:
    """Change how long a context is kept, and whether it may be evicted. An expired one comes back so."""
    with reports_errors():
        from sakuin import Library

        if pin is None and keep_for is None:
            raise SakuinError("say what to change: --pin, --no-pin or --for TIME.")
        for_ever = keep_for == "ever"
        span = None if keep_for is None else float("inf") if for_ever else seconds_of(keep_for, "--for")
        where = Library(library)
        was = where.folder.find(name, late=True)
        where.change(name, pinned=pin, keep_for=span)
        now = where.folder.find(name, late=True)
        if json:
            said = {"pinned": now.manifest.pinned, "kept_until": now.manifest.kept_until}
            say_json({"name": now.name, **said})
        else:
            say(f"{now.name} {_kept(now.manifest)}{_back(was.manifest, now.manifest)}")


def _kept(manifest: Manifest) -> str:
    """How long a context is kept, as a sentence goes on."""
    until = "for ever"
    if manifest.kept_until is not None:
        date = time.strftime("%Y-%m-%d %H:%M", time.localtime(manifest.kept_until))
        until = f"until {date}, {span_of(max(0.0, manifest.kept_until - time.time()))} from now"
    if manifest.pinned and manifest.kept_until is not None:
        return f"is pinned, so it stays, also when its time is over ({until})"
    if manifest.pinned:
        return "is pinned and kept for ever"
    return f"is kept {until}, and may be evicted to keep the quota"


def _back(was: Manifest, now: Manifest) -> str:
    from sakuin.library.folder import expired

    return "; it was expired and is back" if expired(was) and not expired(now) else ""


def rename(
    name: Name,
    new: Annotated[str, typer.Argument(metavar="NEW", help="The new name, which no other context has.")],
    library: Folder = None,
    json: Json = False,
) -> None:
    """Give a context another name. Nothing is read or written again."""
    with reports_errors():
        from sakuin import Library

        where = Library(library)
        named = where.rename(name, new)
        if json:
            say_json({"name": named, "was": name})
        else:
            say(f"{name} is named {named} now")


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
            holds = f"the library takes {size_of(taken)}" if taken else "the library takes nothing yet"
            bound = "no quota limits it" if most is None else f"its quota is {size_of(most)}"
            if most is not None and taken > most:
                bound = f"that is more than its quota of {size_of(most)}: contexts that are not pinned make "
                bound += "room when the next one comes, or `sakuin contexts rm` does now"
            say(f"{holds}; {bound}")


def _print_swept(swept: Swept, json: bool) -> None:
    if json:
        said = {"contexts": swept.contexts, "files": swept.files, "bytes": swept.bytes}
        say_json(said)
    else:
        gone = f"{', '.join(swept.contexts)} and " if swept.contexts else ""
        say(f"removed {gone}{swept.files} file{'' if swept.files == 1 else 's'}, {size_of(swept.bytes)}")
