"""`sakuin contexts append`: more is read into a stored context, once or as a file grows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sakuin.cli.contexts.grown import offers_what_there_is, print_growth, print_nothing_new
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
from sakuin.cli.progress import progress_bar
from sakuin.cli.reading import documents_of, load_model_of
from sakuin.cli.show import tell
from sakuin.errors import SakuinError

if TYPE_CHECKING:
    from sakuin import Context
    from sakuin.cli.contexts.follow import Watched
    from sakuin.context.growth import Growth
    from sakuin.documents import Document


def append(
    name: Name,
    files: Files,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Stay, and append what is written to the (one) file from now on, through rotation and "
            "truncation; a file that is not there yet is waited for.",
        ),
    ] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Let files that were changed take the place of what the context holds of them."
        ),
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

    A file that the context holds goes on where it was: only what is new at its end is read, and nothing where
    nothing is new. One that was changed is refused; with --replace it takes the place of the old one, and
    what stands after the change is read anew. With --follow, each time the file has grown and paused, and
    where it never pauses its whole lines every few seconds; Ctrl-C ends it, and all that was said to be
    appended is kept.
    """
    with reports_errors():
        from sakuin import Library

        if follow and (len(files) != 1 or files[0] == "-"):
            raise SakuinError(f"--follow needs one file, got {len(files)}: {', '.join(files)}.")
        if follow and replace:
            raise SakuinError("--follow reads what comes, and --replace what was changed; leave one out.")
        where = Library(library)
        stored = where.find(name)
        where.folder.check_writable()
        name = stored.name
        loading = Loading(device=device, backend=backend, gpu_layers=gpu_layers, threads=threads)
        if follow:
            from sakuin.cli.contexts.follow import Watched

            watched = Watched(Path(files[0]), tell)
        else:
            texts = documents_of(files, encoding)
        loaded, tokenizer = load_model_of(stored, model, loading)
        with where.appending(stored, loaded, tokenizer) as (context, keep), offers_what_there_is():
            growing = _Growing(name, context, keep, json)
            if follow:
                growing.follow(watched, encoding)
            else:
                growing.add(texts, replace)


class _Growing:
    """A stored context that grows, and what is said of it."""

    def __init__(self, name: str, context: Context, keep: Callable[[], None], json: bool) -> None:
        self._name, self._context, self._keep, self._json = name, context, keep, json
        self._following = self._followed = False

    def add(self, texts: list[Document], replace: bool) -> None:
        """Read these documents, so far as they are not there."""
        start, before = time.perf_counter(), self._context.tokens
        with progress_bar() as progress:
            growth = self._context.append(texts, progress, replace=replace)
        self._kept(growth, before, start)

    def follow(self, watched: Watched, encoding: str | None) -> None:
        """Read what a file holds and gets, until Ctrl-C."""
        from sakuin.cli.contexts.follow import Follower

        self._following = True
        try:
            Follower(watched, encoding, self._grow, tell).run()
        finally:
            watched.stop()

    def _grow(self, document: Document, how: str) -> None:
        from sakuin.cli.contexts.follow import ANEW
        from sakuin.prompts.holding import EditedError

        start, before = time.perf_counter(), self._context.tokens
        try:
            growth = None if how else self._context.append(document)
        except EditedError:
            if self._followed:
                raise
            growth, how = None, ANEW  # or rotated, while nobody followed it
        if growth is None:
            growth = self._context.append_beside(document)
            tell(f"{document.name} {how}; it is read as {growth.changes[0].name}")
        self._followed = True
        self._kept(growth, before, start)

    def _kept(self, growth: Growth, before: int, start: float) -> None:
        """Keep what was read, and say it."""
        if any(change.what != "same" for change in growth.changes):
            self._keep()
            seconds = time.perf_counter() - start
            print_growth(self._name, self._context, growth, before, seconds, self._json)
        elif not self._following:
            print_nothing_new(self._name, self._context, growth, self._json)
