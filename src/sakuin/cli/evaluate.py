"""`sakuin eval`: does the answer survive? Each evaluation runs configurations beside full attention.

One file for each command (`eval_fidelity`, ...); options that they share are in `eval_options`.
"""

from __future__ import annotations

import typer

from sakuin.cli import eval_extract, eval_fidelity, eval_harness, eval_needle, eval_ruler

app = typer.Typer(help="Measure whether answers stay what full attention gives.", no_args_is_help=True)
app.command("fidelity")(eval_fidelity.fidelity)
app.command("needle")(eval_needle.needle)
app.command("extract")(eval_extract.extract)
app.command("ruler")(eval_ruler.ruler)
app.command("harness")(eval_harness.harness)
