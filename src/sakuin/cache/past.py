"""What a sequence holds at one moment, in blocks. Made by `sakuin.cache.sequence`, read by exact
attention."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from torch import Tensor

from sakuin.index.base import Index


class Past:
    """The blocks of a sequence at one moment, sink, index and the rest; may be gone through more than once.

    Blocks of the index are asked for one by one: those in int8 are made anew each time.
    """

    def __init__(
        self, sink: tuple[Tensor, Tensor], index: Index, newest: list[tuple[Tensor, Tensor]]
    ) -> None:
        self._sink, self._index, self._newest = sink, index, newest

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for block in chain([self._sink], self._index.blocks(), self._newest):
            if block[0].shape[1]:
                yield block
