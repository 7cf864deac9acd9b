"""`sakuin contexts`: documents that were read once, kept in a library and asked again."""

from __future__ import annotations

import json as json_
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sakuin.cli import ask as asking
from sakuin.cli import library as shelf
from sakuin.cli.errors import told_in_a_sentence
from sakuin.cli.options import Device, Dtype, Json, Model
from sakuin.cli.quantities import seconds_of
from sakuin.cli.show import console, notes
from sakuin.cli.stored import Encoding, Folder, Name, documents_of, library_at, size_of
from sakuin.errors import SakuinError

if TYPE_CHECKING:
    from sakuin import Library

app = typer.Typer(
    help="Documents that were read once, kept in a library and asked again.", no_args_is_help=True
)

ItsModel = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="Where the model is now, if not where it was; it must be the same model."
    ),
]


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="Files; `-` is standard input.")],
    model: Model = "smollm2",
    index: Annotated[
        str | None, typer.Option(metavar="sketch|flat|auto|ivf", help="How old tokens are found.")
    ] = None,
    kv_dtype: Annotated[
        str | None,
        typer.Option(metavar="auto|bf16|fp16|int8", help="How keys and values are stored; int8 takes half."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an add that was interrupted.")] = False,
    pin: Annotated[bool, typer.Option("--pin", help="Never evict it to keep the quota.")] = False,
    keep_for: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long to keep it: 12h, 30d, 8w; else for ever.")
    ] = None,
    encoding: Encoding = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    library: Folder = None,
    json: Json = False,
) -> None:
    """Read documents and keep what was read.

    What a stored context has read of the same beginning is not read again. Interrupted, it keeps what is
    done, and --resume goes on from there.
    """
    with told_in_a_sentence():
        where = library_at(library)
        keep = None if keep_for is None else seconds_of(keep_for, "--keep-for")
        where.check_new(name, resume)
        from sakuin import RetrievalConfig, models

        texts = documents_of(files, encoding)
        changes: dict[str, Any] = {"index": index, "kv_dtype": kv_dtype}
        config = RetrievalConfig(**{key: value for key, value in changes.items() if value is not None})
        with notes.status(f"loading {model}"):
            asking.quiet()
            loaded, tokenizer = models.load(model, dtype, device)
        with asking.progress_bar() as progress:
            context = where.add(
                name, texts, loaded, tokenizer, config, progress, resume=resume, pin=pin, keep_for=keep
            )
        said = {
            "name": name,
            "tokens": context.tokens,
            "reused_tokens": context.reused_tokens,
            "prefill_s": context.prefill_s,
            "bytes": where.show(name)["bytes"],
        }
        if json:
            print(json_.dumps(said, ensure_ascii=False))
            return
        reused = (
            f", {context.reused_tokens:,} of them taken from what is stored" if context.reused_tokens else ""
        )
        console.print(
            f"{name}: {context.tokens:,} tokens{reused}, {size_of(said['bytes'])}, read in "
            f"{context.prefill_s:.1f} s"
        )


@app.command("ask")
def ask(
    name: Name,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question, in quotes.")],
    model: ItsModel = None,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="Most tokens of the answer.")] = 256,
    offload: Annotated[
        str | None,
        typer.Option(
            metavar="memory|disk",
            help="disk: for a context larger than memory; as it was stored if left out.",
        ),
    ] = None,
    device: Device = "auto",
    library: Folder = None,
    json: Json = False,
) -> None:
    """Ask a stored context, with the model that read it. Nothing of it is read again."""
    with told_in_a_sentence():
        if max_new_tokens < 1:
            raise SakuinError(f"--max-new-tokens must be at least 1, got {max_new_tokens}.")
        if not question.strip():
            raise SakuinError("the question is empty; ask something.")
        context, model_name = open_context(library_at(library), name, model, device, offload)
        answer = asking.streamed(context, question, max_new_tokens, stream=not json)
        if json:
            said = asking.as_object(context, answer, model_name) | {"reused_tokens": answer.reused_tokens}
            print(json_.dumps(said, ensure_ascii=False))
            return
        asking.print_answer(context, answer)
        notes.print(
            f"{answer.reused_tokens:,} of {answer.tokens:,} tokens taken from the library, "
            f"{answer.tokens - answer.reused_tokens:,} prefilled",
            style="dim",
        )


