"""Options that commands of several groups share: which model, how it is loaded, how results are printed."""

from __future__ import annotations

from typing import Annotated

import typer

from sakuin.cli.show import JSON_HELP

MODEL_HELP = "A name of `sakuin models list`, a folder, a .gguf file or a hub id"
DTYPES = "auto|fp32|bf16|fp16"

Model = Annotated[str, typer.Option("--model", metavar="MODEL", help=f"{MODEL_HELP}.")]
Dtype = Annotated[
    str,
    typer.Option("--dtype", metavar=DTYPES, help="Of the model's weights; auto is what is fast here."),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda",
        help="Where the model runs: auto is the first GPU where torch sees one, else the CPU; cuda:1 is the "
        "second GPU.",
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
Json = Annotated[bool, typer.Option("--json", help=JSON_HELP)]
