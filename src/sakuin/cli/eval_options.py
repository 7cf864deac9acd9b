"""Options that the commands of `sakuin eval` share."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from sakuin.errors import SakuinError

Model = Annotated[
    str,
    typer.Option(
        "--model", metavar="MODEL", help="A name of `sakuin models list`, a folder, a .gguf file or a hub id."
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar="auto|fp32|bf16|fp16",
        help="Of the model's weights; in fp32 rounding does not blur what is measured.",
    ),
]
Configurations = Annotated[
    str,
    typer.Option(
        "--configurations",
        metavar="NAMES",
        help="Names with blanks between them: full, a preset or a kind of index, with settings or a touched "
        "share where wanted (`ivf:estimate_rest=false`, `pages@9%`).",
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="FOLDER",
        help="Where results are kept as they come, so that the same command goes on after an interruption.",
    ),
]
Window = Annotated[
    int | None,
    typer.Option(
        "--window",
        metavar="TOKENS",
        help="Tokens that the model shall read where that is more than it was made for, by YaRN.",
    ),
]


def numbers(option: str, text: str) -> list[int]:
    """Whole numbers of at least 1 with blanks or commas between them."""
    words = text.replace(",", " ").split()
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise SakuinError(f"{option} takes whole numbers above 0 with blanks between them, got {text!r}.")
    return [int(word) for word in words]


def known_as(model: str, window: int | None) -> str:
    """What results call a model whose window may have been made longer."""
    return model if window is None else f"{model} to {window}"


def command(name: str, words: Mapping[str, str], files: Sequence[Path] = ()) -> str:
    """The command line that gives the same results again."""
    options = [word for option, value in words.items() for word in (option, value)]
    return shlex.join(["sakuin", "eval", name, *(file.name for file in files), *options])
