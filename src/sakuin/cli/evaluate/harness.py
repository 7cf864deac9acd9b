"""`sakuin eval harness`: tasks of lm-eval in each configuration, with full attention beside them."""

from __future__ import annotations

import json as json_
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sakuin.cli.errors import reports_errors
from sakuin.cli.evaluate.options import Configurations, Dtype, Out, Subject, command, goes_on, write
from sakuin.cli.loading import Loading
from sakuin.cli.options import Backend, Device, GpuLayers, Json, Model, Threads, Window
from sakuin.cli.show import console, notes, say_json, show_table
from sakuin.errors import SakuinError

if TYPE_CHECKING:
    from sakuin.evaluate.answers.harness_runs import Metric


Tasks = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Tasks of lm-eval, with commas between them; ours need no download: sakuin_facts, "
        "sakuin_facts_generate, sakuin_english, or sakuin_long for all three.",
    ),
]
Limit = Annotated[int | None, typer.Option(metavar="N", help="Documents of each task; all without it.")]
Metadata = Annotated[
    str | None,
    typer.Option(metavar="JSON", help='What tasks are told; ours know {"characters": 16000, "texts": 10}.'),
]


def harness(
    tasks: Tasks = "sakuin_long",
    model: Model = "smollm2",
    configurations: Configurations = "balanced",
    limit: Limit = None,
    metadata: Metadata = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    window: Window = None,
    backend: Backend = "auto",
    gpu_layers: GpuLayers = "0",
    threads: Threads = None,
    out: Out = Path("sakuin-eval"),
    json: Json = False,
) -> None:
    """Run tasks of lm-eval (lm-evaluation-harness) in each configuration and with full attention.

    *difference* is the mean over documents less full attention's, with a 95 % confidence interval by the
    paired bootstrap, for metrics that are means. Needs the extra `eval`.
    """
    with reports_errors(goes_on):
        from sakuin.evaluate.answers.harness_runs import about, checked, found, run
        from sakuin.evaluate.configurations import configurations as named
        from sakuin.evaluate.results import Results

        wanted, told = checked(named(configurations), limit), _metadata(metadata)
        subject = Subject.of(model, Loading(dtype, device, window, backend, gpu_layers, threads))
        chosen = found(_words(tasks), told)
        loaded, tokenizer = subject.load()
        with notes.status("weights", spinner="line") as status:
            made = about(loaded, subject.name) | subject.marks(loaded, tokenizer)
            folder = subject.folder(out, "harness")
            results = Results(folder / "results.jsonl", made)
            metrics = run(loaded, tokenizer, wanted, chosen, limit, told, results, status.update)
        given = {"--limit": None if limit is None else str(limit), "--metadata": metadata}
        words = subject.words() | {"--configurations": configurations, "--tasks": tasks}
        words |= {option: value for option, value in given.items() if value is not None}
        report = {
            "command": command("harness", words),
            "model": model,
            "about": made,
            "backend": subject.backend,
            "metrics": [asdict(one) for one in metrics],
        }
        write(folder, "harness", report, results)
        if json:
            say_json(report)
        else:
            _show(metrics, folder)


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _metadata(text: str | None) -> dict[str, object]:
    if text is None:
        return {}
    try:
        told = json_.loads(text)
    except json_.JSONDecodeError:
        told = None
    if not isinstance(told, dict):
        raise SakuinError(f'--metadata must be a JSON object such as {{"characters": 16000}}, got {text!r}.')
    return told


def _show(metrics: list[Metric], folder: Path) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("task", "metric", "configuration"):
        table.add_column(column, no_wrap=True)
    for column in ("documents", "value", "full", "difference", "95 %"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in metrics:
        change = one.difference
        table.add_row(
            one.task,
            one.metric,
            one.configuration,
            f"{one.documents}",
            f"{one.value:.4f}",
            f"{one.full:.4f}",
            "" if change is None else f"{change.mean:+.4f}",
            "" if change is None else f"{change.low:+.4f} to {change.high:+.4f}",
        )
    show_table(table)
    console.print(f"\nResults are in {folder}.")
