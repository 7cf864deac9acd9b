"""`sakuin eval extract`: every record of a long text as JSON, beside full attention."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sakuin.cli.errors import reports_errors
from sakuin.cli.evaluate.options import (
    Configurations,
    Dtype,
    Lengths,
    Out,
    Seeds,
    Subject,
    command,
    distinct,
    goes_on,
    write,
)
from sakuin.cli.loading import Loading
from sakuin.cli.options import Backend, Device, GpuLayers, Json, Model, Threads, Window
from sakuin.cli.show import console, notes, say_json, show_table
from sakuin.errors import SakuinError

if TYPE_CHECKING:
    from sakuin.evaluate.answers.extraction import Score


def extract(
    model: Model = "smollm2",
    dtype: Dtype = "auto",
    device: Device = "auto",
    window: Window = None,
    backend: Backend = "auto",
    gpu_layers: GpuLayers = "0",
    threads: Threads = None,
    configurations: Configurations = "full balanced fast streaming",
    lengths: Lengths = "2000 4000 6000",
    seeds: Seeds = 1,
    by_number: Annotated[
        bool,
        typer.Option(
            "--by-number/--in-one-go",
            help="Ask for each record by its number, or for all at once, which small models cannot do.",
        ),
    ] = False,
    out: Out = Path("sakuin-eval"),
    json: Json = False,
) -> None:
    """Have every record of a long text written as JSON, and count those that are right.

    The model is shown the first two records and goes on by itself, or is asked for one after the other by its
    number. Full attention always answers too: *as full* is the share of the records it has right that a
    configuration has right as well.
    """
    with reports_errors(goes_on):
        from sakuin.evaluate.answers.extraction import about, run, scores
        from sakuin.evaluate.configurations import configurations as named
        from sakuin.evaluate.results import Results

        wanted, most = named(configurations), distinct("--lengths", lengths)
        if seeds < 1:
            raise SakuinError(f"--seeds must be at least 1, got {seeds}.")
        subject = Subject.of(model, Loading(dtype, device, window, backend, gpu_layers, threads))
        folder = subject.folder(out, "extract")
        loaded, tokenizer = subject.load()
        with notes.status("weights", spinner="line") as status:
            made = about(subject.name, subject.used) | subject.marks(loaded, tokenizer)
            results = Results(folder / "results.jsonl", made)
            found = list(run(loaded, tokenizer, most, seeds, wanted, results, status.update, by_number))
        words = subject.words() | {"--configurations": " ".join(c.name for c in wanted)}
        words |= {"--lengths": " ".join(map(str, most)), "--seeds": str(seeds)}
        report = {
            "command": command("extract", words) + (" --by-number" if by_number else ""),
            "model": model,
            "dtype": subject.used,
            "device": subject.place,
            "backend": subject.backend,
            "configurations": [asdict(score) for score in scores(found)],
            "texts": [asdict(each) for each in found],
        }
        write(folder, "extract", report, results)
        if json:
            say_json(report)
        else:
            _show(scores(found))
            console.print(f"\nResults are in {folder}.")


def _show(found: list[Score]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("configuration", no_wrap=True)
    for title in ("records right", "wrong", "as full", "same answers", "touched"):
        table.add_column(title, justify="right", no_wrap=True)
    for score in found:
        table.add_row(
            score.configuration,
            f"{score.right} of {score.records}",
            str(score.wrong),
            "" if score.like_full is None else f"{score.like_full:.1%}",
            f"{score.same} of {score.texts}",
            f"{score.touched_share:.1%}" if score.configuration != "full" else "",
        )
    show_table(table)
