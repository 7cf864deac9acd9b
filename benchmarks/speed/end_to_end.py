"""What does asking a long document take with GGUF models on a CPU? sakuin in llama.cpp, llama.cpp by itself
and transformers, in one run: prefill in tokens a second, decode in milliseconds a token, the time to the
first answer of a document never seen, memory, and the ratios that were aimed at.

Each library runs in a process of its own, and both take turns, so that what else the machine does falls on
both. llama.cpp alone runs with flash attention and passes of 512 tokens; its weights repacked or not and its
keys and values in fp16 or q8_0, whichever of those that work is faster. Where a context is too long to be
read, the cells are filled: sakuin's with the keys, values and queries of a real pass that are made longer,
llama.cpp's with real cells again and again. What is found is written as it comes, and a library that dies is
noted. The plan and its time are printed first.

Run: python -m benchmarks.speed.end_to_end [--quick] [--models smollm2 gemma3-270m 0.5b 3b]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import random_gguf
from benchmarks.common import RESULTS, argument_parser, command, console, show
from benchmarks.speed.end_to_end_parts.plan import CASES, DEFAULT, FULL, QUICK, SHORT, Case, Stage, stages
from benchmarks.speed.end_to_end_parts.ratios import goals, kind, said
from benchmarks.speed.end_to_end_parts.runs import Measured, Run
from sakuin.backends import catalogue
from sakuin.backends.llama_cpp import locate
from sakuin.capacity import doctor
from sakuin.index import _native
from sakuin.machine.cpu import cpu_flags
from sakuin.storage.folders import cache_folder


def main() -> None:
    chosen = _arguments(sys.argv[1:])
    machine = kind(cpu_flags(), _native.isa())
    cases = [QUICK] if chosen.quick else [CASES[name] for name in chosen.models]
    effort, kinds = (SHORT, ("f16",)) if chosen.quick else (FULL, ("f16", "q8_0"))
    libraries = dict(each.partition("=")[::2] for each in chosen.libraries) or found_libraries()
    planned = list(stages(cases, 2 * len(kinds) * len(libraries), len(libraries), effort, machine != "amx"))
    _show_plan(planned)
    if chosen.plan:
        return
    output = chosen.output or (Path("build") if chosen.quick else RESULTS) / f"end_to_end-{machine}.json"
    result: dict[str, Any] = {
        "machine": doctor.machine(),
        "command": _command(chosen.libraries),
        "kind": machine,
        "libraries": list(libraries),
        "complete": False,
        "models": {},
        "failures": [],
        "goals": [],
    }

    if chosen.add:
        if not output.is_file():
            sys.exit(f"--add: there is no {output.name} yet to add to; run without it first")
        before = json.loads(output.read_text("utf-8"))
        result["command"] = f"{before['command']}; {result['command']}"
        # Each says what machine and commit it was measured with.
        result["models"] = {
            name: {"machine": before["machine"], **each}
            for name, each in before["models"].items()
            if name not in {case.name for case in cases}
        }
        result["failures"] += [each for each in before["failures"] if each["model"] in result["models"]]

    def save() -> None:
        result["goals"] = goals(result)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        run = Run(
            libraries,
            effort,
            Path(folder),
            result,
            save,
            console.print,
            chosen.threads,
            kinds,
            result["failures"],
        )
        run.rate()
        for case in cases:
            found = result["models"][case.name] = {"rows": []}
            Measured(run, case, _file(case), found).all()
    result["complete"] = True
    save()
    _show(result)
    console.print(f"wrote {output.name}")


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(DEFAULT))
    parser.add_argument("--quick", action="store_true", help="one model at 1K and 4K; written into build/")
    parser.add_argument(
        "--plan", action="store_true", help="say what would run and how long, and run nothing"
    )
    parser.add_argument(
        "--libraries",
        nargs="+",
        default=[],
        metavar="NAME=PATH",
        help="llama.cpp libraries, under which names; default: the packages that are installed",
    )
    parser.add_argument(
        "--add", action="store_true", help="keep the other models of the file; both commands are kept with it"
    )
    parser.add_argument("--threads", type=int, help="of the CPU; default: as many as torch takes")
    parser.add_argument("--output", type=Path, help="the file to write, instead of benchmarks/results/…")
    chosen = parser.parse_args(words)
    for each in chosen.libraries:
        name, _, path = each.partition("=")
        if not name or not Path(path).exists():
            parser.error(f"--libraries takes NAME=PATH with a path that is there, got {each!r}")
    return chosen


def found_libraries() -> dict[str, str]:
    """The installed packages' libraries: their paths by name, "" for the one that sakuin takes by itself."""
    first = locate.find()
    if first is None:
        raise locate.no_library()
    found = {first.name if first.version else "SAKUIN_LLAMA_LIBRARY": ""}
    other = locate._xllamacpp()
    if first.version and other is not None and other.name != first.name:
        found[other.name] = str(other.files[-1])
    return found


def _file(case: Case) -> Path:
    """The model's file; fetched, or made and kept in the cache folder, where it is not there."""
    if case.name in catalogue.MODELS:
        return catalogue.get(case.name, say=console.print)
    path = cache_folder() / "models" / f"random-llama-{case.name}-Q4_K_M.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        console.print(f"writing {path.name}")
    return random_gguf.write(path, random_gguf.SHAPES[case.name])


def _command(libraries: list[str]) -> str:
    """As it was called, without paths, which are of this machine alone."""
    said = command()
    for each in libraries:
        said = said.replace(each, each.partition("=")[0])
    return said


def _show_plan(planned: list[Stage]) -> None:
    rows = [(stage.model, stage.name, stage.seconds / 60) for stage in planned]
    show("Plan", ("model", "stage", "about minutes"), rows)
    console.print(f"about {sum(stage.seconds for stage in planned) / 60:.0f} minutes")


def _show(result: dict[str, Any]) -> None:
    columns = ("way", "tokens", "prefill_per_s", "first_answer_s", "decode_ms")
    for name, model in result["models"].items():
        show(name, columns, [[row.get(column, "") for column in columns] for row in model["rows"]])
    rows = [
        (row["model"], row["what"], said(row, "found"), said(row, "goal"), _met(row["met"]))
        for row in result["goals"]
    ]
    show("Against the goals", ("model", "what", "found", "goal", "met"), rows)
    for failure in result["failures"]:
        console.print(f"{failure['model']} {failure['stage']}: {failure['why']}")


def _met(met: bool | None) -> str:
    return "" if met is None else "yes" if met else "NO"


if __name__ == "__main__":
    main()
