"""Reading a GGUF file's weights without its vocabulary.

transformers reads all metadata of a GGUF file each time it reads its weights, where the package `gguf` makes
Python objects of each token of the vocabulary, and it makes the table of tensor names anew for each module of
the model. Together that is 8 s of 10 for SmolLM2, and 14 of 22 for Gemma 3 with its 262,144 tokens. The
tokenizer is there already (`sakuin.backends.transformers.load` keeps it), so the vocabulary is passed over
and the table is made once. Called by `sakuin.backends.transformers.load`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, Literal

from sakuin.machine.forks import lock

_LONG = 4096
"""Arrays of more items belong to the vocabulary; those of a configuration have an item a layer."""


class _Here(threading.local):
    """What holds in this thread alone: whether the vocabulary is passed over (tables are not None), and
    the tables of names made since."""

    tables: dict[tuple[Any, ...], Any] | None = None


_here = _Here()
_once = lock()


@contextmanager
def without_vocabulary() -> Iterator[None]:
    """Within, and in this thread alone, transformers reads a GGUF file's weights quickly: arrays of the
    metadata that are as long as a vocabulary are passed over, and are empty to it."""
    with _once:
        _install()
    before, _here.tables = _here.tables, {}
    try:
        yield
    finally:
        _here.tables = before


@cache
def _install() -> None:
    """Put the choice into gguf, for good: what a thread is doing decides. Where another version does not have
    these two functions, all is read as ever."""
    import gguf

    usual, table = (
        getattr(gguf.GGUFReader, "_get_field_parts", None),
        getattr(gguf, "get_tensor_name_map", None),
    )
    if usual is not None:
        gguf.GGUFReader._get_field_parts = _parts(usual)  # type: ignore[method-assign]
    if table is not None:
        gguf.get_tensor_name_map = _table(table)


def _parts(usual: Callable[..., Any]) -> Callable[..., Any]:
    from gguf import GGUFValueType

    @wraps(usual)
    def parts(self: Any, orig_offs: int, raw_type: int) -> Any:
        if _here.tables is not None and raw_type == GGUFValueType.ARRAY:
            try:
                found = _passed_over(self, orig_offs)
            except Exception:  # whatever this is, gguf's own says it, or knows a form that is not known here
                found = None
            if found is not None:
                return found
        return usual(self, orig_offs, raw_type)

    return parts


def _passed_over(reader: Any, start: int) -> Any:
    """Of a long array what gguf says of one without its items, whose size it is; None of a short one."""
    import numpy as np
    from gguf import GGUFEndian, GGUFValueType

    item, count = reader._get(start, np.uint32), reader._get(start + 4, np.uint64)
    if count[0] <= _LONG:
        return None
    kind, at, file = GGUFValueType(item[0]), start + 12, memoryview(reader.data)
    if kind != GGUFValueType.STRING:
        at += int(count[0]) * np.dtype(reader.gguf_scalar_to_np[kind]).itemsize
    else:
        order: Literal["big", "little"] = "big" if reader.endianess == GGUFEndian.BIG else "little"
        for _ in range(int(count[0])):
            at += 8 + int.from_bytes(file[at : at + 8], order)
            if at > len(file):
                raise ValueError("the vocabulary goes past the end of the file")
    return at - start, [item, count], [], [GGUFValueType.ARRAY, kind]


def _table(usual: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(usual)
    def table(*args: Any, **named: Any) -> Any:
        if _here.tables is None:
            return usual(*args, **named)
        key = (args, tuple(named.items()))
        if key not in _here.tables:
            _here.tables[key] = usual(*args, **named)
        return _here.tables[key]

    return table
