"""What the kinds of index that hold a chain of sealed segments have in common.

Called by `sakuin.index.flat`, `sakuin.index.sketch` and `sakuin.index.ivf`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized

from torch import Tensor

from sakuin.config import RetrievalConfig
from sakuin.index.int8 import floats_of
from sakuin.storage import tensorfile

_WHOLE = ("keys", "values", "value_scale")
"""What exact attention reads of a segment."""


def on_disk(tensors: Mapping[str, Tensor], config: RetrievalConfig) -> bool:
    """Whether the keys of a segment with these tensors lie in a file, and are meant to stay there."""
    return config.offload == "disk" and tensorfile.is_mapped(tensors["keys"])


def in_order(fields: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Keys `(n_kv_heads, n, head_dim)` and values `(n_kv_heads, n, value_dim)` of a segment in order of
    position, as floats. Its field `order` `(n_kv_heads, n)` is the position of each row."""
    keys, values = floats_of(fields)
    back = fields["order"].long().argsort(1)[:, :, None]
    return keys.gather(1, back.expand_as(keys)), values.gather(1, back.expand_as(values))


def whole_within(segments: Sequence[Sized], n_tokens: int) -> tuple[int, int]:
    """How many segments lie whole within the first `n_tokens` tokens, and how many tokens those hold."""
    kept, at = 0, 0
    while kept < len(segments) and at + len(segments[kept]) <= n_tokens:
        at += len(segments[kept])
        kept += 1
    return kept, at


def one_ahead(
    segments: Sequence[Mapping[str, Tensor]], config: RetrievalConfig
) -> Iterator[Mapping[str, Tensor]]:
    """The tensors of each segment; where they lie on disk, the next one's keys and values are on their way
    while one is used."""
    for i, fields in enumerate(segments):
        if config.offload == "disk":
            for wanted in segments[i : i + 2] if i == 0 else segments[i + 1 : i + 2]:
                tensorfile.prefetch(wanted[name] for name in _WHOLE if name in wanted)
        yield fields
