"""Whether the tensors of a snapshot are what a model's layers hold: heads, sizes and dtypes of sink, tail,
kept queries and windows, before anything is made of them.

What a snapshot says is compared with what the model says of itself. Where the two differ, one token is read
into an empty cache, since a few models have other heads than they say. Called by `sakuin.snapshot.parts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sakuin.backends.base import Backend
from sakuin.cache.sequence import QUERY_STEP
from sakuin.cache.whole import WholeCache
from sakuin.config import RetrievalConfig
from sakuin.errors import SakuinError

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_Heads = tuple[int, int, int, torch.dtype]
"""KV heads, head_dim of keys and of values, dtype."""


class Checks:
    """What the layers of the model of `backend` hold."""

    def __init__(self, backend: Backend, config: RetrievalConfig) -> None:
        self._backend, self._config = backend, config
        shape = backend.shape
        self._said: _Heads = (shape.n_kv_heads, shape.head_dim, shape.value_dim, backend.dtype)

    def rows(self, what: str, i: int, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Keys and values `(n_kv_heads, n, head_dim)` of the sink or tail of layer i."""
        keys, values = _pair(what, i, tensors, 3)
        found = (keys.shape[0], keys.shape[2], values.shape[2], keys.dtype)
        if found != self._said and found != self._held(i):
            raise damaged(f"the {what} of layer {i} has {_heads(found)} where the model has {self._own(i)}")
        return keys, values

    def queries(self, i: int, own: Mapping[str, Tensor], keys: Tensor, n_tokens: int) -> tuple[int, bool]:
        """The position of the first kept query of layer i, and whether the last pass was exact; the tail's
        queries are checked beside."""
        counts = own.get("next")
        if counts is None or counts.dtype != torch.int64 or counts.shape != (2,):
            raise damaged(f"the tail of layer {i} does not say what its next query is")
        first, exact = counts.tolist()
        if not 0 <= first < n_tokens + QUERY_STEP or first % QUERY_STEP or exact not in (0, 1):
            raise damaged(f"the tail of layer {i} says that its next query is {first:,}")
        queries = own.get("queries")
        if queries is not None:
            heads, most = self._backend.shape.n_query_heads, -(-max(0, n_tokens - first) // QUERY_STEP)
            fits = queries.dim() == 3 and (queries.shape[0], queries.shape[2]) == (heads, keys.shape[2])
            if not fits or queries.shape[1] > most or queries.dtype not in _FLOATS:
                raise damaged(
                    f"the tail of layer {i} has queries of shape {tuple(queries.shape)} in {queries.dtype}, "
                    f"which {heads} query heads of {keys.shape[2]} do not leave"
                )
        for name, kinds in (("moment", (torch.float64, torch.float32)), ("moment_count", (torch.int64,))):
            if name in own and own[name].dtype not in kinds:
                raise damaged(f"the {name} of layer {i} is in {own[name].dtype}")
        return first, bool(exact)

    def window(self, tensors: Mapping[str, Tensor]) -> None:
        """The state of the layers without an index."""
        for name, x in tensors.items():
            number, _, field = name.partition(".")
            if not number.isdigit():  # a backend's own bytes, which it checks itself
                if x.dtype != torch.uint8 or x.dim() != 1:
                    raise damaged(f"the state {name!r} is no row of bytes")
            elif field in ("keys", "values"):
                pair = ((one, tensors.get(f"{number}.{one}")) for one in ("keys", "values"))
                own = {one: y for one, y in pair if y is not None}
                keys, values = _pair("window", int(number), own, 4)
                found = (keys.shape[1], keys.shape[3], values.shape[3], keys.dtype)
                held = self._window_of(int(number)) if found != self._said else found
                if keys.shape[0] != 1 or found != held:
                    said = "none" if held is None else _heads(held)
                    raise damaged(
                        f"the window of layer {number} has {_heads(found)} where the model has {said}"
                    )
            elif x.dtype not in _FLOATS or x.dim() < 2 or x.shape[0] != 1:
                raise damaged(f"the state {name!r} has the shape {tuple(x.shape)} in {x.dtype}")

    # -- what the model does, where it is not what it says ---------------------------------------------------

    @cached_property
    def _after_one_token(self) -> Any:
        cache = self._backend.new_cache(self._config)
        self._backend.forward(cache, [0])
        return cache

    def _held(self, i: int) -> _Heads | None:
        whole = self._backend.retrieval(self._after_one_token)
        rows = whole.layers[i].rows if isinstance(whole, WholeCache) else []
        if not rows:
            return None
        keys, values = rows[0].sink
        return keys.shape[0], keys.shape[2], values.shape[2], keys.dtype

    def _own(self, i: int) -> str:
        held = self._held(i)
        return "none" if held is None else _heads(held)

    def _window_of(self, i: int) -> _Heads | None:
        held = self._backend.window_state(self._after_one_token)
        keys, values = (held.get(f"{i}.{name}") for name in ("keys", "values"))
        if keys is None or values is None:
            return None
        return keys.shape[1], keys.shape[3], values.shape[3], keys.dtype


def damaged(why: str) -> SakuinError:
    """That a snapshot's tensors are not what they should be."""
    return SakuinError(f"{why}: the snapshot is damaged.")


def _pair(what: str, i: int, tensors: Mapping[str, Tensor], dims: int) -> tuple[Tensor, Tensor]:
    """Keys and values that fit each other: of one dtype, and as many tokens of as many heads."""
    keys, values = tensors.get("keys"), tensors.get("values")
    if keys is None or values is None:
        raise damaged(f"the {what} of layer {i} lacks its keys or values")
    if keys.dim() != dims or keys.shape[:-1] != values.shape[:-1] or keys.dtype != values.dtype:
        raise damaged(
            f"the {what} of layer {i} has keys of shape {tuple(keys.shape)} in {keys.dtype} and values of "
            f"shape {tuple(values.shape)} in {values.dtype}"
        )
    return keys, values


def _heads(found: _Heads) -> str:
    heads, keys, values, dtype = found
    size = f"{keys}" if keys == values else f"{keys} and {values}"
    return f"{heads} KV heads of {size} in {str(dtype).removeprefix('torch.')}"
