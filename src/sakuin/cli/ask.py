"""`sakuin ask`: a question of one or more documents, answered with the passages that the answer came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sakuin.cli.answering import Manner, as_object, print_answer, settings, streamed, typed
from sakuin.cli.errors import reports_errors
from sakuin.cli.loading import Loading
from sakuin.cli.options import (
    AllowLoops,
    Backend,
    Device,
    Dtype,
    Figures,
    GpuLayers,
    Json,
    MaxNewTokens,
    Model,
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
from sakuin.cli.quotes import check_quotes
from sakuin.cli.reading import documents_of
from sakuin.cli.show import notes, say_json
from sakuin.errors import SakuinError
from sakuin.storage.paths import is_file, is_folder, shortened

if TYPE_CHECKING:
    from sakuin import Context, RetrievalConfig
    from sakuin.documents import Document

Encoding = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Encoding of text and HTML files: cp932, shift_jis, …, or auto, which guesses where a file "
        "is not UTF-8. Without it UTF-8, and what an HTML page declares.",
    ),
]


def ask(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE… QUESTION",
            help="Text, Markdown, HTML, PDF, Word, CSV and Excel files, folders or patterns (`-` is standard "
            "input), and last the "
            "question, in quotes.",
            show_default=False,
        ),
    ],
    model: Model = "smollm2",
    index: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="How old tokens are found: sketch (the default), flat (all, exactly), auto (flat while the "
            "context is short, else sketch), full attention, or any other kind of index (docs/indexes.md).",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="fast|balanced|faithful|exact", help="Settings by what they are for."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Above 1 is coarser and faster, below 1 finer and slower, 0 is exact."
        ),
    ] = None,
    max_new_tokens: MaxNewTokens = 256,
    system: System = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = None,
    repeat_penalty: RepeatPenalty = 1.0,
    stop: Stop = None,
    allow_loops: AllowLoops = False,
    figures: Figures = False,
    encoding: Encoding = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    window: Window = None,
    backend: Backend = "auto",
    gpu_layers: GpuLayers = "0",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Ask a question of documents.

    Prints the answer and the passages that it attended to most; with --figures also what it took.
    """
    with reports_errors():
        paths, question = _split(words)
        config = settings(index, preset, tolerance)
        manner = Manner(max_new_tokens, temperature, top_p, seed, repeat_penalty, stop, allow_loops)
        # Before what takes seconds to import: a wrong path is said at once.
        texts = documents_of(paths, encoding)
        loading = Loading(dtype, device, window, backend, gpu_layers, threads)
        context = _read(texts, model, config, loading, system)
        answer = streamed(context, question, manner, stream=not json)
        if json:
            say_json(as_object(context, answer, model))
        else:
            print_answer(context, answer, figures)


def _split(words: list[str]) -> tuple[list[str], str]:
    if len(words) < 2:
        raise SakuinError(f"give at least one file and then the question, got only {shortened(words[0])!r}.")
    check_quotes(words, "sakuin ask")
    *paths, question = words
    if is_file(question) or is_folder(question):
        what = "file" if is_file(question) else "folder"
        raise SakuinError(
            f"the last word must be the question, and {question!r} is a {what}; put the question last, in "
            "quotes."
        )
    question = typed(question, "the question")
    if paths.count("-") > 1:
        raise SakuinError("standard input (-) can be read once only; name it once.")
    return paths, question


def _read(
    texts: list[Document],
    name: str,
    config: RetrievalConfig | Literal["full"],
    loading: Loading,
    system: str | None = None,
) -> Context:
    """A context of the documents. Before the weights are loaded, it is seen whether all of it will fit."""
    from sakuin import Context
    from sakuin.capacity import need
    from sakuin.context.checks import check_characters, check_length
    from sakuin.prompts.reading import Reading

    with notes.status("starting"):
        chosen = loading.choose(name)
        _, kind = loading.place(chosen)
        known = loading.describe(name, chosen)
        reading = Reading().with_documents(texts)
        check_characters(known.vocabulary, reading.body, known.shape.window)
        encoded = known.vocabulary.encode(reading.body)
        tokens = reading.own_tokens(encoded)
        check_length(known.shape.window, tokens, sum(len(text.text) for text in texts))
        wanted = need.estimate(
            known.shape,
            tokens,
            kind,
            None if config == "full" else config,
            weights=known.weights_nbytes(kind, loading.layers),
        )
        need.check(wanted, f"{name} with a context of {tokens:,} tokens")
    model, tokenizer = loading.load(name, known)
    with progress_bar() as progress:
        return Context.from_documents(
            model, tokenizer, texts, config, progress, encoded=encoded, system=system
        )
