"""Keys and values that grow at the end and shrink at either end, in one piece of memory."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress

from torch import Tensor

from sakuin.machine.frozen import Copies, Copy, Frozen, Rows
from sakuin.machine.pages import new_tensor

_LEAST = 1 << 20
"""Bytes of memory that is worth a file to be shared in."""


class TokenBuffer:
    """Keys and values `(n_kv_heads, n, head_dim)` that grow at the end and shrink at either end, written in
    place.

    A fork shares the memory; whichever side writes copies what it holds, or only the pages that it writes,
    where the memory is frozen (`freeze`).
    """

    start: int
    end: int

    def __init__(self, keys: Tensor, values: Tensor, capacity: int) -> None:
        self._shared = False
        self._frozen: tuple[Frozen, int] | None = None
        self._copy: Copy | None = None
        self._take(keys, values, capacity)

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def keys(self) -> Tensor:
        return self._keys[:, self.start : self.end]

    @property
    def values(self) -> Tensor:
        return self._values[:, self.start : self.end]

    @property
    def nbytes(self) -> int:
        return self._keys.nbytes + self._values.nbytes

    def append(self, keys: Tensor, values: Tensor) -> None:
        n = keys.shape[1]
        all_keys, all_values = self.make_room(n)
        all_keys[:, self.end : self.end + n].copy_(keys)
        all_values[:, self.end : self.end + n].copy_(values)
        self.grow(n)

    def make_room(self, n: int) -> tuple[Tensor, Tensor]:
        """The whole memory `(n_kv_heads, capacity, head_dim)` of keys and of values, where n more tokens can
        be written behind `end`; `grow` counts them."""
        if self._shared and self.end + n <= self._keys.shape[1]:
            self._part()
        if self._shared or self.end + n > self._keys.shape[1]:
            self._move(len(self) + n + GROWTH + GRACE)
        return self._keys, self._values

    def _part(self) -> None:
        """Hold a copy of frozen memory, if that is what there is."""
        if self._frozen is not None and self._copy is not None:
            place = self._frozen[1]
            with suppress(OSError):  # what cannot be mapped is copied
                keys, values = self._copy.tensor(place), self._copy.tensor(place + 1)
                self.hold(keys, values, self.start, self.end, False)

    def grow(self, n: int) -> None:
        """Hold n more tokens, which were written into the memory."""
        self.end += n

    def replace(self, keys: Tensor, values: Tensor) -> None:
        """Hold these tokens instead."""
        self._take(keys, values, keys.shape[1] + GROWTH + GRACE)

    def drop_first(self, n: int) -> None:
        self.start += n
        self.shrink()

    def shrink(self) -> None:
        """After `start` was moved on: let go of memory in front of it, if that is much."""
        # Sealing a long prompt leaves a long dead front; do not let it double the memory of the context.
        if self.start > len(self) + 4 * GROWTH:
            self._move(len(self) + GROWTH + GRACE)

    def keep_first(self, n: int) -> None:
        self.end = self.start + n

    def fork(self, copies: Copies | None = None) -> TokenBuffer:
        """copies : those of frozen memory that the buffers of one fork have in common."""
        other = copy.copy(self)
        self._shared = other._shared = True
        if copies is not None and self._frozen is not None:
            frozen = self._frozen[0]
            other._copy = copies.setdefault(frozen, frozen.copy())
        else:
            other._copy = None
        return other

    def held(self) -> Held:
        """What `hold` lets it hold again: tokens are written behind `end` only, or into other memory."""
        return self._keys, self._values, self.start, self.end, self._shared, self._frozen, self._copy

    def _move(self, capacity: int) -> None:
        self._take(self.keys, self.values, capacity)

    def _take(self, keys: Tensor, values: Tensor, capacity: int) -> None:
        new_keys, new_values = _buffer(keys, capacity), _buffer(values, capacity)
        n = keys.shape[1]
        new_keys[:, :n].copy_(keys)
        new_values[:, :n].copy_(values)
        self.hold(new_keys, new_values, 0, n, False)

    def hold(
        self,
        keys: Tensor,
        values: Tensor,
        start: int,
        end: int,
        shared: bool,
        frozen: tuple[Frozen, int] | None = None,
        copy: Copy | None = None,
    ) -> None:
        """Hold what `held` gave."""
        # In one line, which no interrupt parts.
        (self._keys, self._values, self.start, self.end, self._shared, self._frozen, self._copy) = (
            keys, values, start, end, shared, frozen, copy
        )  # fmt: skip


Held = tuple[Tensor, Tensor, int, int, bool, tuple[Frozen, int] | None, Copy | None]


def freeze(buffers: Sequence[TokenBuffer]) -> None:
    """Let forks of these buffers that write into them copy only the pages that they write. They hold the same
    as before, in other memory. Where there is little to copy, or no such memory, nothing changes."""
    new = [one for one in buffers if one._frozen is None and len(one) and one._keys.device.type == "cpu"]
    if sum(one.nbytes for one in new) < _LEAST:
        return
    rows = [Rows(x, one.start, one.end) for one in new for x in (one._keys, one._values)]
    frozen = Frozen.of(rows)
    if frozen is None:
        return
    copy = frozen.copy()
    for i, one in enumerate(new):
        place = 2 * i
        one.hold(
            frozen.tensor(place), frozen.tensor(place + 1), one.start, one.end, True, (frozen, place), copy
        )


def _buffer(like: Tensor, capacity: int) -> Tensor:
    return new_tensor((like.shape[0], capacity, like.shape[2]), like)


GROWTH = 256
"""Tokens that one step of growth seals, and by how many the tail may exceed the recent window."""


GRACE = 32
"""Tokens decoded between the start of such a step and the use of its result. A fixed count, not "when it is
done", so that the same input always gives the same output."""
