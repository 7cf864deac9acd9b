"""`sakuin chat`: a conversation about documents, or about nothing."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from sakuin.cli.answering import as_object, check_answer, typed
from sakuin.cli.errors import reports_errors, sentence
from sakuin.cli.loading import Loading
from sakuin.cli.options import MODEL_HELP, Backend, Device, Encoding, Folder, GpuLayers, System, Threads
from sakuin.cli.progress import progress_bar
from sakuin.cli.reading import documents_of, open_context, refuse_system
from sakuin.cli.show import Written, complain, say, say_json, tell
from sakuin.errors import SakuinError

if TYPE_CHECKING:
    from sakuin import Context, Library

Its = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODEL", help=f"{MODEL_HELP}; smollm2, or the context's own, if left out."
    ),
]
Temperature = Annotated[
    float, typer.Option(metavar="X", help="0 takes the likeliest token; above, tokens are drawn.")
]
_MOST = 1 << 24
"""Characters of a message: standard input may be a line without end."""

_MOST_REFUSED = 1000
"""Messages in a row that are refused before a conversation is given up: standard input may be `yes`."""


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
    encoding: Encoding = None,
    device: Device = "auto",
    backend: Backend = "auto",
    gpu_layers: GpuLayers = "0",
    threads: Threads = None,
    library: Folder = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line for each answer.")
    ] = False,
) -> None:
    """Talk with a model, about documents if you name some.

    Each line of standard input is a message; Ctrl-D or /quit ends it. What was said stays, and is not read
    again for the next message. With --save the documents are kept before the first message, and what was said
    at the end, after Ctrl-C too.
    """
    saving = _Saving(save)
    with reports_errors(patient=lambda: saving.talking):
        if files and context is not None:
            raise SakuinError("give files or --context, not both.")
        check_answer(max_new_tokens)
        loading = Loading(device=device, backend=backend, gpu_layers=gpu_layers, threads=threads)
        from sakuin import Library

        where = Library(library)
        if save is not None:
            saving.name = where.check_new(save)
        if context is not None:
            refuse_system(system)
            talk, name = open_context(where, context, model, loading)
        else:
            name = model or "smollm2"
            talk = _read(files or [], name, encoding, loading, system)
        converse = partial(_converse, talk, name, max_new_tokens, temperature, json)
        if save is None:
            converse()
        else:
            saving.run(where, talk, converse)


class _Saving:
    """A conversation that is kept as the context `name`. talking : whether there is something to keep when it
    is interrupted."""

    def __init__(self, name: str | None) -> None:
        self.name = name or ""
        self.talking = False

    def run(self, library: Library, talk: Context, converse: Callable[[], None]) -> None:
        """Keep what has been read, converse, and keep what was said."""
        with library.saving(self.name, talk) as keep:
            before = talk.tokens
            if before:
                keep(growing=True)  # what has been read; says now whether there is room
            ended: BaseException | None = None
            self.talking = True
            try:
                converse()
            except (KeyboardInterrupt, SakuinError) as error:
                ended = error
                if isinstance(error, KeyboardInterrupt):
                    tell(f"interrupted; keeping what was said as {self.name}")
            if talk.tokens > before:
                try:
                    keep()
                except SakuinError as error:
                    kept = f"{self.name} holds what was read before it" if before else "nothing is kept"
                    raise SakuinError(f"the conversation cannot be kept, {kept}: {error}") from None
            if before or talk.tokens:
                tell(f"kept as {self.name}")
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


def _messages(json: bool) -> Iterator[str]:
    """Lines of standard input, asked for where a person types."""
    if sys.stdin is None:
        raise SakuinError("standard input is closed; messages are read from it.")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # bytes that are no text are told, message by message
    prompting = sys.stdin.isatty() and not json
    while True:
        if prompting:
            complain("> ", end="")
        line = sys.stdin.readline(_MOST + 1)
        if len(line) > _MOST:
            raise SakuinError(f"a message has more than {_MOST:,} characters; name a file that holds them.")
        if not line or line.strip() == "/quit":
            return
        if line.strip():
            yield line.strip()


def _converse(talk: Context, name: str, max_new_tokens: int, temperature: float, json: bool) -> None:
    refused = 0
    for message in _messages(json):
        written = Written()
        try:
            message = typed(message, "the message")
            answer = talk.chat(message, max_new_tokens, None if json else written, temperature)
        except SakuinError as error:
            # A message that does not fit must not end the conversation, unless they come without end.
            written.end()
            refused += 1
            if refused == _MOST_REFUSED:
                raise
            complain(f"sakuin: {sentence(error)}")
            continue
        refused = 0
        if json:
            said = as_object(talk, answer, name) | {"reused_tokens": answer.reused_tokens}
            say_json(said)
        else:
            written.end()
            if not answer.text:
                say("(The model gave no answer.)")
