"""`sakuin chat`: a conversation about documents, or about nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sakuin.cli.answering import Manner
from sakuin.cli.errors import Patience, reports_errors
from sakuin.cli.loading import Loading
from sakuin.cli.messages import messages
from sakuin.cli.options import (
    MODEL_HELP,
    AllowLoops,
    Backend,
    Device,
    Encoding,
    Figures,
    Folder,
    GpuLayers,
    RepeatPenalty,
    Seed,
    Stop,
    System,
    Temperature,
    Threads,
    TopP,
    Window,
)
from sakuin.cli.progress import progress_bar
from sakuin.cli.reading import documents_of, open_context, refuse_system, refuse_window
from sakuin.cli.show import tell
from sakuin.cli.talk import Talk
from sakuin.errors import SakuinError

if TYPE_CHECKING:
    from sakuin import Context, Library

Its = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODEL", help=f"{MODEL_HELP}; smollm2, or the context's own, if left out."
    ),
]


def chat(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE…]", help="Files or folders to talk about; none, and it is a plain chat."
        ),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            "--context", metavar="NAME", help="A stored context instead of files, which stays as it is."
        ),
    ] = None,
    model: Its = None,
    save: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Keep documents and conversation as this context at the end."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="Most tokens of an answer.")] = 256,
    temperature: Temperature = 0.0,
    system: System = None,
    top_p: TopP = 1.0,
    seed: Seed = None,
    repeat_penalty: RepeatPenalty = 1.0,
    stop: Stop = None,
    allow_loops: AllowLoops = False,
    figures: Figures = False,
    history: Annotated[
        bool,
        typer.Option(
            "--history/--no-history", help="Keep what is typed in the cache folder, for the arrow keys."
        ),
    ] = True,
    encoding: Encoding = None,
    device: Device = "auto",
    window: Window = None,
    backend: Backend = "auto",
    gpu_layers: GpuLayers = "0",
    threads: Threads = None,
    library: Folder = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line for each answer.")
    ] = False,
) -> None:
    """Talk with a model, about documents if you name some.

    What was said stays, and is not read again for the next message. /why shows the passages of the last
    answer, /help the other commands; /bye or Ctrl-D leaves, and Ctrl-C ends an answer. Alt-Enter begins a new
    line of a message, and so does Enter between lines of three quotes. From a pipe each line is a message.

    With --save the documents are kept before the first message, and what was said at the end, after Ctrl-C
    too.
    """
    patience = Patience()
    with reports_errors(patient=patience):
        if files and context is not None:
            raise SakuinError("give files or --context, not both.")
        manner = Manner(max_new_tokens, temperature, top_p, seed, repeat_penalty, stop, allow_loops)
        incoming = messages(json, history)
        loading = Loading("auto", device, window, backend, gpu_layers, threads)
        from sakuin import Library

        where = Library(library)
        if save is not None:
            save = where.check_free(save)
        if context is not None:
            refuse_system(system)
            refuse_window(window)
            read, name = open_context(where, context, model, loading)
        else:
            name = model or "smollm2"
            read = _read(files or [], name, encoding, loading, system)
        talk = Talk(read, name, manner, incoming, patience, json=json, figures=figures)
        if save is None:
            talk.run()
        else:
            _run_and_keep(where, talk, save, patience)


def _run_and_keep(library: Library, talk: Talk, name: str, patience: Patience) -> None:
    """Keep what has been read as the context `name`, converse, and keep what was said."""
    with library.saving(name, talk.context) as keep:
        before = talk.context.tokens
        if before:
            keep(growing=True)  # what has been read; says now whether there is room
        ended: BaseException | None = None
        patience.times = 1
        try:
            talk.run()
        except (KeyboardInterrupt, SakuinError) as error:
            ended = error
            if isinstance(error, KeyboardInterrupt):
                tell(f"interrupted; keeping what was said as {name}")
        patience.times = 1
        after = talk.context.tokens
        if after > before:
            try:
                keep(context=talk.context)
            except SakuinError as error:
                kept = f"{name} holds what was read before it" if before else "nothing is kept"
                raise SakuinError(f"the conversation cannot be kept, {kept}: {error}") from None
        if before or after:
            tell(f"kept as {name}")
        if ended is not None:
            raise ended


def _read(
    files: list[str], name: str, encoding: str | None, loading: Loading, system: str | None = None
) -> Context:
    from sakuin import Context

    loading.choose(name)
    texts = documents_of(files, encoding)
    model, tokenizer = loading.load(name)
    if not texts:
        return Context(model, tokenizer, system=system)
    with progress_bar() as progress:
        return Context.from_documents(model, tokenizer, texts, progress=progress, system=system)
