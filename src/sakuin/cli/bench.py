"""`sakuin bench`: measure on this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from sakuin.cli.errors import reports_errors
from sakuin.cli.loading import Loading
from sakuin.cli.options import Backend, GpuLayers, Json, Threads
from sakuin.cli.show import console, notes, say_json, show_table
from sakuin.storage.paths import is_folder

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


_SEARCH_COLUMNS = {
    "running": "running text",
    "retrieval": "retrieval",
    "worst_layer": "worst layer",
    "scanned": "scanned",
    "search_ms": "ms a search",
    "build_s": "build s",
    "nbytes": "MB",
}

_File = Annotated[
    Path | None,
    typer.Option("--trace", metavar="FILE", help="A trace file; without it one is captured from a model."),
]
_Model = Annotated[
    str, typer.Option("--model", metavar="MODEL", help="Whose trace to capture without --trace.")
]
_Length = Annotated[int, typer.Option("--length", help="Tokens of text to capture a trace of.")]
_Tokens = Annotated[
    int | None,
    typer.Option("--tokens", help="Resample the trace to so many offloaded tokens, to see how time grows."),
]
_Save = Annotated[
    Path | None, typer.Option("--save", metavar="FILE", help="Keep the captured trace in this file.")
]


@app.command("index")
def index(
    trace: _File = None,
    model: _Model = "smollm2",
    length: _Length = 4000,
    tokens: _Tokens = None,
    save: _Save = None,
    backend: Backend = "auto",
    gpu_layers: GpuLayers = "0",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Compare the indexes on real queries, keys and values: error of the attention output, bytes, time.

    Errors are relative to exact attention, sink and recent window included; *touched* and *memory* are shares
    of the offloaded keys and values.
    """
    with reports_errors():
        from sakuin.evaluate import compare

        loading = Loading(backend=backend, gpu_layers=gpu_layers, threads=threads)
        found = _trace(trace, model, length, tokens, save, loading)
        with notes.status("exact attention", spinner="line") as status:
            rows = [asdict(row) for row in compare(found, say=status.update)]
        if json:
            say_json({"trace": found.about, "methods": rows})
        else:
            _show(found, rows)


@app.command("search")
def search(
    trace: _File = None,
    model: _Model = "smollm2",
    length: _Length = 4000,
    tokens: _Tokens = None,
    save: _Save = None,
    backend: Backend = "auto",
    gpu_layers: GpuLayers = "0",
    threads: Threads = None,
    k: Annotated[int, typer.Option("--k", help="How many keys each query looks for.")] = 100,
    peers: Annotated[
        bool, typer.Option("--peers/--no-peers", help="Whether to measure Faiss and hnswlib as well.")
    ] = True,
    json: Json = False,
) -> None:
    """Compare the search alone with Faiss and hnswlib: recall of the keys with the largest inner products.

    Each method at several settings, on the first KV head of each layer; a search is for its query group at
    one position. *scanned* is the share of keys whose inner product was computed, *worst layer* the least
    mean recall of one.
    """
    with reports_errors():
        from sakuin.evaluate import PEERS, compare_search

        loading = Loading(backend=backend, gpu_layers=gpu_layers, threads=threads)
        found = _trace(trace, model, length, tokens, save, loading)
        with notes.status("exact search", spinner="line") as status:
            rows = [
                asdict(row)
                for row in compare_search(found, peers=PEERS if peers else (), k=k, say=status.update)
            ]
        if json:
            say_json({"trace": found.about, "k": k, "methods": rows})
        else:
            _show_search(found, k, rows)


def _trace(
    file: Path | None, model: str, length: int, tokens: int | None, save: Path | None, loading: Loading
) -> Any:
    """The trace that the options name, as long as they say."""
    found = _captured(file, model, length, save, loading)
    if tokens is None:
        return found
    from sakuin.evaluate import longer

    held = next(iter(found.layers.values())).keys.shape[1]
    if tokens < held:
        raise ValueError(f"--tokens must be at least the trace's {held:,} offloaded tokens, got {tokens:,}")
    return longer(found, tokens)


def _captured(file: Path | None, model: str, length: int, save: Path | None, loading: Loading) -> Any:
    from sakuin.evaluate import Trace, capture

    if file is not None:
        if save is not None:
            raise ValueError(
                "--save keeps a trace that is captured, and --trace reads one; leave one of them out"
            )
        return Trace.load(file)
    if save is not None and not is_folder(save.parent):
        raise ValueError(f"there is no folder {save.parent} to save the trace in; make it first")
    loaded = loading.load(model)
    with notes.status(f"capturing a trace of {length:,} tokens from {model}", spinner="line"):
        captured = capture(*loaded, length)
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


def _show_search(trace: Any, k: int, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    first = next(iter(trace.layers.values()))
    _, n, d = first.keys.shape
    console.print(
        f"Recall@{k} over {n:,} offloaded tokens, {len(trace.layers)} layers, one KV head of {d} dimensions "
        f"for {first.group_size} query heads each."
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    table.add_column("setting", no_wrap=True)
    for name in _SEARCH_COLUMNS.values():
        table.add_column(name, justify="right")
    for row in rows:
        scanned = "" if row["scanned"] is None else f"{100 * row['scanned']:.1f} %"
        recalls = [f"{row[key]:.3f}" for key in ("running", "retrieval", "worst_layer")]
        last = [f"{row['search_ms']:.3f}", f"{row['build_s']:.2f}", f"{row['nbytes'] / 1e6:.1f}"]
        table.add_row(row["method"], row["setting"], *recalls, scanned, *last)
    show_table(table)
