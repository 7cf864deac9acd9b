"""Rows that grow at the end, shared by forks: one array for a whole sequence, where an index needs its rows
side by side.

Called by `sakuin.index.graph`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sakuin.machine.forks import lock


class GrowingRows:
    """Rows `(n_heads, n, width)` in one array with space for more.

    An array is only ever written past what anybody reads, so that all forks of an index share it: who appends
    first takes the space behind the common rows, others move to an array of their own.
    """

    def __init__(self, n_heads: int, width: int, dtype: torch.dtype) -> None:
        self._lock = lock()
        self._used = 0
        self._rows = self._empty(n_heads, 0, width, dtype)

    @property
    def dtype(self) -> torch.dtype:
        return self._rows.dtype

    def first(self, n: int) -> Tensor:
        """The first n rows, `(n_heads, n, width)`, heads apart; not to be written."""
        return self._rows[:, :n]

    def extended(self, n: int, more: Tensor) -> GrowingRows:
        """The first n rows and then `more` `(n_heads, m, width)`: this array if it has the space, or
        another."""
        end = n + more.shape[1]
        with self._lock:
            mine = n == self._used and end <= self._rows.shape[1]
            if mine:
                self._used = end
        to = self
        if not mine:
            heads, _, width = self._rows.shape
            to = GrowingRows(0, 0, self.dtype)
            # Memory that was never written costs nothing, so the space can be ample.
            to._rows = self._empty(heads, end if n == 0 else end + end // 2, width, self.dtype)
            to._rows[:, :n].copy_(self._rows[:, :n])
            to._used = end
        to._rows[:, n:end].copy_(more)
        return to

    @staticmethod
    def _empty(n_heads: int, n: int, width: int, dtype: torch.dtype) -> Tensor:
        # Tensors made in inference mode could not be written in place outside it later.
        with torch.inference_mode(False):
            return torch.empty(n_heads, n, width, dtype=dtype)
