"""`sakuin contexts list`, `show` and `verify`: what there is in a library, and whether it is well."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from sakuin.cli.errors import reports_errors
from sakuin.cli.options import Folder, Json, Name
from sakuin.cli.printable import one_line
from sakuin.cli.show import console, facts, notes, say, say_json, show_table, tell
from sakuin.quantities import counted, listed, size_of, span_of, within


def list_(library: Folder = None, json: Json = False) -> None:
    """List the contexts: tokens, size, age, when they were last asked."""
    with reports_errors():
        from rich.table import Table

        from sakuin import Library

        where = Library(library)
        entries = where.entries()
        if json:
            say_json([asdict(entry) for entry in entries])
            return
        if not entries:
            tell(f"There is nothing in {where.folder.path} yet; `sakuin contexts add` adds something.")
            return
        table = Table(box=None, pad_edge=False)
        for column in ("name", "model", "tokens", "size", "alone", "age", "asked", "kept"):
            table.add_column(column, justify="left" if column in ("name", "model", "kept") else "right")
        for e in entries:
            # What is pinned stays, whatever time it was given.
            marks = [mark for mark, on in (("pinned", e.pinned), (e.state, e.state != "whole")) if on]
            if e.kept_until is not None and e.state == "whole" and not e.pinned:
                marks.append(f"for {span_of(e.kept_until - time.time())}")
            table.add_row(
                one_line(e.name),
                one_line(e.model),
                f"{e.tokens:,}",
                size_of(e.bytes),
                size_of(e.own_bytes),
                span_of(time.time() - e.created) if e.created else "",
                span_of(time.time() - e.asked) if e.asked else "" if e.state == "unfinished" else "never",
                ", ".join(marks),
            )
        show_table(table)
        quota = where.quota
        tell(f"{within(where.folder.size(), quota)} in {where.folder.path}")
        if any(e.state == "expired" for e in entries):
            tell(
                "What is expired goes with a command that changes the library, a day after one has found "
                "it so; `sakuin contexts keep NAME --for ever` takes it back."
            )


def show(name: Name, library: Folder = None, json: Json = False) -> None:
    """Show what a context is: documents, model, settings, files."""
    with reports_errors():
        from sakuin import Library

        where = Library(library)
        found = where.show(name)
        imported = len(where.imported(found["name"])[found["name"]])
        found |= {"imported": imported}
        if json:
            say_json(found)
            return
        rows = [
            ("name", found["name"]),
            ("documents", listed(found["documents"]) or "none"),
            *((("system", one_line(found["system"])),) if found["system"] else ()),
            ("tokens", f"{found['tokens']:,}"),
            ("model", f"{found['model'] or 'given in Python'}, {found['dtype']}"),
            *((("window", f"{found['window']:,} tokens, by YaRN"),) if found["window"] else ()),
            ("index", found["index"]),
            (
                "size",
                f"{size_of(found['bytes'])} in {counted(found['files'], 'file')}, "
                f"{size_of(found['own_bytes'])} of them needed by no other context",
            ),
            *((("imported", f"{imported} of its files"),) if imported else ()),
            ("read", f"{span_of(time.time() - found['created'])} ago, in {found['prefill_s']:.1f} s"),
        ]
        asked = found["asked"]
        rows.append(("asked", f"{span_of(time.time() - asked)} ago" if asked else "never"))
        rows.append(("kept", _kept(found["pinned"], found["kept_until"])))
        console.print(facts(rows))


def _kept(pinned: bool, until: float | None) -> str:
    """How long a context stays, and what may end that."""
    left = "for ever" if until is None else f"for {span_of(until - time.time())} more"
    if pinned:
        return "for ever, pinned" + ("" if until is None else f"; without the pin {left}")
    return f"{left}, unless the quota needs the room"


def verify(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One context; else all.")] = None,
    library: Folder = None,
    json: Json = False,
) -> None:
    """Read every file and compare it with its checksum. Exit code 1 where something is damaged."""
    with reports_errors():
        from sakuin import Library

        where = Library(library)
        with notes.status("reading"):
            found = where.verify(name)
        imported = {one: files for one, files in where.imported(name).items() if files}
        states = {e.name: e.state for e in where.entries() if e.state in ("unfinished", "expired")}
        if json:
            marked = {
                state: [one for one in found if states.get(one) == state]
                for state in ("unfinished", "expired")
            }
            say_json({"damage": found, **marked, "imported": imported})
        else:
            for one, damage in found.items():
                state = "; ".join(damage) or "well"
                state += f", {states[one]}" if one in states else ""
                if one in imported:
                    state += f", {len(imported[one])} of its files imported"
                say(f"{one}: {state}")
    if any(found.values()):
        raise typer.Exit(1)
