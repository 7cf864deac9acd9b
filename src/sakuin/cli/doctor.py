"""`sakuin doctor`: what this machine gives sakuin, for a person or for a bug report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from sakuin.cli.errors import reports_errors
from sakuin.cli.options import Backend, Json, Window
from sakuin.cli.show import console, facts, say_json
from sakuin.quantities import counted, listed, size_of

_MOST_TRIALS = 4
"""Trials of files that a person is shown."""


def doctor(
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Also say how long a context fits for this model."),
    ] = None,
    window: Window = None,
    backend: Backend = "auto",
    json: Json = False,
) -> None:
    """Show CPU features, kernels, threads, memory, the dtype and the index that `auto` means here, llama.cpp,
    extras, and how long a context fits."""
    with reports_errors():
        from sakuin.capacity.doctor import examine

        report = examine(model, window, backend)
        if json:
            say_json(report)
        else:
            console.print(facts(_rows(report)))


def _rows(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield (
        "versions",
        ", ".join(f"{name} {report[name]}" for name in ("sakuin", "python", "torch", "transformers")),
    )
    yield "CPU", report["cpu"]
    yield "CPU features", " ".join(report["cpu_features"]) or "none that matter here"
    yield "kernels", f"{report['kernel']}, of {', '.join(report['kernels'])} that run here"
    yield "threads", f"{report['threads']}, on {counted(report['cpus'], 'CPU')} that may be used"
    many = "; of several, each wants all cores, which costs time" if len(report["openmp"]) > 1 else ""
    yield "OpenMP runtimes", (", ".join(report["openmp"]) or "none") + many
    yield "GPU", report["gpu"] or "none that torch sees"
    yield "memory", f"{size_of(report['memory']['available'])} {report['memory']['bound']}"
    yield "dtype auto", f"{report['dtype']}, which is the fastest here"
    for each in report["auto"]:
        start = each["sketch_from"]
        yield (
            "index auto",
            "flat, which is exact"
            + ("" if start is None else f"; sketch from {start:,} tokens on")
            + f" (where a model has {counted(each['n_kv_heads'], 'KV head')} of {each['head_dim']} numbers "
            f"in {each['kv_dtype']}, and {counted(each['group_size'], 'query head')} to each)",
        )
    yield from _llama_cpp(report["llama_cpp"], report["backend_gguf"])
    yield from _trials(report["trials"], report["older_trials"])
    yield "cache folder", report["cache_folder"]
    yield (
        "models here",
        ", ".join(name for name, here in report["models"].items() if here) or "none (sakuin models get)",
    )
    for name, missing in report["extras"].items():
        yield f"extra {name}", _extra(name, missing)
    if fits := report.get("fits"):
        yield "model", f"{fits['model']}, run by {fits['backend']}"
        yield from _longest(fits["tokens"], fits["window"], fits["own_window"])


def _longest(tokens: dict[str, int], window: int | None, own: int | None) -> Iterator[tuple[str, str]]:
    """How long a context may be, and whether the model or the memory says so."""
    most, reads = tokens["sketch"], _window(window, own)
    if window is None:
        yield "longest context", f"{most:,} tokens: so many fit into memory, and the model states no window"
    elif most >= window:
        yield (
            "longest context",
            f"{reads}, question and answer included: the model reads no more, though memory here would hold "
            f"{most:,}",
        )
    else:
        yield "longest context", f"{most:,} tokens: memory here holds no more; the model would read {reads}"
    for name in ("flat", "full"):
        if tokens[name] < (most if window is None else min(most, window)):
            how = "with full attention" if name == "full" else f"with index {name}"
            yield how, f"{tokens[name]:,} tokens: memory here holds no more"


def _extra(name: str, missing: list[str]) -> str:
    """Whether an extra of the package is installed, or how to."""
    return f"lacks {listed(missing)}; `pip install 'sakuin[{name}]'`" if missing else "installed"


def _llama_cpp(found: dict[str, Any], auto: dict[str, str]) -> Iterator[tuple[str, str]]:
    if found["library"] is not None:
        where = "" if found["source"] == "package" else f", named by {found['source']}"
        version = f", ggml {found['ggml']}" if found["ggml"] else ""
        yield "llama.cpp", f"{found['library']}{version}{where}"
        yield "llama.cpp's files", ", ".join(Path(file).name for file in found["files"])
        yield "llama.cpp's GPUs", ", ".join(found["gpus"]) or "none (--gpu-layers needs one)"
    if found["problem"] is not None:
        yield "llama.cpp" if found["library"] is None else "it cannot be used", found["problem"]
    yield "GGUF files", f"run by {auto['backend']} ({auto['why']})"


def _trials(trials: list[dict[str, Any]], older: int) -> Iterator[tuple[str, str]]:
    """The latest trials, each under the name of its file; paths are in --json."""
    for trial in trials[:_MOST_TRIALS]:
        yield Path(trial["model"]).name, _trial(trial)
    more = len(trials) - _MOST_TRIALS
    left = [f"{counted(more, 'measurement')} more in --json"] if more > 0 else []
    if older:
        left.append(f"{counted(older, 'measurement')} of files and versions that are others now")
    if left:
        yield "further trials", "; ".join(left)


def _trial(trial: dict[str, Any]) -> str:
    """What was chosen for a file, and what it is compared with."""
    few, rows = trial["few_rows"], trial["least_rows"]
    ours = [f"up to {few} rows"] * bool(few) + [f"from {rows} rows on"] * bool(rows)
    chosen = f"sakuin's products {' and '.join(ours)}" if ours else "llama.cpp's own products"
    chosen += ", repacked weights" if trial["repack"] else ""
    ways = [f"{_name(way)}: {_figures(way)}" for way in trial["ways"]]
    if trial["busy"] >= 0.1:
        ways.append(f"measured while others used the CPU, {trial['busy']:.0%} of the time")
    return f"{chosen} ({trial['library']}, {trial['threads']} threads, {trial['dtype']}; {'; '.join(ways)})"


def _name(way: dict[str, Any]) -> str:
    return ("sakuin's products" if way["ours"] else "llama.cpp's") + (", repacked" if way["repack"] else "")


def _figures(way: dict[str, Any]) -> str:
    if way["wrong"]:
        return str(way["wrong"])
    return f"prefill {way['prefill']:,.0f}, decode {way['decode']:,.0f} tokens/s"


def _window(window: int | None, own: int | None) -> str:
    if window is None:
        return "as many tokens as there are"
    return f"{window:,} tokens" + (f" by YaRN, {own:,} of its own" if own and own < window else "")
