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
Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="auto|llama.cpp|transformers",
        help="Who runs the model: auto is llama.cpp for a .gguf file where it is installed, else "
        "transformers.",
    ),
]
GpuLayers = Annotated[
    str,
    typer.Option(
        "--gpu-layers",
        metavar="N|all",
        help="With llama.cpp, the layers whose weights go to the GPU that it was built for.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", help="Of the CPU; one for each core if left out."),
]
System = Annotated[
    str | None,
    typer.Option(
        "--system",
        metavar="TEXT",
        help="What the model is told before everything else, such as how to answer (a system prompt).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help=JSON_HELP)]
MaxNewTokens = Annotated[int, typer.Option(metavar="N", help="Most tokens of the answer.")]
Temperature = Annotated[
    float,
    typer.Option("--temperature", metavar="X", help="0 takes the likeliest token; above, tokens are drawn."),
]
TopP = Annotated[
    float,
    typer.Option("--top-p", metavar="X", help="Draw from the likeliest tokens that make up this share."),
]
Seed = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Draw the same tokens again as with this number.")
]
RepeatPenalty = Annotated[
    float,
    typer.Option(
        "--repeat-penalty",
        metavar="X",
        help="Make the last 64 tokens less likely, as llama.cpp does: 1.1 helps small models that repeat "
        "themselves.",
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        "--stop",
        metavar="TEXT",
        help="End the answer before this text; \\n is a new line. May be given several times.",
    ),
]
AllowLoops = Annotated[bool, typer.Option("--allow-loops", help="Let an answer go on that repeats itself.")]
Figures = Annotated[
    bool,
    typer.Option("--figures", help="Show also what the answer took: tokens, seconds, coverage, memory."),
]
Encoding = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Encoding of text and HTML files: cp932, …, or auto, which guesses."),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A name from `sakuin contexts list`.")]
Files = Annotated[
    list[str], typer.Argument(metavar="FILE…", help="Files, folders or patterns; `-` is standard input.")
]
ItsModel = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="Where the model is now, if not where it was; it must be the same model."
    ),
]
Folder = Annotated[
    str | None,
    typer.Option(
        "--library", metavar="FOLDER", help="The library's folder; else SAKUIN_LIBRARY, or its place."
    ),
]
