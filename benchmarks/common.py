"""What the benchmarks share: real text, real models, the machine's description, tables and JSON files."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from rich.console import Console
from rich.table import Table

import sakuin
from sakuin.backends import catalogue
from sakuin.capacity import doctor
from sakuin.index import _native

RESULTS = Path(__file__).parent / "results"
_into = RESULTS

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console.width = 160  # rich takes 80, too few for the tables


def load(name: str, dtype: str) -> tuple[Any, Any]:
    """A named model and its tokenizer, fetched once; by transformers, as all that is kept of these."""
    if not catalogue.MODELS[name].is_here:
        catalogue.get(name, say=console.print)
    return sakuin.load(name, dtype=dtype, backend="transformers")


def median_ms(
    run: Callable[[], Any],
    repeats: int = 30,
    warm: int = 3,
    between: Callable[[], Any] = lambda: None,
) -> tuple[float, float, float]:
    """Median, least and largest time of `run` in milliseconds; `between` is called before each, untimed."""
    for _ in range(warm):
        run()
    times = []
    for _ in range(repeats):
        between()
        start = perf_counter()
        run()
        times.append((perf_counter() - start) * 1e3)
    return statistics.median(times), min(times), max(times)


@cache
def _memory() -> torch.Tensor:
    """256 MiB, more than a cache holds."""
    return torch.zeros(1 << 27, dtype=torch.bfloat16)


def others() -> float:
    """Read 256 MiB of other memory, as a model does before it comes back to a layer; bytes a second."""
    return _native.read_rate(_memory(), torch.get_num_threads())


def cold(code: Callable[[], Any]) -> Callable[[], None]:
    """What is called before each timed step: reads other memory, then runs `code`, which is the same over a
    little data of its own. A model that comes back to a layer finds its data gone from the cache, but not the
    code, which it ran for the layer before."""

    def between() -> None:
        others()
        code()

    return between


def bandwidth() -> float:
    """Bytes a second of reading memory: a median."""
    return statistics.median(others() for _ in range(9))


def command() -> str:
    """How the running benchmark was called, without where traces and results lie, which is of this machine
    alone."""
    arguments = sys.argv[1:]
    for option in ("--trace", "--traces", "--into"):
        if option in arguments:
            at = arguments.index(option)
            del arguments[at : at + 2]
    return f"{_called()} {shlex.join(arguments)}".rstrip()


def argument_parser(about: str | None) -> argparse.ArgumentParser:
    """What reads a benchmark's arguments; `--help` prints `about`, the module's docstring."""
    parser = argparse.ArgumentParser(
        _called(), description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, default=RESULTS, action=_Into, help="folder of the JSON file")
    return parser


class _Into(argparse.Action):
    """Another folder leaves the figures of the docs what they are."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: Any = None) -> None:
        global _into
        _into = values


def _called() -> str:
    spec = sys.modules["__main__"].__spec__
    return f"python -m {spec.name}" if spec else "python"


def show(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left", box=None)
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*[f"{x:.4g}" if isinstance(x, float) else str(x) for x in row])
    console.print(table)


def write(name: str, content: dict[str, Any]) -> None:
    """Write `<name>.json` with the machine's description into `results/`, or where `--into` says."""
    _into.mkdir(parents=True, exist_ok=True)
    path = _into / f"{name}.json"
    path.write_text(json.dumps({"machine": doctor.machine(), **content}, indent=1) + "\n")
    console.print(f"wrote {os.path.relpath(path)}")
