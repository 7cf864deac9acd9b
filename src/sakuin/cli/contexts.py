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
from sakuin.cli.show import console, notes
from sakuin.cli.stored import Encoding, Folder, Name, documents_of, library_at, size_of
from sakuin.errors import SakuinError
from sakuin.quantities import seconds_of

if TYPE_CHECKING:
    from sakuin import Library
    from sakuin.library import Stored

app = typer.Typer(
    help="Documents that were read once, kept in a library and asked again.", no_args_is_help=True
)

_PAUSE, _LONGEST, _TRIES = 0.5, 5.0, 3
"""A followed file is read when it has not changed for so many seconds, or for so many it has not paused."""

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
    with told_in_a_sentence(left=lambda: _left_of(name, library)):
        where = library_at(library)
        keep = None if keep_for is None else seconds_of(keep_for, "--keep-for")
        where.check_new(name, resume)
        if resume and not where.kept_of(name):
            notes.print(f"Nothing of {name} is kept of an earlier add; it begins anew.", markup=False)
        from sakuin import RetrievalConfig
        from sakuin.backends import open as models

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
            "bytes": where.find(name).manifest.size,
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
    each time the file has grown and paused, and where it never pauses its whole lines every few seconds;
    Ctrl-C ends it, and all that was said to be appended is kept.
    """
    with told_in_a_sentence():
        if follow and (len(files) != 1 or files[0] == "-"):
            raise SakuinError(f"--follow needs one file, got {len(files)}: {', '.join(files)}.")
        where = library_at(library)
        stored = where.find(name)
        loaded, tokenizer = _load(stored, model, device)
        with where.appending(stored, loaded, tokenizer) as (context, keep):

            def grow(whole_lines: bool = False) -> bool:
                """Whether there was anything new."""
                before, start = context.tokens, time.perf_counter()
                texts = documents_of(files, encoding)
                found = (_new(context, text, last=follow, whole_lines=whole_lines) for text in texts)
                new = [more for more in found if more is not None]
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

            if follow:
                _follow(Path(files[0]), grow)
            elif not grow():
                notes.print(f"{name} holds all of it already.")


def _left_of(name: str, library: str | None) -> str:
    where = library_at(library)
    if where.is_there(name):
        return f"{name} is in the library."
    if done := where.kept_of(name):
        return f"{done:,} tokens of {name} are kept; add it with --resume to go on from there."
    return f"Nothing of {name} is kept yet."


def open_context(
    library: Library, name: str, model: str | None, device: str, offload: str | None = None
) -> tuple[Any, str]:
    """A stored context with its model, and the model's name."""
    stored = library.find(name)
    config = None
    if offload is not None:
        if offload not in ("memory", "disk"):
            raise SakuinError(f"--offload must be memory or disk, got {offload!r}.")
        config = stored.manifest.config.with_changes(offload=offload)
    loaded, tokenizer = _load(stored, model, device)
    return library.open(stored, loaded, tokenizer, config), model or stored.manifest.model


def _load(stored: Stored, model: str | None, device: str) -> tuple[Any, Any]:
    from sakuin.library.model import load_model_of

    with notes.status(f"loading {model or stored.manifest.model}"):
        asking.quiet()
        return load_model_of(stored, device, model)


def _new(context: Any, text: Any, last: bool, whole_lines: bool = False) -> Any:
    """What of a document the context does not hold yet, up to the end of its last whole line or of all; None
    where it holds that."""
    held = next((d for d in context.documents if d.name == text.name), None)
    if held is None:
        if not whole_lines:
            return text
        whole = text.text[: text.text.rfind("\n") + 1]
        return replace(text, text=whole) if whole else None
    if held is not context.documents[-1] or not text.text.startswith(held.text):
        if last:
            raise SakuinError(
                f"{text.name} does not go on from what the context holds of it: it was changed or replaced; "
                "add it as a "
                "new context."
            )
        return text
    more = text.text[len(held.text) :]
    if whole_lines:
        more = more[: more.rfind("\n") + 1]
    return more or None


def _follow(path: Path, grow: Callable[[bool], bool]) -> None:
    """Call `grow` at once, and whenever the file has grown and been quiet for a moment, until Ctrl-C. Where
    it is never quiet, `grow` is called every few seconds, with True: whole lines only."""
    seen, failed = _bytes_in(path), 0  # from before reading: what comes meanwhile is read next
    grow(False)
    notes.print(f"following {path}; Ctrl-C ends it", style="dim")
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(_PAUSE)
            size, since = _bytes_in(path), time.monotonic()
            if size in (seen, None):
                continue
            while True:
                time.sleep(_PAUSE)
                before, size = size, _bytes_in(path)
                quiet = size == before
                if quiet or time.monotonic() - since >= _LONGEST:
                    break
            if size is None:
                continue
            try:
                grow(not quiet)
                failed = 0
            except SakuinError:
                # What is being written may end within a character; not three times in a row.
                failed += 1
                if quiet or failed == _TRIES:
                    raise
            seen = size if quiet else None


def _bytes_in(path: Path) -> int | None:
    """None where there is no such file now, as when a log is rotated."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


shelf.commands(app)
