"""Writes the parts of the docs that say what the code says (docs/cli.md, docs/settings.md), and the README's
figures from the benchmarks' committed results.

`python docs/generate.py` writes them; with `--check` it fails where a file differs from the code.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import decode_picture
import typer
from figures import inserted

from sakuin.cli import app
from sakuin.config import PRESETS, RetrievalConfig
from sakuin.index.choice import HeadShape
from sakuin.index.costs import COSTS

HERE = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py from the code; `make format` writes it anew. -->\n"


def cli() -> str:
    """The command line's reference: every command with its arguments and options."""
    root = typer.main.get_command(app)
    parts = [NOTE, "# The command line\n", root.help or "", "\n"]
    for name, command in _commands(root, "sakuin"):
        parts.append(f"\n## `{name}`\n\n{inspect.cleandoc(command.help or '')}\n\n")
        parts.append("```\n" + _usage(name, command) + "\n```\n\n")
        parts += [f"- {_parameter(parameter)}\n" for parameter in command.params if parameter.name != "help"]
    parts.append(
        "\n## What holds for all\n\n"
        "Results go to standard output, progress and errors to standard error. An error is one sentence and "
        "exit code 2; Ctrl-C ends a command within a second with exit code 130. `SAKUIN_CACHE` names the "
        "folder for models (else `~/.cache/sakuin`), `SAKUIN_LIBRARY` that of stored contexts (else "
        "`~/.local/share/sakuin/library`), `SAKUIN_ISA` (`portable`, `avx2`, `avx512`, `avx512bf16`) forces "
        "a lower kernel, and `SAKUIN_TRACEBACK=1` prints where an error came from.\n"
    )
    return "".join(parts)


def settings() -> str:
    """The settings' reference: every field of `RetrievalConfig`, the presets, and what `"auto"` chooses."""
    parts = [NOTE, "# Settings\n\n`sakuin.RetrievalConfig` holds every setting of retrieval attention.\n\n"]
    described = _described(inspect.getdoc(RetrievalConfig) or "")
    parts.append("| setting | default | meaning |\n|---|---|---|\n")
    for field in fields(RetrievalConfig):
        assert field.default is not MISSING
        parts.append(f"| `{field.name}` | `{field.default!r}` | {described[field.name]} |\n")
    parts.append("\n## Presets\n\n`RetrievalConfig.preset(name)`, or `--preset NAME`:\n\n")
    for name, changes in PRESETS.items():
        text = ", ".join(f"`{key}={value!r}`" for key, value in changes.items()) or "the defaults"
        parts.append(f"- `{name}`: {text}\n")
    parts.append(_auto())
    return "".join(parts)


_MODELS = {
    "SmolLM2-135M": HeadShape(64, 3, 3),
    "Qwen2.5-0.5B": HeadShape(64, 7, 2),
    "Llama-3-8B": HeadShape(128, 4, 8),
    "gemma-3-270m": HeadShape(256, 4, 1),
}


def _auto() -> str:
    """From how many tokens on `index="auto"` is `sketch`."""
    lines = [
        '\n## What `index="auto"` chooses\n',
        "`flat`, and `sketch` from so many offloaded tokens on, with keys and values in bf16 / in fp32, by "
        "the heads of a layer and the kernels that run. How it decides stands in [indexes.md](indexes.md); "
        "`sakuin doctor --model MODEL` says it for a model on the machine at hand.\n",
        "| as in | head_dim | KV heads | group | " + " | ".join(COSTS) + " |",
        "|---|---:|---:|---:|" + "---:|" * len(COSTS),
    ]
    for name, shape in _MODELS.items():
        cells = [
            " / ".join(
                _count(shape.sketch_from(RetrievalConfig(), stored, costs)) for stored in ("bf16", "fp32")
            )
            for costs in COSTS.values()
        ]
        numbers = f"{shape.head_dim} | {shape.n_kv_heads} | {shape.group_size}"
        lines.append(f"| {name} | {numbers} | " + " | ".join(cells) + " |")
    for isa in COSTS:
        path = HERE.parent / "benchmarks" / "results" / f"choice-{isa}.json"
        if path.is_file():
            found = json.loads(path.read_text("utf-8"))
            m = found["machine"]
            lines.append(
                f"\n{isa} (`{found['command']}`; {m['cpu']}, {m['threads']} threads, {m['date']}): "
                "predicted times are off by "
                f"{found['off_median']:.0%} (median), by up to {found['off_nine_tenths']:.0%} in nine of ten "
                "cases. Over all lengths and heads measured, what is chosen takes "
                f"{found['chosen_over_better']:.2f} times as long as the faster of the two on average, "
                f"{found['worst_over_better']:.2f} times at worst."
            )
    return "\n".join(lines) + "\n"


def _count(tokens: int | None) -> str:
    return "never" if tokens is None else f"{tokens:,}"


def _commands(command: Any, name: str) -> list[tuple[str, Any]]:
    children = getattr(command, "commands", None)
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


WITH_TABLES = ("contexts", "fidelity", "indexes", "lm-eval", "ruler", "scaling", "speed")
"""Pages, beside the README, into which findings and tables of results are put."""


def main(check: bool) -> int:
    wrong = []
    with_figures = (
        HERE.parent / "README.md",
        *(HERE / f"{name}.md" for name in WITH_TABLES),
    )
    written = (
        (HERE / "cli.md", cli()),
        (HERE / "settings.md", settings()),
        *((page, inserted(page.read_text(encoding="utf-8"))) for page in with_figures),
    )
    for path, text in written:
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            wrong.append(path.name)
    if not check:
        decode_picture.draw()
    elif decode_picture.shown() != decode_picture.wanted():
        wrong.append(decode_picture.PICTURE.name)
    if wrong:
        names = " and ".join(wrong)
        print(f"{names} differ from the code or the measured figures; `make format` writes them anew.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
