"""Runs the benchmarks that the figures in the docs come from, one after another, each in its own process.

Every module in a folder beside this file is a benchmark. It runs without arguments too, and
`python -m benchmarks.FOLDER.NAME --help` says what it measures. What they share lies beside this file.

Run: python -m benchmarks [--list] [NAME ...]
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from pathlib import Path

from sakuin.machine import children

HERE = Path(__file__).parent


def names() -> list[str]:
    """Every benchmark, as `folder.name`."""
    return sorted(f"{p.parent.name}.{p.stem}" for p in HERE.glob("*/*.py") if p.stem != "__init__")


def about(name: str) -> str:
    """The first sentence of a benchmark's docstring."""
    source = HERE.joinpath(*name.split(".")).with_suffix(".py").read_text("utf-8")
    said = " ".join((ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0].split())
    ends = [said.find(mark) + 1 for mark in (". ", "? ") if mark in said]
    return said[: min(ends)] if ends else said


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="say what would run, and run nothing")
    parser.add_argument("names", nargs="*", metavar="NAME", help="as --list writes them; default: all")
    chosen = parser.parse_args()
    for name in chosen.names:
        if name not in names():
            parser.error(f"there is no benchmark {name!r}; `python -m benchmarks --list` lists them")
    for name in chosen.names or names():
        print(f"{name}: {about(name)}", flush=True)
    if chosen.list:
        return
    for name in chosen.names or names():
        print(f"== {name}", flush=True)
        command, environment = children.python("-m", f"benchmarks.{name}"), children.environment(HERE.parent)
        if code := subprocess.run(command, env=environment, check=False).returncode:
            sys.exit(code)


if __name__ == "__main__":
    main()
