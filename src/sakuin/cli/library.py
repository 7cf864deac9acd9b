"""`sakuin contexts`, what there is to do with a library: look, check, tidy, carry.

Reading, asking and appending are in `sakuin.cli.contexts`.
"""

from __future__ import annotations

import json as json_
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

from sakuin.cli.errors import told_in_a_sentence
from sakuin.cli.options import Json
from sakuin.cli.show import console, facts, notes
from sakuin.cli.stored import Folder, Name, library_at, size_of, span_of
from sakuin.errors import SakuinError
from sakuin.quantities import bytes_of, seconds_of


def commands(app: typer.Typer) -> None:
    """Add the commands here to `app`."""
    command: Any
    for name, command in _COMMANDS.items():
        app.command(name)(command)


def list_(library: Folder = None, json: Json = False) -> None:
    """List the contexts: tokens, size, age, when they were last asked."""
    with told_in_a_sentence():
        from rich.table import Table

        where = library_at(library)
        entries = where.entries()
        if json:
            print(json_.dumps([asdict(entry) for entry in entries], ensure_ascii=False))
            return
        table = Table(box=None, pad_edge=False)
        for column in ("name", "model", "tokens", "size", "alone", "age", "asked", "kept"):
            table.add_column(column, justify="left" if column in ("name", "model", "kept") else "right")
        for e in entries:
            marks = [mark for mark, on in (("pinned", e.pinned), (e.state, e.state != "whole")) if on]
            if e.kept_until is not None and e.state == "whole":
                marks.append(f"for {span_of(e.kept_until - time.time())}")
            table.add_row(
                e.name,
                e.model,
                f"{e.tokens:,}",
                size_of(e.bytes),
                size_of(e.own_bytes),
                span_of(time.time() - e.created) if e.created else "",
                span_of(time.time() - e.asked) if e.asked else "" if e.state == "unfinished" else "never",
                ", ".join(marks),
            )
        console.print(table)
        if entries:
            quota = where.quota
            of = "" if quota is None else f" of {size_of(quota)}"
            notes.print(f"{size_of(where.folder.size())}{of} in {where.folder.path}", style="dim")
            if any(e.state == "expired" for e in entries):
                notes.print(
                    "What is expired goes with the next command that changes the library; `sakuin contexts "
                    "keep NAME --for ever` takes it back.",
                    style="dim",
                )
        else:
            notes.print(f"There is nothing in {where.folder.path} yet; `sakuin contexts add` adds something.")


def show(name: Name, library: Folder = None, json: Json = False) -> None:
    """Show what a context is: documents, model, settings, files."""
    with told_in_a_sentence():
        found = library_at(library).show(name)
        if json:
            print(json_.dumps(found, ensure_ascii=False))
            return
        rows = [
            ("name", name),
            ("documents", ", ".join(found["documents"]) or "none"),
            ("tokens", f"{found['tokens']:,}"),
            ("model", f"{found['model'] or 'given in Python'}, {found['dtype']}"),
            ("index", found["index"]),
            (
                "size",
                f"{size_of(found['bytes'])} in {found['files']} files, {size_of(found['own_bytes'])} its own",
            ),
            ("read", f"{span_of(time.time() - found['created'])} ago, in {found['prefill_s']:.1f} s"),
        ]
        asked = found["asked"]
        rows.append(("asked", f"{span_of(time.time() - asked)} ago" if asked else "never"))
        if found["kept_until"] is not None:
            rows.append(("kept", f"for {span_of(found['kept_until'] - time.time())} more"))
        if found["pinned"]:
            rows.append(("pinned", "yes"))
        console.print(facts(rows))


def verify(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One context; else all.")] = None,
    library: Folder = None,
    json: Json = False,
) -> None:
    """Read every file and compare it with its checksum. Exit code 1 where something is damaged."""
    with told_in_a_sentence():
        where = library_at(library)
        with notes.status("reading"):
            found = where.verify(name)
        states = {e.name: e.state for e in where.entries() if e.state in ("unfinished", "expired")}
        if json:
            marked = {
                state: [one for one in found if states.get(one) == state]
                for state in ("unfinished", "expired")
            }
            print(json_.dumps({"damage": found, **marked}, ensure_ascii=False))
        else:
            for one, damage in found.items():
                state = "; ".join(damage) or "well"
                print(f"{one}: {state}, {states[one]}" if one in states else f"{one}: {state}")
    if any(found.values()):
        raise typer.Exit(1)


def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Contexts, whole or unfinished.")],
    library: Folder = None,
    json: Json = False,
) -> None:
    """Remove contexts and the files that no other needs; nothing where one of the names is wrong."""
    with told_in_a_sentence():
        swept = library_at(library).remove(*names)
        _print_swept(swept.contexts, swept.files, swept.bytes, json)


def gc(library: Folder = None, json: Json = False) -> None:
    """Remove what nobody needs: expired contexts, unfinished ones that nobody works on, files left over."""
    with told_in_a_sentence():
        swept = library_at(library).gc()
        _print_swept(swept.contexts, swept.files, swept.bytes, json)


def export(
    name: Name,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The new file.")],
    library: Folder = None,
    json: Json = False,
) -> None:
    """Write a context into one file, to take it elsewhere. It holds the documents' text."""
    with told_in_a_sentence():
        where = library_at(library)
        from sakuin.library.archive import export_to

        size = export_to(where, name, file)
        print(
            json_.dumps({"name": name, "file": file, "bytes": size}) if json else f"{file}: {size_of(size)}"
        )


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file that `export` wrote.")],
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="What to call it; else as the file.")
    ] = None,
    library: Folder = None,
    json: Json = False,
) -> None:
    """Take a context from a file. Import what you trust as you trust the model: answers come from it."""
    with told_in_a_sentence():
        where = library_at(library)
        from sakuin.library.archive import import_from

        taken = import_from(where, file, name)
        print(json_.dumps({"name": taken}) if json else f"{taken} is here now")


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
    with told_in_a_sentence():
        if pin is None and keep_for is None:
            raise SakuinError("say what to change: --pin, --no-pin or --for TIME.")
        keep = (
            None
            if keep_for is None
            else float("inf")
            if keep_for == "ever"
            else seconds_of(keep_for, "--for")
        )
        library_at(library).change(name, pinned=pin, keep_for=keep)


def quota(
    size: Annotated[
        str | None, typer.Argument(metavar="[SIZE]", help="20GB, 500MB, … or none; what it is if left out.")
    ] = None,
    library: Folder = None,
    json: Json = False,
) -> None:
    """Say how much disk the library may take. It is checked before anything is written; contexts that were
    not used for the longest time make room, pinned ones never."""
    with told_in_a_sentence():
        where = library_at(library)
        if size is not None:
            where.quota = None if size == "none" else bytes_of(size, "SIZE")
        taken, most = (where.folder.size() if where.folder.exists else 0), where.quota
        if json:
            print(json_.dumps({"quota": most, "bytes": taken}))
        else:
            print(f"{size_of(taken)} of {'no quota' if most is None else size_of(most)}")


def _print_swept(names: list[str], files: int, size: int, json: bool) -> None:
    if json:
        print(json_.dumps({"contexts": names, "files": files, "bytes": size}, ensure_ascii=False))
    else:
        gone = f"{', '.join(names)} and " if names else ""
        print(f"removed {gone}{files} file{'' if files == 1 else 's'}, {size_of(size)}")


_COMMANDS = {
    "list": list_,
    "show": show,
    "verify": verify,
    "rm": rm,
    "gc": gc,
    "export": export,
    "import": import_,
    "keep": keep,
    "quota": quota,
}
