"""`sakuin contexts`: documents that were read once, kept in a library and asked again.

One file for what belongs together: `add`, `ask`, `append` and `drop` read; `look` shows what is there, `text`
what was read, `tidy` removes and keeps, `carry` takes a context elsewhere. Looking and tidying need no torch.
"""

from __future__ import annotations

import typer

from sakuin.cli.contexts import add, append, ask, carry, drop, look, text, tidy

app = typer.Typer(
    help="Documents that were read once, kept in a library and asked again.", no_args_is_help=True
)
app.command("add")(add.add)
app.command("ask")(ask.ask)
app.command("append")(append.append)
app.command("drop")(drop.drop)
app.command("remove-document", hidden=True)(drop.drop)
app.command("list")(look.list_)
app.command("show")(look.show)
app.command("text")(text.text)
app.command("verify")(look.verify)
app.command("rm")(tidy.rm)
app.command("gc")(tidy.gc)
app.command("export")(carry.export)
app.command("import")(carry.import_)
app.command("keep")(tidy.keep)
app.command("rename")(tidy.rename)
app.command("quota")(tidy.quota)
