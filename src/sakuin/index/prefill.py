"""Exact attention of a chunk of a prompt, by whatever is fastest here: the native kernel for bf16 where this
CPU has one, else torch (`sakuin.attention.exact`).

Called by `sakuin.cache.layer` and `sakuin.cache.full`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import torch
from torch import Tensor

from sakuin.attention.exact import attend_blocks
from sakuin.attention.softmax import Softmax
from sakuin.index import _native

FEW = 16
"""Positions up to which keys are read as a step of decoding reads them: packing them would take longer."""


def attend_chunk(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    past: Iterable[tuple[Tensor, Tensor]],
    softmax: Softmax,
    out: Tensor | None = None,
) -> Tensor:
    """As `sakuin.attention.exact.attend_blocks`, in fp32: q `(n_query_heads, t, head_dim)`, keys and values
    of the chunk `(n_kv_heads, t, head_dim)`, past: blocks `(n_kv_heads, n, head_dim)`. The last dimension of
    values, and of the result, may be another.

    out : fp32 of the result's shape, each row in one piece, where the kernel may put the result and
        return it; what is computed otherwise is not put there.
    """
    if q.device.type != "cpu":
        return attend_blocks(q, keys, values, past, softmax).float()
    if q.shape[1] <= FEW:
        return _few(q, keys, values, list(past), softmax)
    if q.dtype != torch.bfloat16 or not _kernel():
        return attend_blocks(q, keys, values, past, softmax).float()
    blocks = []
    for block in past:
        if block[0].dtype == torch.float32:  # int8 made floats, which must not all be there at once
            return attend_blocks(q, keys, values, past, softmax).float()
        blocks.append(block)
    heads, t, _ = q.shape
    if out is None:
        out = torch.empty(t, heads, values.shape[2]).transpose(0, 1)
    sinks = None if softmax.sinks is None else softmax.sinks.float().contiguous()
    _native.prefill_attention(
        q,
        keys,
        values,
        blocks,
        out,
        softmax.scaling,
        torch.get_num_threads(),
        softcap=softmax.softcap,
        sinks=sinks,
    )
    return out


def _few(
    q: Tensor, keys: Tensor, values: Tensor, past: list[tuple[Tensor, Tensor]], softmax: Softmax
) -> Tensor:
    sinks = None if softmax.sinks is None else softmax.sinks.float().contiguous()
    out, _ = _native.flat_attend(
        q,
        [*past, (keys, values)],
        softmax.scaling,
        torch.get_num_threads(),
        causal=True,
        s_aux=sinks,
        softcap=softmax.softcap,
    )
    return out


@cache
def _kernel() -> bool:
    return bool(_native.prefill_kernel("bfloat16"))
