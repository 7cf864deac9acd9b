"""Segments on disk while they are in use (`offload="disk"`): what a step reads of every token stays in
memory, the rest is mapped from a file and read where it is retrieved.

`to_disk` puts an index's segments into files that have no name any more when it returns: they go with the
last mapping, however the process ends. `split` does the same for segments that a snapshot has mapped. Called
by `sakuin.cache.sealing` and `sakuin.snapshot`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping

import torch
from torch import Tensor

from sakuin.errors import SakuinError
from sakuin.index.base import Index
from sakuin.index.chain import on_disk
from sakuin.index.kind import Kind, kind_of
from sakuin.index.large_pages import in_large_pages
from sakuin.storage import tensorfile
from sakuin.storage.folders import cache_folder, free_bytes, make_folder

_LEAST = 0.5
"""Share of a whole segment from which on a segment is worth a file: smaller ones will be merged soon."""


def to_disk(index: Index) -> None:
    """Put what is not on disk yet there. The index must be nobody else's."""
    least = _LEAST * index.config.segment_tokens(index.head_dim)
    for i, segment in enumerate(index.stored()):
        if segment.n_tokens >= least and not on_disk(segment.tensors, index.config):
            index.replace(i, _spilled(segment.tensors, kind_of(segment.kind)))


def split(tensors: Mapping[str, Tensor], kind: type[Kind]) -> dict[str, Tensor]:
    """A segment whose `tensors` are mapped, with all in memory that every step reads. kind : of the
    segment."""
    resident = {name: x for name, x in tensors.items() if name not in kind.rows}
    in_memory = in_large_pages({name: (x.shape, x.dtype) for name, x in resident.items()})
    for name, x in resident.items():
        in_memory[name].copy_(x)
    mapped = {name: x for name, x in tensors.items() if name in kind.rows}
    if not kind.scans_rows:
        tensorfile.advise_random(mapped.values())
    return in_memory | mapped


def bytes_on_disk(index: Index) -> int:
    """Bytes of the index's segments that lie on disk."""
    if index.config.offload != "disk":
        return 0
    tensors = [x for segment in index.stored() for x in segment.tensors.values()]
    return sum(x.nbytes for x in tensors if tensorfile.is_mapped(x))


def _spilled(tensors: Mapping[str, Tensor], kind: type[Kind]) -> dict[str, Tensor]:
    rows = {name: x for name, x in tensors.items() if name in kind.rows}
    folder = cache_folder() / "offloaded"
    need = tensorfile.file_size(rows.values())
    try:
        make_folder(folder)
        free = free_bytes(folder)
        if free < 2 * need:
            raise SakuinError(
                f"{folder} has {free / 1e6:,.0f} MB free, which is not enough to "
                "go on with offload='disk'; free some, or set SAKUIN_CACHE to a folder on another disk."
            )
        handle, name = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                tensorfile.write(file, rows, {})
            mapped = tensorfile.open_mapped(name).tensors
        finally:
            os.unlink(name)
    except OSError as error:
        raise SakuinError(
            f"{folder} cannot be written ({error.strerror or error}), which offload='disk' needs; set "
            "SAKUIN_CACHE to a folder that can."
        ) from error
    with torch.inference_mode(False):
        return split({name: mapped.get(name, x) for name, x in tensors.items()}, kind)
