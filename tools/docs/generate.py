"""Writes the parts of the docs that say what the code says (docs/cli.md, docs/settings.md), and the README's
figures from the benchmarks' committed results.

`python tools/docs/generate.py` writes them; with `--check` it fails where a file differs from the code.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from typing import Any

import decode_picture
import end_to_end_picture
import house_picture
import rooms
import typer
from commands import today
from figures import inserted
from markdown_parts import table
from places import DOCS, RESULTS, ROOT

from sakuin.cli import app
from sakuin.config import PRESETS, RetrievalConfig
from sakuin.index.choice import HeadShape
from sakuin.index.costs import COSTS

NOTE = "<!-- Written by tools/docs/generate.py from the code; `make format` writes it anew. -->\n"


CLI_INTRODUCTION = """
This page has every command with its arguments and options. `sakuin COMMAND --help` prints the same.

| command | what it does |
|---|---|
"""

FOR_ALL_COMMANDS = """
## What holds for all

- Results go to standard output. Progress and errors go to standard error.
- An error is one sentence, and exit code 2.
- Ctrl-C ends a command within a second, with exit code 130.

These environment variables are read:

| variable | meaning |
|---|---|
| `SAKUIN_CACHE` | The folder for models; else `~/.cache/sakuin`. |
| `SAKUIN_LIBRARY` | The folder of stored contexts; else `~/.local/share/sakuin/library`. |
| `SAKUIN_LLAMA_LIBRARY` | A llama.cpp library, or the folder of its `libllama.so`, to use instead. |
| `SAKUIN_LLAMA_TRIAL` | `off`: GGUF files are not measured at their first load. |
| `SAKUIN_ISA` | Forces a lower kernel: `portable`, `avx2`, `avx512` or `avx512bf16`. |
| `SAKUIN_TRACEBACK` | `1` prints where an error came from. |
"""


def cli() -> str:
    """The command line's reference: every command with its arguments and options."""
    root = typer.main.get_command(app)
    commands = _commands(root, "sakuin")
    parts = [NOTE, "# The command line\n\n", root.help or "", "\n", CLI_INTRODUCTION]
    for name, command in commands:
        first = " ".join(inspect.cleandoc(command.help or "").partition("\n\n")[0].split())
        anchor = name.replace(" ", "-")
        parts.append(f"| [`{name}`](#{anchor}) | {first} |\n")
    parts.append(FOR_ALL_COMMANDS)
    for name, command in commands:
        parts.append(f"\n## `{name}`\n\n{inspect.cleandoc(command.help or '')}\n\n")
        parts.append("```\n" + _usage(name, command) + "\n```\n\n")
        shown = [one for one in command.params if one.name != "help" and not getattr(one, "hidden", False)]
        parts += [f"- {_parameter(parameter)}\n" for parameter in shown]
    return "".join(parts)


SETTINGS_INTRODUCTION = """# Settings

`sakuin.RetrievalConfig` holds every setting of retrieval attention. Most people need none of them: take a
preset, or turn `tolerance`. What each preset does to the answers is measured in [fidelity.md](fidelity.md).

## Presets

`RetrievalConfig.preset(name)` in Python, `--preset NAME` in the shell:

| preset | for whom | settings |
|---|---|---|
"""

FOR_WHOM = {
    "fast": "who can take a larger error for less reading",
    "balanced": "everybody else",
    "faithful": "who wants a smaller error and takes more reading",
    "exact": "who wants full attention's answer; each step reads everything",
}

ALL_SETTINGS = """
## All settings

| setting | default | meaning |
|---|---|---|
"""


def settings() -> str:
    """The settings' reference: the presets, every field of `RetrievalConfig`, and what `"auto"` chooses."""
    parts = [NOTE, SETTINGS_INTRODUCTION]
    for name, changes in PRESETS.items():
        text = ", ".join(f"`{key}={value!r}`" for key, value in changes.items()) or "the defaults"
        parts.append(f"| `{name}` | {FOR_WHOM[name]} | {text} |\n")
    parts.append(ALL_SETTINGS)
    described = _described(inspect.getdoc(RetrievalConfig) or "")
    for name, default in vars(RetrievalConfig()).items():
        parts.append(f"| `{name}` | `{default!r}` | {described[name]} |\n")
    parts.append(_auto())
    return "".join(parts)


_MODELS = {
    "SmolLM2-135M": HeadShape(64, 3, 3),
    "Qwen2.5-0.5B": HeadShape(64, 7, 2),
    "Llama-3-8B": HeadShape(128, 4, 8),
    "gemma-3-270m": HeadShape(256, 4, 1),
}


