"""`sakuin eval ruler`: the thirteen tasks of RULER, with full attention beside every configuration."""

from __future__ import annotations

import json as json_
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sakuin.cli.errors import told_in_a_sentence
from sakuin.cli.eval_options import Configurations, Dtype, Model, Out, Window, command, known_as, numbers
from sakuin.cli.show import JSON_HELP, console, notes, show_table

if TYPE_CHECKING:
    from sakuin.evaluate.ruler import Row


def ruler(
    model: Model = "smollm2",
    lengths: Annotated[
        str,
        typer.Option(
            metavar="NUMBERS", help="Tokens of prompt and answer together, with blanks between the numbers."
        ),
    ] = "4096",
    tasks: Annotated[
        str, typer.Option(metavar="NAMES", help="RULER's tasks, with blanks between them, or all.")
    ] = "all",
    samples: Annotated[int, typer.Option(metavar="N", help="Samples of each task and length.")] = 10,
    configurations: Configurations = "balanced",
    seed: Annotated[int, typer.Option(metavar="N", help="Of the generators; 42 is RULER's own.")] = 42,
    window: Window = None,
    dtype: Dtype = "auto",
    out: Out = Path("sakuin-eval"),
    json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Score RULER's tasks in each configuration and with full attention, paired sample by sample.

    *loss* is the score less full attention's, with a 95 % confidence interval by the paired bootstrap;
    *kept* are samples that full attention answers wholly and the configuration too. Needs the extra `eval`.
    """
    with told_in_a_sentence():
        from sakuin import models
        from sakuin.doctor import machine
        from sakuin.evaluate.configurations import configurations as named
        from sakuin.evaluate.configurations import with_full
        from sakuin.evaluate.results import Results
        from sakuin.evaluate.ruler import about, summarized
        from sakuin.evaluate.ruler import ruler as run
        from sakuin.evaluate.ruler_samples import check_installed, check_tasks

        check_installed()
        wanted, chosen = with_full(named(configurations)), check_tasks(tasks.replace(",", " ").split())
        sizes = numbers("--lengths", lengths)
        with notes.status(f"loading {model}", spinner="line") as status:
            loaded, tokenizer = models.load(model, dtype, "cpu", window)
            made = about(loaded, known_as(model, window), seed)
            folder = out / f"ruler-{Path(known_as(model, window)).stem}".replace(" ", "-")
            results = Results(folder / "results.jsonl", made)
            scored = run(loaded, tokenizer, wanted, results, sizes, chosen, samples, seed, say=status.update)
        rows = summarized(scored)
        words = {"--model": model, "--dtype": dtype, "--configurations": configurations}
        words |= {} if window is None else {"--window": str(window)}
        words |= {"--tasks": tasks, "--lengths": " ".join(map(str, sizes))}
        words |= {"--samples": str(samples), "--seed": str(seed)}
        report = {
            "command": command("ruler", words),
            "machine": machine(),
            "about": made,
            "samples": samples,
            "rows": [asdict(row) for row in rows],
        }
        (folder / "ruler.json").write_text(json_.dumps(report, indent=1) + "\n", encoding="utf-8")
        if json:
            print(json_.dumps(report))
        else:
            _show(rows)
            console.print(f"\nResults are in {folder}.")


def _show(rows: list[Row]) -> None:
    from rich.table import Table

    for length, name in dict.fromkeys((row.length, row.configuration) for row in rows):
        shown = [row for row in rows if (row.length, row.configuration) == (length, name)]
        table = Table(box=None, pad_edge=False, title=f"{name} at {length:,} tokens", title_justify="left")
        table.add_column("task", no_wrap=True)
        for column in ("samples", "full", name.partition(":")[0], "loss", "95 %", "kept", "touched"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in shown:
            touched = "" if row.touched_share is None else f"{row.touched_share:.1%}"
            table.add_row(
                row.task or "mean over tasks",
                f"{row.loss.pairs}",
                f"{row.full:.1f}",
                f"{row.score:.1f}",
                f"{row.loss.mean:+.2f}",
                f"{row.loss.low:+.2f} to {row.loss.high:+.2f}",
                f"{row.kept} of {row.solved}",
                touched,
                style="bold" if row.task is None else None,
            )
        show_table(table)
