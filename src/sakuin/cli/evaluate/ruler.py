"""`sakuin eval ruler`: the thirteen tasks of RULER, with full attention beside every configuration."""

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
    Seed,
    Subject,
    command,
    distinct,
    goes_on,
    numbers,
    write,
)
from sakuin.cli.loading import Loading
from sakuin.cli.options import Backend, Device, GpuLayers, Json, Model, Threads, Window
from sakuin.cli.show import console, notes, say_json, show_table
from sakuin.errors import SakuinError

if TYPE_CHECKING:
    from sakuin.evaluate.answers.ruler import Row


Tasks = Annotated[str, typer.Option(metavar="NAMES", help="RULER's tasks, with blanks between them, or all.")]
Samples = Annotated[
    str,
    typer.Option(metavar="N|NUMBERS", help="Samples of each task: one number, or one for each of --lengths."),
]


def ruler(
    model: Model = "smollm2",
    lengths: Lengths = "4096",
    tasks: Tasks = "all",
    samples: Samples = "10",
    configurations: Configurations = "balanced",
    seed: Seed = 42,
    dtype: Dtype = "auto",
    device: Device = "auto",
    window: Window = None,
    backend: Backend = "auto",
    gpu_layers: GpuLayers = "0",
    threads: Threads = None,
    out: Out = Path("sakuin-eval"),
    json: Json = False,
) -> None:
    """Score RULER's tasks in each configuration and with full attention, paired sample by sample.

    A text's length is that of prompt and answer together. *loss* is the score less full attention's, with a
    95 % confidence interval by the paired bootstrap; *kept* are samples that full attention answers wholly
    and the configuration too; *same* are those with full attention's answer to the letter, right or wrong.
    Needs the extra `eval`.
    """
    with reports_errors(goes_on):
        from sakuin.evaluate.answers.ruler import about, check_length, differing, summarized
        from sakuin.evaluate.answers.ruler import ruler as run
        from sakuin.evaluate.configurations import configurations as named
        from sakuin.evaluate.configurations import with_full
        from sakuin.evaluate.results import Results
        from sakuin.evaluate.texts.ruler_samples import check_installed, check_tasks

        check_installed()
        wanted, chosen = with_full(named(configurations)), check_tasks(tasks.replace(",", " ").split())
        sizes, counts = _counts(lengths, samples)
        subject = Subject.of(model, Loading(dtype, device, window, backend, gpu_layers, threads))
        loaded, tokenizer = subject.load()
        with notes.status("weights", spinner="line") as status:
            for size in sizes:  # all of them before the first takes its time
                check_length(loaded, size)
            made = about(loaded, subject.name, seed) | subject.marks(loaded, tokenizer)
            folder = subject.folder(out, "ruler")
            results = Results(folder / "results.jsonl", made)
            scored = []
            for size, count in zip(sizes, counts, strict=True):
                scored += run(loaded, tokenizer, wanted, results, size, chosen, count, seed, status.update)
        rows = summarized(scored)
        words = {"--configurations": configurations, "--tasks": tasks, "--lengths": " ".join(map(str, sizes))}
        words |= {"--samples": samples, "--seed": str(seed)}
        report: dict[str, Any] = {
            "command": command("ruler", subject.words() | words),
            "about": made,
            "backend": subject.backend,
            "samples": counts,
            "rows": [asdict(row) for row in rows],
            "differing": differing(scored),
        }
        write(folder, "ruler", report, results)
        if json:
            say_json(report)
        else:
            _show(rows, report["differing"], folder)


def _counts(lengths: str, samples: str) -> tuple[list[int], list[int]]:
    """The lengths, and of each how many samples of a task."""
    sizes, counts = distinct("--lengths", lengths), numbers("--samples", samples)
    if len(counts) not in (1, len(sizes)):
        raise SakuinError(
            f"--samples takes one number, or as many as there are --lengths ({len(sizes)}), got {samples!r}."
        )
    return sizes, counts * (len(sizes) // len(counts))


def _told(each: dict[str, Any]) -> str:
    said = (
        f"{each['configuration']}, {each['length']:,} tokens, {each['task']}, sample {each['index'] + 1}: "
        f"{each['score']:.0f}, full attention {each['full']:.0f}"
    )
    if each["margin"] is None:
        return said
    return f"{said}; where they part, full attention's own words are {each['margin']:.3f} nats ahead."


def _show(rows: list[Row], differing: list[dict[str, Any]], folder: Path) -> None:
    for each in dict.fromkeys((row.length, row.configuration) for row in rows):
        _show_one([row for row in rows if (row.length, row.configuration) == each], *each)
    for one in differing:
        console.print(_told(one))
    console.print(f"\nResults are in {folder}.")


def _show_one(rows: list[Row], length: int | None, name: str) -> None:
    from rich.table import Table

    where = "all lengths" if length is None else f"{length:,} tokens"
    table = Table(box=None, pad_edge=False, title=f"{name} at {where}", title_justify="left")
    table.add_column("task", no_wrap=True)
    for column in ("samples", "full", name.partition(":")[0], "loss", "95 %", "kept", "same", "touched"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        touched = "" if row.touched_share is None else f"{row.touched_share:.1%}"
        table.add_row(
            row.task or "mean over tasks",
            f"{row.loss.pairs}",
            f"{row.full:.1f}",
            f"{row.score:.1f}",
            f"{row.loss.mean:+.2f}",
            f"{row.loss.low:+.2f} to {row.loss.high:+.2f}",
            f"{row.kept} of {row.solved}",
            f"{row.same} of {row.loss.pairs}",
            touched,
            style="bold" if row.task is None else None,
        )
    show_table(table)