AUTO_INTRODUCTION = """
## What `index="auto"` chooses

It takes exact `flat` while a context is short, and `sketch` once that saves a fifth of a step's time. The
table says from how many offloaded tokens on, with keys and values in bf16 / in fp32. That depends on the
heads of a layer and on the kernels that run. How it decides stands in [indexes.md](indexes.md).
`sakuin doctor --model MODEL` says it for a model on the machine at hand.

"""

AUTO_ACCURACY = """
**The choice is nearly the best on average.** Predicted times are off by some tenth. What is chosen takes
longer than the faster of the two by a few percent on average, and by up to a half at worst. The table has, by
kernels, how far predicted times are off, and how many times as long the chosen index takes as the faster one.
It is over all lengths and heads measured.

"""


def _auto() -> str:
    """From how many tokens on `index="auto"` is `sketch`, and how good a choice that is."""
    columns = {"as in": "l", "head_dim": "r", "KV heads": "r", "group": "r"} | dict.fromkeys(COSTS, "r")
    rows = []
    for name, shape in _MODELS.items():
        cells = [
            " / ".join(
                _count(shape.sketch_from(RetrievalConfig(), stored, costs)) for stored in ("bf16", "fp32")
            )
            for costs in COSTS.values()
        ]
        rows.append([name, *map(str, (shape.head_dim, shape.n_kv_heads, shape.group_size)), *cells])
    return AUTO_INTRODUCTION + table(columns, rows) + _auto_accuracy()


def _auto_accuracy() -> str:
    """What benchmarks.speed.choice found of the predictions; nothing where it was not run."""
    columns = {"kernels": "l", "off, median": "r", "off, nine of ten": "r", "longer, mean": "r"}
    columns |= {"longer, worst": "r", "measured by": "l"}
    rows = []
    for isa in COSTS:
        path = RESULTS / f"choice-{isa}.json"
        if path.is_file():
            found = json.loads(path.read_text("utf-8"))
            m = found["machine"]
            rows.append(
                [
                    isa,
                    *(f"{100 * found[name]:.0f} %" for name in ("off_median", "off_nine_tenths")),
                    *(f"{found[name]:.2f} x" for name in ("chosen_over_better", "worst_over_better")),
                    f"`{today(found['command'])}` ({m['cpu']}, {m['threads']} threads, {m['date']})",
                ]
            )
    return AUTO_ACCURACY + table(columns, rows) if rows else ""


def _count(tokens: int | None) -> str:
    return "never" if tokens is None else f"{tokens:,}"


def _commands(command: Any, name: str) -> list[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if command.hidden:  # another name of a command, which says so
        return []
    if children is None:
        return [(name, command)]
    return [found for child, each in children.items() for found in _commands(each, f"{name} {child}")]


def _usage(name: str, command: Any) -> str:
    arguments = [_metavar(p) for p in command.params if p.param_type_name == "argument"]
    return " ".join([name, "[OPTIONS]", *arguments])


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_metavar(parameter)}`: {parameter.help}"
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    value = "" if parameter.is_flag else f" `{_metavar(parameter)}`"
    default = (
        "" if parameter.is_flag or parameter.default in (None, "") else f" Default: `{parameter.default}`."
    )
    return f"{names}{value}: {parameter.help}{default}"


def _described(docstring: str) -> dict[str, str]:
    """Field names to what the docstring's parameter section says of them."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in docstring.splitlines():
        if re.fullmatch(r"\w+(, \w+)*", line):
            names = line.split(", ")
        elif names and line.startswith("    "):
            for name in names:
                found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return found


WITH_TABLES = (
    "evidence",
    "contexts",
    "fidelity",
    "gguf-answers",
    "indexes",
    "lm-eval",
    "ruler",
    "scaling",
    "server",
    "speed",
)
"""Pages, beside the README, into which findings and tables of results are put."""


MAP = DOCS / "architecture.md"
"""The page with the map of the rooms."""


def main(check: bool) -> int:
    wrong = []
    with_figures = (
        ROOT / "README.md",
        *(DOCS / f"{name}.md" for name in WITH_TABLES),
    )
    written = (
        (DOCS / "cli.md", cli()),
        (DOCS / "settings.md", settings()),
        *((page, inserted(page.read_text(encoding="utf-8"))) for page in with_figures),
        (MAP, rooms.inserted(MAP.read_text(encoding="utf-8"))),
        (house_picture.PICTURE, house_picture.drawn()),
    )
    for path, text in written:
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            wrong.append(path.name)
    if not check:
        decode_picture.draw()
        end_to_end_picture.draw()
    else:
        if decode_picture.shown() != decode_picture.wanted():
            wrong.append(decode_picture.PICTURE.name)
        wrong += end_to_end_picture.wrong()
    if wrong:
        names = " and ".join(wrong)
        print(f"{names} differ from the code or the measured figures; `make format` writes them anew.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
