"""`sakuin chat`: a conversation about documents, or about nothing."""

from __future__ import annotations

import json as json_
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sakuin.cli import ask as asking
from sakuin.cli import contexts
from sakuin.cli.errors import told_in_a_sentence
from sakuin.cli.options import MODEL_HELP, Device
from sakuin.cli.show import notes
from sakuin.cli.stored import Encoding, Folder, documents_of
from sakuin.errors import SakuinError

if TYPE_CHECKING:
    from sakuin import Context


def chat(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE…]", help="Files to talk about; none, and it is a plain chat."),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            "--context", metavar="NAME", help="A stored context instead of files, which stays as it is."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help=f"{MODEL_HELP}; smollm2, or the context's own, if left out.",
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Keep documents and conversation as this context at the end."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="Most tokens of an answer.")] = 256,
    temperature: Annotated[
        float, typer.Option(metavar="X", help="0 takes the likeliest token; above, tokens are drawn.")
    ] = 0.0,
    encoding: Encoding = None,
    device: Device = "auto",
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
    talking = False
    with told_in_a_sentence(patient=lambda: talking):
        if files and context is not None:
            raise SakuinError("give files or --context, not both.")
        if max_new_tokens < 1:
            raise SakuinError(f"--max-new-tokens must be at least 1, got {max_new_tokens}.")
        from sakuin import Library

        if save is not None:
            Library(library).check_new(save)
        if context is not None:
            talk, name = contexts.open_context(Library(library), context, model, device)
        else:
            name = model or "smollm2"
            talk = _read(files or [], name, encoding, device)

        def converse() -> None:
            for message in _messages(json):
                try:
                    _answer(talk, message, name, max_new_tokens, temperature, json)
                except SakuinError as error:
                    # A message that does not fit must not end the conversation.
                    print(f"sakuin: {error}", file=sys.stderr, flush=True)

        if save is None:
            converse()
            return
        with Library(library).saving(save, talk) as keep:
            before = talk.tokens
            if before:
                keep(growing=True)  # what has been read; says now whether there is room
            interrupted, talking = False, True
            try:
                converse()
            except KeyboardInterrupt:
                interrupted = True
                notes.print(f"interrupted; keeping what was said as {save}", style="dim")
            if talk.tokens > before:
                try:
                    keep()
                except SakuinError as error:
                    kept = f"{save} holds what was read before it" if before else "nothing is kept"
                    raise SakuinError(f"the conversation cannot be kept, {kept}: {error}") from None
            if before or talk.tokens:
                notes.print(f"kept as {save}", style="dim")
            if interrupted:
                raise KeyboardInterrupt


def _read(files: list[str], name: str, encoding: str | None, device: str) -> Context:
    from sakuin import Context
    from sakuin.backends import open as models

    texts = documents_of(files, encoding)
    with notes.status(f"loading {name}"):
        asking.quiet()
        model, tokenizer = models.load(name, device=device)
    if not texts:
        return Context(model, tokenizer)
    with asking.progress_bar() as progress:
        return Context.from_documents(model, tokenizer, texts, progress=progress)


def _messages(json: bool) -> Iterator[str]:
    """Lines of standard input, asked for where a person types."""
    prompting = sys.stdin.isatty() and not json
    while True:
        if prompting:
            print("> ", end="", flush=True, file=sys.stderr)
        line = sys.stdin.readline()
        if not line or line.strip() == "/quit":
            return
        if line.strip():
            yield line.strip()


def _answer(talk: Any, message: str, name: str, max_new_tokens: int, temperature: float, json: bool) -> None:
    def write(piece: str) -> None:
        print(piece, end="", flush=True)

    answer = talk.chat(message, max_new_tokens, None if json else write, temperature)
    if json:
        said = asking.as_object(talk, answer, name) | {"reused_tokens": answer.reused_tokens}
        print(json_.dumps(said, ensure_ascii=False), flush=True)
        return
    print("" if answer.text else "(The model gave no answer.)", flush=True)
