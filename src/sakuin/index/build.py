"""`build_index`: an index straight from keys and values, without a model or a cache.

For users, tests and benchmarks; the cache makes its indexes by `new_index`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sakuin import kinds
from sakuin.arguments import shown, whole
from sakuin.config import RetrievalConfig
from sakuin.index.base import Index, check_array, new_index
from sakuin.index.checks import check_geometry


def build_index(
    kind: str,
    keys: Tensor,
    values: Tensor,
    queries: Tensor | None = None,
    query_positions: Tensor | None = None,
    *,
    group_size: int | None = None,
    **knobs: Any,
) -> Index:
    """An index of `kind` (`"sketch"`, `"flat"`, `"auto"`, another of `sakuin.kinds.names()`) over `keys` and
    `values`.

    Parameters
    ----------
    keys, values
        CPU tensors `(n_kv_heads, n_tokens, head_dim)`, float32, bfloat16 or float16, any strides, at
        least one token. The values' last dimension may be another than the keys'.
    queries
        `(n_query_heads, m, head_dim)`, queries of the same context in order of position, as they meet the
        keys (after RoPE).
    query_positions
        `(m,)` whole numbers that do not decrease: the token each query belongs to. Without it the queries
        count as spread evenly.
    group_size
        Query heads per KV head; only needed without `queries`, where 1 is taken.
    knobs
        Fields of `RetrievalConfig`, and options of the kind.

    Raises
    ------
    TypeError, ValueError
        One sentence for a wrong type, shape, dtype or value, NaN and infinity among them.
    """
    if not isinstance(kind, str) or not kinds.is_known(kind):
        raise ValueError(f"kind must be one of {', '.join(kinds.names())}, got {shown(kind)}")
    config = RetrievalConfig().with_changes(index=kind, **knobs)
    _check_pair(keys, values, config)
    heads, n, head_dim = keys.shape
    if query_positions is not None and queries is None:
        raise ValueError("query_positions were given without queries")
    group_size = _group_size(group_size, queries, heads, head_dim)
    positions = None if queries is None else _positions(query_positions, queries.shape[1], n)
    check_geometry(heads, head_dim, group_size, values.shape[2])
    index = new_index(heads, head_dim, group_size, config, values.shape[2])
    step = config.segment_tokens(head_dim)
    for first in range(0, n, step):
        last = min(first + step, n)
        own = None
        if queries is not None and positions is not None:
            begin, end = torch.searchsorted(positions, torch.tensor([first, last])).tolist()
            own = queries[:, begin:end] if end > begin else None
        index.append(keys[:, first:last], values[:, first:last], own)
    return index


def _check_pair(keys: Tensor, values: Tensor, config: RetrievalConfig) -> None:
    check_array("keys", keys, None, None)
    check_array("values", values, keys.shape[0], None)
    if values.shape[1] != keys.shape[1]:
        raise ValueError(
            f"values must have as many tokens as keys, got {values.shape[1]} and {keys.shape[1]}"
        )
    if values.dtype != keys.dtype and config.kv_dtype == "auto":
        raise ValueError(
            f"keys and values must have one dtype, got {keys.dtype} and {values.dtype}; convert one, or say "
            "how to store them with kv_dtype"
        )
    if keys.shape[1] == 0:
        raise ValueError("keys hold no tokens; an index needs at least one")


def _group_size(given: int | None, queries: Tensor | None, heads: int, head_dim: int) -> int:
    """Query heads per KV head, as given or as the queries have them."""
    given = None if given is None else whole("group_size", given, 1)
    if queries is None:
        return 1 if given is None else given
    check_array("queries", queries, None, head_dim)
    if heads == 0 or queries.shape[0] == 0 or queries.shape[0] % heads:
        raise ValueError(
            f"queries must have a multiple of the keys' {heads} heads, got shape {tuple(queries.shape)}"
        )
    found = queries.shape[0] // heads
    if given is not None and given != found:
        raise ValueError(f"group_size is {given}, but queries have {found} heads for each KV head")
    return found


def _positions(given: Tensor | None, m: int, n: int) -> Tensor:
    if given is None:
        return torch.arange(m) * n // max(m, 1)
    if not isinstance(given, Tensor) or given.dtype not in (torch.int32, torch.int64) or given.shape != (m,):
        got = (
            f"{given.dtype} of shape {tuple(given.shape)}" if isinstance(given, Tensor) else repr(type(given))
        )
        raise ValueError(f"query_positions must be whole numbers of shape ({m},), got {got}")
    positions = given.to(torch.int64)
    if m and (positions.diff() < 0).any():
        raise ValueError("query_positions must not decrease; sort the queries by position")
    if m and not 0 <= int(positions[0]) <= int(positions[-1]) < n:
        raise ValueError(
            f"query_positions must lie in 0 to {n - 1}, got {int(positions[0])} to {int(positions[-1])}"
        )
    return positions
