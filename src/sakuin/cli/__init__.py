"""The command line: thin, one file per group of commands.

Every command is a call that anyone can make from Python; what is here reads arguments, shows progress and
prints. Heavy modules are imported inside the commands, so that `--help` and `--version` answer at once.
`errors` turns what goes wrong into one sentence and an exit code.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

import sakuin
from sakuin.cli import ask, bench, chat, contexts, doctor, documents, evaluate, keys, models, serve
from sakuin.cli.errors import reports_errors, reports_usage
from sakuin.cli.show import say

app = typer.Typer(
    name="sakuin",
    help="Ask questions of long documents: retrieval attention for the language models you have.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        with reports_errors():
            say(f"sakuin {sakuin.__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command("ask")(ask.ask)
app.command("chat")(chat.chat)
app.add_typer(contexts.app, name="contexts")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(bench.app, name="bench")
app.add_typer(evaluate.app, name="eval")
app.command("serve")(serve.serve)
app.command("documents")(documents.documents)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Entry point of `sakuin`."""
    # Bars that libraries draw would run through ours; tqdm reads this when it is imported.
    os.environ.setdefault("TQDM_DISABLE", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may know fewer characters than a text has
    with reports_usage():
        sys.exit(app(prog_name="sakuin", standalone_mode=False))
