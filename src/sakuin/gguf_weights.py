"""Reading a GGUF file's weights without its words.

transformers reads all metadata of a GGUF file each time it reads its weights, where the package `gguf` makes
Python objects of each word of the tokenizer, and it makes the table of tensor names anew for each module of
the model. Together that is 8 s of 10 for SmolLM2, and 14 of 22 for Gemma 3 with its 262,144 words. The
tokenizer is there already (`sakuin.models` keeps it), so neither is done. Called by `sakuin.models`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

_LONG = 4096
"""Arrays of more items are words and what belongs to them; those of a configuration have an item a layer."""
_ALONE = threading.Lock()


@contextmanager
def without_words() -> Iterator[None]:
    """Within, and in this thread alone, transformers reads a GGUF file's weights quickly: arrays of the
    metadata that are as long as a vocabulary are passed over, and are empty to it."""
    import gguf

    thread = threading.get_ident()

    def here(quick: Any, plain: Any) -> Any:
        def chosen(*args: Any, **named: Any) -> Any:
            if threading.get_ident() == thread:
                try:
                    return quick(*args, **named)
                except Exception:  # whatever this is, gguf's own says it, or reads a form that we do not know
                    pass
            return plain(*args, **named)

        return chosen

    with _ALONE:
        plain = {"GGUFReader": gguf.GGUFReader, "get_tensor_name_map": gguf.get_tensor_name_map}
        quick = {"GGUFReader": _reader(), "get_tensor_name_map": cache(gguf.get_tensor_name_map)}
        try:
            for name, function in plain.items():
                setattr(gguf, name, here(quick[name], function))
            yield
        finally:
            for name, function in plain.items():
                setattr(gguf, name, function)


@cache
def _reader() -> Any:
    """gguf's reader, but for long arrays: of these only what they are and how many items they have."""
    import numpy as np
    from gguf import GGUFEndian, GGUFReader, GGUFValueType

    class Reader(GGUFReader):
        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type != GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            item, count = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
            if count[0] <= _LONG:
                return super()._get_field_parts(orig_offs, raw_type)
            kind, at = GGUFValueType(item[0]), orig_offs + 12
            if kind == GGUFValueType.STRING:
                at = self._after(at, int(count[0]))
            else:
                at += int(count[0]) * np.dtype(self.gguf_scalar_to_np[kind]).itemsize
            return at - orig_offs, [item, count], [], [GGUFValueType.ARRAY, kind]

        def _after(self, at: int, count: int) -> int:
            """Where so many strings end that begin at `at`."""
            file = memoryview(self.data)  # type: ignore[arg-type]
            order: Literal["big", "little"] = "big" if self.endianess == GGUFEndian.BIG else "little"
            for _ in range(count):
                at += 8 + int.from_bytes(file[at : at + 8], order)
            return at

    return Reader
