"""`sakuin contexts drop`: documents are taken out of a stored context."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from sakuin.cli.contexts.grown import print_growth
from sakuin.cli.errors import reports_errors
from sakuin.cli.loading import Loading
from sakuin.cli.options import Backend, Device, Folder, GpuLayers, ItsModel, Json, Name, Threads
from sakuin.cli.progress import progress_bar
from sakuin.cli.reading import load_model_of


def drop(
    name: Name,
    documents: Annotated[
        list[str],
        typer.Argument(metavar="DOCUMENT…", help="Documents as `sakuin contexts show` names them, or files."),
    ],
    model: ItsModel = None,
    device: Device = "auto",
    backend: Backend = "auto",
    gpu_layers: GpuLayers = "0",
    threads: Threads = None,
    library: Folder = None,
    json: Json = False,
) -> None:
    """Take documents out of a context. What stands after the first of them is read anew, what stands before
    it is not.

    `remove-document` is another name of this command.
    """
    with reports_errors():
        from sakuin import Library
        from sakuin.prompts.holding import without
        from sakuin.snapshot.manifest import documents_of

        where = Library(library)
        stored = where.find(name)
        where.folder.check_writable()
        without(
            documents_of(stored.manifest, f"the context {name}"), documents
        )  # what is wrong is said before the model is loaded
        loading = Loading(device=device, backend=backend, gpu_layers=gpu_layers, threads=threads)
        loaded, tokenizer = load_model_of(stored, model, loading)
        with where.appending(stored, loaded, tokenizer) as (context, keep), progress_bar() as progress:
            start, before = time.perf_counter(), context.tokens
            growth = context.remove(*documents, progress=progress)
            keep()
        print_growth(stored.name, context, growth, before, time.perf_counter() - start, json)
