"""`sakuin contexts add`: documents are read and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sakuin.cli.contexts.grown import offers_what_there_is, warn_if_full
from sakuin.cli.errors import reports_errors
from sakuin.cli.loading import Loading
from sakuin.cli.options import (
    Backend,
    Device,
    Dtype,
    Encoding,
    Files,
    Folder,
    GpuLayers,
    Json,
    Model,
    System,
    Threads,
    Window,
)
from sakuin.cli.progress import progress_bar
from sakuin.cli.reading import documents_of
from sakuin.cli.show import say, say_json, tell
from sakuin.quantities import counted, seconds_of, size_of

if TYPE_CHECKING:
    from sakuin import Context, RetrievalConfig


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    files: Files,
    model: Model = "smollm2",
    index: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="How old tokens are found: sketch (the default), flat, auto, ivf, or any other kind of "
            "index that can be kept.",
        ),
    ] = None,
    kv_dtype: Annotated[
        str | None,
        typer.Option(metavar="auto|bf16|fp16|int8", help="How keys and values are stored; int8 takes half."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an add that was interrupted.")] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Take the place of a context of this name, which stays until all is read."
        ),
    ] = False,
    system: System = None,
    pin: Annotated[bool, typer.Option("--pin", help="Never evict it to keep the quota.")] = False,
    keep_for: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long to keep it: 12h, 30d, 8w; else for ever.")
    ] = None,
    encoding: Encoding = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    window: Window = None,
    backend: Backend = "auto",
    gpu_layers: GpuLayers = "0",
    threads: Threads = None,
    library: Folder = None,
    json: Json = False,
) -> None:
    """Read documents and keep what was read.

    What a stored context has read of the same beginning is not read again. Interrupted, it keeps what is
    done, and --resume goes on from there.
    """
    with reports_errors(left=lambda: _left_of(name, library, replace)):
        from sakuin import Library

        where = Library(library)
        keep = None if keep_for is None else seconds_of(keep_for, "--keep-for")
        loading = Loading(dtype, device, window, backend, gpu_layers, threads)
        loading.choose(model)
        name = where.check_new(name, resume, replace)
        if resume and not where.kept_of(name):
            tell(f"Nothing of {name} is kept of an earlier add; it begins anew.")
        texts = documents_of(files, encoding)
        config = _config(index, kv_dtype)
        loaded, tokenizer = loading.load(model)
        how: dict[str, Any] = {"resume": resume, "replace": replace, "system": system}
        how |= {"pin": pin, "keep_for": keep}
        with progress_bar() as progress, offers_what_there_is(window=True):
            context = where.add(name, texts, loaded, tokenizer, config, progress, **how)
        _print_added(name, context, where.find(name).manifest.size, json)
        warn_if_full(name, context)


def _config(index: str | None, kv_dtype: str | None) -> RetrievalConfig:
    """What `--index` and `--kv-dtype` mean together; a kind that cannot be kept is refused."""
    from sakuin import RetrievalConfig

    changes: dict[str, Any] = {"index": index, "kv_dtype": kv_dtype}
    config = RetrievalConfig(**{key: value for key, value in changes.items() if value is not None})
    if index is not None:
        from sakuin.index.kind import kind_of

        kind_of(index).check_storable()
    return config


def _print_added(name: str, context: Context, size: int, json: bool) -> None:
    if json:
        said = {
            "name": name,
            "backend": context.backend.name,
            "tokens": context.tokens,
            "reused_tokens": context.reused_tokens,
            "prefill_s": context.prefill_s,
            "bytes": size,
        }
        say_json(said)
        return
    reused = f", {context.reused_tokens:,} of them taken from what is stored" if context.reused_tokens else ""
    read = f"{counted(context.tokens, 'token')}{reused}"
    say(f"{name}: {read}, {size_of(size)}, read in {context.prefill_s:.1f} s")


def _left_of(name: str, library: str | None, replace: bool = False) -> str:
    """What an interrupted add leaves."""
    from sakuin import Library

    where = Library(library)
    if where.is_there(name):
        if replace and (done := where.kept_of(name)):
            return (
                f"{name} is what it was; {done:,} tokens of what was to replace it are kept: add it with "
                "--replace --resume to go on from there."
            )
        return f"{name} is in the library."
    if done := where.kept_of(name):
        return f"{done:,} tokens of {name} are kept; add it with --resume to go on from there."
    return f"Nothing of {name} is kept yet."
