"""`sakuin eval`: does the answer survive? Each evaluation runs configurations beside full attention.

One file for each command; options that they share are in `options`.
"""

from __future__ import annotations

import typer

from sakuin.cli.evaluate import extract, fidelity, harness, needle, ruler

app = typer.Typer(help="Measure whether answers stay what full attention gives.", no_args_is_help=True)
app.command("fidelity")(fidelity.fidelity)
app.command("needle")(needle.needle)
app.command("extract")(extract.extract)
app.command("ruler")(ruler.ruler)
app.command("harness")(harness.harness)
