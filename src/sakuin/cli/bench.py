"""`sakuin bench`: measure on this machine."""

from __future__ import annotations

import json as json_
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from sakuin.cli.errors import told_in_a_sentence
from sakuin.cli.show import JSON_HELP, console, notes

app = typer.Typer(help="Measure on this machine.", no_args_is_help=True)

_COLUMNS = {
    "running": "running text",
    "retrieval": "retrieval",
    "worst_head": "worst head",
    "worst_step": "worst step",
    "touched_share": "touched",
    "step_ms": "ms a step",
    "memory_share": "memory",
    "build_s": "build s",
}


@app.command("index")
def index(
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace", metavar="FILE", help="A trace file; without it one is captured from a model."
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="Whose trace to capture without --trace.")
    ] = "smollm2",
    length: Annotated[int, typer.Option("--length", help="Tokens of text to capture a trace of.")] = 4000,
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens", help="Resample the trace to so many offloaded tokens, to see how time grows."
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Keep the captured trace in this file.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Compare the indexes on real queries, keys and values: error of the attention output, bytes, time.

    Errors are relative to exact attention, sink and recent window included; *touched* and *memory* are shares
    of the offloaded keys and values.
    """
    with told_in_a_sentence():
        from sakuin.evaluate import compare, longer

        found = _trace(trace, model, length, save)
        if tokens is not None:
            held = next(iter(found.layers.values())).keys.shape[1]
            if tokens < held:
                raise ValueError(
                    f"--tokens must be at least the trace's {held:,} offloaded tokens, got {tokens:,}"
                )
            found = longer(found, tokens)
        with notes.status("exact attention", spinner="line") as status:
            rows = [asdict(row) for row in compare(found, say=status.update)]
        if json:
            print(json_.dumps({"trace": found.about, "methods": rows}))
        else:
            _show(found, rows)


def _trace(file: Path | None, model: str, length: int, save: Path | None) -> Any:
    from sakuin.evaluate import Trace, capture

    if file is not None:
        if save is not None:
            raise ValueError(
                "--save keeps a trace that is captured, and --trace reads one; leave one of them out"
            )
        return Trace.load(file)
    if save is not None and not save.parent.is_dir():
        raise ValueError(f"there is no folder {save.parent} to save the trace in; make it first")
    import sakuin

    with notes.status(f"capturing a trace of {length:,} tokens from {model}", spinner="line"):
        captured = capture(*sakuin.load(model), length)
    if save is not None:
        captured.save(save)
    return captured


def _show(trace: Any, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    first = next(iter(trace.layers.values()))
    heads, n, d = first.keys.shape
    console.print(
        f"{n:,} offloaded tokens, {len(trace.layers)} layers, {heads} KV heads of {d} dimensions for "
        f"{first.group_size} query heads each; reading one head's keys and values once takes "
        f"{rows[0]['floor_ms']:.3f} ms here."
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for name in _COLUMNS.values():
        table.add_column(name, justify="right")
    for row in rows:
        cells = []
        for key in _COLUMNS:
            share = key in ("touched_share", "memory_share")
            cells.append(f"{100 * row[key]:.1f} %" if share else f"{row[key]:.3f}")
        table.add_row(row["method"], *cells)
    console.print(table)
