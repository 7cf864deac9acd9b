"""`sakuin contexts append`: more is read into a stored context, once or as a file grows."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sakuin.cli.errors import reports_errors
from sakuin.cli.loading import Loading
from sakuin.cli.options import (
    Backend,
    Device,
    Encoding,
    Files,
    Folder,
    GpuLayers,
    ItsModel,
    Json,
    Name,
    Threads,
)
from sakuin.cli.reading import documents_of, load_model_of
from sakuin.cli.show import say, say_json, tell
from sakuin.errors import SakuinError

if TYPE_CHECKING:
    from sakuin import Context

_PAUSE, _LONGEST, _TRIES = 0.5, 5.0, 3
"""A followed file is read when it has not changed for so many seconds, or for so many it has not paused."""


def append(
    name: Name,
    files: Files,
    follow: Annotated[
        bool, typer.Option("--follow", help="Stay, and append what is written to the (one) file from now on.")
    ] = False,
    model: ItsModel = None,
    encoding: Encoding = None,
    device: Device = "auto",
    backend: Backend = "auto",
    gpu_layers: GpuLayers = "0",
    threads: Threads = None,
    library: Folder = None,
    json: Json = False,
) -> None:
    """Read more into a stored context. Nothing that is stored is read or written again.

    A file that the context ended with goes on where it was: only what is new in it is read. With --follow,
    each time the file has grown and paused, and where it never pauses its whole lines every few seconds;
    Ctrl-C ends it, and all that was said to be appended is kept.
    """
    with reports_errors():
        from sakuin import Library

        if follow and (len(files) != 1 or files[0] == "-"):
            raise SakuinError(f"--follow needs one file, got {len(files)}: {', '.join(files)}.")
        where = Library(library)
        stored = where.find(name)
        where.folder.check_writable()
        name = stored.name
        loading = Loading(device=device, backend=backend, gpu_layers=gpu_layers, threads=threads)
        loaded, tokenizer = load_model_of(stored, model, loading)
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
                _print_grown(name, context, before, time.perf_counter() - start, json)
                return True

            if follow:
                _follow(Path(files[0]), grow)
            elif not grow():
                tell(f"{name} holds all of it already.")


def _print_grown(name: str, context: Context, before: int, seconds: float, json: bool) -> None:
    more = context.tokens - before
    if json:
        said = {
            "name": name,
            "backend": context.backend.name,
            "appended": more,
            "tokens": context.tokens,
            "seconds": seconds,
        }
        say_json(said)
    else:
        say(f"{name}: {more:,} tokens more, {context.tokens:,} in all")


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
                "add it as a new context."
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
    tell(f"following {path}; Ctrl-C ends it")
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
    except (OSError, ValueError) as error:
        raise SakuinError(
            f"{path} cannot be followed: {getattr(error, 'strerror', None) or error}."
        ) from None
