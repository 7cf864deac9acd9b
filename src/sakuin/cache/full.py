"""One full-attention layer of one sequence without an index: every key and value, attended exactly.

What full attention is to a backend that keeps no cache of its own; evaluations hold `sakuin.cache.layer`
against it.
"""

from __future__ import annotations

import copy
from functools import partial

from torch import Tensor

from sakuin.attention.softmax import Softmax
from sakuin.cache.token_buffer import GRACE, GROWTH, TokenBuffer
from sakuin.cache.undo import GoBack
from sakuin.index.prefill import attend_chunk


class FullLayer:
    """Keys and values `(n_kv_heads, n, head_dim)` of all tokens of a sequence, in the model's dtype."""

    def __init__(self) -> None:
        self._buffer: TokenBuffer | None = None

    def __len__(self) -> int:
        return 0 if self._buffer is None else len(self._buffer)

    @property
    def keys(self) -> Tensor:
        """Of all tokens; only of a layer that holds some."""
        assert self._buffer is not None
        return self._buffer.keys

    @property
    def values(self) -> Tensor:
        """Of all tokens; only of a layer that holds some."""
        assert self._buffer is not None
        return self._buffer.values

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return 0 if self._buffer is None else self._buffer.nbytes

    def attend(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        softmax: Softmax,
        *,
        store: bool = True,
        out: Tensor | None = None,
    ) -> Tensor:
        """Attention of the newest tokens: q and result, which is fp32, `(n_query_heads, t, head_dim)`, keys
        and values `(n_kv_heads, t, head_dim)`. They are kept, unless they were by another layer's call.
        out : as `sakuin.index.prefill.attend_chunk` has it."""
        held = len(self) - (0 if store else keys.shape[1])
        past = [(self.keys[:, :held], self.values[:, :held])] if held else []
        found = attend_chunk(q, keys, values, past, softmax, out)
        if store:
            if self._buffer is None:
                self._buffer = TokenBuffer(keys[:, :0], values[:, :0], keys.shape[1] + GROWTH + GRACE)
            self._buffer.append(keys, values)
        return found

    def keep_first(self, n: int) -> None:
        """Forget all but the first n tokens."""
        if self._buffer is not None:
            self._buffer.keep_first(n)

    def restorer(self) -> GoBack:
        """A function that lets it hold again what it holds now."""
        return partial(self.keep_first, len(self))

    def fork(self) -> FullLayer:
        """A second layer with the same tokens, sharing memory until either side writes."""
        other = copy.copy(self)
        other._buffer = None if self._buffer is None else self._buffer.fork()
        return other