@app.command("append")
def append(
    name: Name,
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="Files; `-` is standard input.")],
    follow: Annotated[
        bool, typer.Option("--follow", help="Stay, and append what is written to the (one) file from now on.")
    ] = False,
    model: ItsModel = None,
    encoding: Encoding = None,
    device: Device = "auto",
    library: Folder = None,
    json: Json = False,
) -> None:
    """Read more into a stored context. Nothing that is stored is read or written again.

    A file that the context ended with goes on where it was: only what is new in it is read. With --follow,
    each time the file has grown; Ctrl-C ends it, and all that was said to be appended is kept.
    """
    with told_in_a_sentence():
        if follow and (len(files) != 1 or files[0] == "-"):
            raise SakuinError(f"--follow needs one file, got {len(files)}: {', '.join(files)}.")
        where = library_at(library)
        found = where.folder.read(name)
        loaded, tokenizer = _load(found, name, model, device)
        with where.appending(name, loaded, tokenizer) as (context, keep):

            def grow() -> bool:
                """Whether there was anything new."""
                before, start = context.tokens, time.perf_counter()
                texts = documents_of(files, encoding)
                new = [
                    more for more in (_new(context, text, last=follow) for text in texts) if more is not None
                ]
                for more in new:
                    context.append(more)
                if not new:
                    return False
                keep()
                said = {
                    "name": name,
                    "appended": context.tokens - before,
                    "tokens": context.tokens,
                    "seconds": time.perf_counter() - start,
                }
                if json:
                    print(json_.dumps(said, ensure_ascii=False), flush=True)
                else:
                    print(f"{name}: {said['appended']:,} tokens more, {context.tokens:,} in all", flush=True)
                return True

            grew = grow()
            if not grew and not follow:
                notes.print(f"{name} holds all of it already.")
            if follow:
                _watch(Path(files[0]), grow)


def open_context(
    library: Library, name: str, model: str | None, device: str, offload: str | None = None
) -> tuple[Any, str]:
    """A stored context with its model, and the model's name."""
    found = library.folder.read(name)
    config = None
    if offload is not None:
        if offload not in ("memory", "disk"):
            raise SakuinError(f"--offload must be memory or disk, got {offload!r}.")
        config = found.config.with_changes(offload=offload)
    loaded, tokenizer = _load(found, name, model, device)
    return library.open(name, loaded, tokenizer, config), model or found.model


def _load(found: Any, name: str, model: str | None, device: str) -> tuple[Any, Any]:
    from sakuin.library.library import load_model_of

    with notes.status(f"loading {model or found.model}"):
        asking.quiet()
        return load_model_of(found if model is None else replace(found, model=model), name, device)


def _new(context: Any, text: Any, last: bool) -> Any:
    """What of a document the context does not hold yet; None where it holds all of it."""
    held = next((d for d in context.documents if d.name == text.name), None)
    if held is None:
        return text
    if held is not context.documents[-1] or not text.text.startswith(held.text):
        if last:
            raise SakuinError(
                f"{text.name} does not go on from what the context holds of it: it was changed or replaced; "
                "add it as a "
                "new context."
            )
        return text
    more = text.text[len(held.text) :]
    return more or None


def _watch(path: Path, grow: Callable[[], bool]) -> None:
    """Call `grow` whenever the file has grown and been quiet for a moment, until Ctrl-C."""
    notes.print(f"following {path}; Ctrl-C ends it", style="dim")
    seen = path.stat().st_size
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(0.5)
            size = path.stat().st_size if path.exists() else seen
            if size != seen:
                time.sleep(0.5)
                if path.exists() and path.stat().st_size == size:
                    grow()
                    seen = size


shelf.commands(app)
