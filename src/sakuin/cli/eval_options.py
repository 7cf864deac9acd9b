"""Options that the commands of `sakuin eval` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
