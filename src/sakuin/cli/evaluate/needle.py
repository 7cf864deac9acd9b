"""`sakuin eval needle`: planted facts over depth and length, full attention beside every index."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sakuin.cli.errors import reports_errors
from sakuin.cli.evaluate.options import (
    Configurations,
    Dtype,
    Lengths,
    Out,
    Pictures,
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
    from sakuin.evaluate.answers.needle import Grid, Tally
    from sakuin.evaluate.configurations import Configuration


Haystack = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[FILE]…",
        help="Text files that are the haystack; without any, Python's language reference.",
        show_default=False,
    ),
]
Depths = Annotated[
    str, typer.Option(metavar="N|NUMBERS", help="How many depths, evenly spread, or several from 0 to 1.")
]
Needles = Annotated[int, typer.Option(metavar="N", help="Planted facts in each text.")]


def needle(
    files: Haystack = None,
    model: Model = "smollm2",
    dtype: Dtype = "auto",
    device: Device = "auto",
    window: Window = None,
    backend: Backend = "auto",
    gpu_layers: GpuLayers = "0",
    threads: Threads = None,
    configurations: Configurations = "full balanced fast streaming",
    lengths: Lengths = "2000 4000 7500",
    depths: Depths = "5",
    seeds: Seeds = 1,
    needles: Needles = 1,
    out: Out = Path("sakuin-eval"),
    pictures: Pictures = True,
    json: Json = False,
) -> None:
    """Ask for facts planted at every depth of texts of every length.

    Full attention always answers too: *lost* counts the answers that it has right and a configuration has
    not.
    """
    with reports_errors(goes_on):
        from sakuin.evaluate.answers.needle import Grid, about, run, tallies
        from sakuin.evaluate.answers.pictures import check_matplotlib, draw_needle
        from sakuin.evaluate.configurations import configurations as named
        from sakuin.evaluate.results import Results

        wanted = named(configurations)
        subject = Subject.of(model, Loading(dtype, device, window, backend, gpu_layers, threads))
        grid = Grid(tuple(distinct("--lengths", lengths)), _depths(depths), seeds, needles)
        if pictures:
            check_matplotlib()
        text = _haystack(files or [])
        folder = subject.folder(out, "needle", f"-{needles}")
        loaded, tokenizer = subject.load()
        with notes.status("weights", spinner="line") as status:
            made = about(subject.name, subject.used, grid, text) | subject.marks(loaded, tokenizer)
            results = Results(folder / "results.jsonl", made)
            cells = list(run(loaded, tokenizer, text, grid, wanted, results, status.update))
        found = tallies(cells)
        report: dict[str, Any] = {
            "command": command("needle", subject.words() | _words(grid, wanted), files or []),
            "model": model,
            "dtype": subject.used,
            "device": subject.place,
            "backend": subject.backend,
            "grid": asdict(grid),
            "configurations": [asdict(tally) for tally in found],
            "cells": [asdict(cell) for cell in cells],
        }
        write(folder, "needle", report, results)
        if pictures:
            report["pictures"] = [str(path) for path in draw_needle(cells, folder, model)]
        if json:
            say_json(report)
        else:
            _show(found, folder)


def _words(grid: Grid, wanted: list[Configuration]) -> dict[str, str]:
    return {
        "--configurations": " ".join(one.name for one in wanted),
        "--lengths": " ".join(map(str, grid.lengths)),
        "--depths": " ".join(f"{x:g}" for x in grid.depths),
        "--seeds": str(grid.seeds),
        "--needles": str(grid.needles),
    }


def _haystack(files: list[Path]) -> str:
    from sakuin import documents
    from sakuin.evaluate.texts.planted import technical_english

    return "\n\n".join(documents.read(file).text for file in files) or technical_english()


def _depths(text: str) -> tuple[float, ...]:
    words = text.replace(",", " ").split()
    if len(words) == 1 and words[0].isdecimal() and int(words[0]) > 1:
        count = int(words[0])
        return tuple(i / (count - 1) for i in range(count))
    try:
        return tuple(sorted({float(word) for word in words} or {float("nan")}))
    except ValueError:
        raise SakuinError(
            f"--depths takes a count above 1, or numbers from 0 to 1 with blanks between them, got {text!r}."
        ) from None


def _show(found: list[Tally], folder: Path) -> None:
    from rich.table import Table

    cells = found[0].cells
    documents = "1 document" if cells == 1 else f"{cells} documents"
    console.print(f"{documents}, of which full attention finds something in {found[0].solved}.\n")
    table = Table(box=None, pad_edge=False)
    table.add_column("configuration", no_wrap=True)
    for title in ("needles found", "lost", "gained", "touched"):
        table.add_column(title, justify="right", no_wrap=True)
    for tally in found:
        touched = f"{tally.touched_share:.1%}" if tally.configuration != "full" else ""
        table.add_row(tally.configuration, f"{tally.found:.1%}", str(tally.lost), str(tally.gained), touched)
    show_table(table)
    console.print(f"\nResults are in {folder}.")
