"""`sakuin contexts ask`: a stored context is asked."""

from __future__ import annotations

from typing import Annotated

import typer

from sakuin.cli.answering import Manner, as_object, print_answer, streamed, typed
from sakuin.cli.errors import reports_errors
from sakuin.cli.loading import Loading
from sakuin.cli.options import (
    AllowLoops,
    Backend,
    Device,
    Figures,
    Folder,
    GpuLayers,
    ItsModel,
    Json,
    MaxNewTokens,
    Name,
    RepeatPenalty,
    Seed,
    Stop,
    Temperature,
    Threads,
    TopP,
)
from sakuin.cli.quotes import unquoted
from sakuin.cli.reading import open_context, refuse_system
from sakuin.cli.show import say_json


def ask(
    name: Name,
    question: Annotated[list[str], typer.Argument(metavar="QUESTION", help="The question, in quotes.")],
    model: ItsModel = None,
    max_new_tokens: MaxNewTokens = 256,
    system: Annotated[str | None, typer.Option("--system", hidden=True)] = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = None,
    repeat_penalty: RepeatPenalty = 1.0,
    stop: Stop = None,
    allow_loops: AllowLoops = False,
    figures: Figures = False,
    offload: Annotated[
        str | None,
        typer.Option(
            metavar="memory|disk",
            help="disk: for a context larger than memory; as it was stored if left out.",
        ),
    ] = None,
    device: Device = "auto",
    backend: Backend = "auto",
    gpu_layers: GpuLayers = "0",
    threads: Threads = None,
    library: Folder = None,
    json: Json = False,
) -> None:
    """Ask a stored context, with the model that read it. Nothing of it is read again."""
    with reports_errors():
        from sakuin import Library

        refuse_system(system)
        if len(question) > 1:
            raise unquoted(question, ["sakuin contexts ask", name])
        manner = Manner(max_new_tokens, temperature, top_p, seed, repeat_penalty, stop, allow_loops)
        asked = typed(question[0], "the question")
        loading = Loading(device=device, backend=backend, gpu_layers=gpu_layers, threads=threads)
        context, model_name = open_context(Library(library), name, model, loading, offload)
        answer = streamed(context, asked, manner, stream=not json)
        if json:
            said = as_object(context, answer, model_name) | {"reused_tokens": answer.reused_tokens}
            say_json(said)
            return
        print_answer(context, answer, figures)
