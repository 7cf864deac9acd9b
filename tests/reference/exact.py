"""Attention by its definition in float64, and keys, values and queries of any shape to try indexes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import sakuin
from sakuin.index import SketchIndex


def attention(
    q: Tensor, keys: Tensor, values: Tensor, scaling: float, softcap: float | None = None
) -> tuple[Tensor, Tensor]:
    """`out` (n_query_heads, t, d) and `lse` (n_query_heads, t) of q (n_query_heads, t, d) over all tokens."""
    group = len(q) // len(keys)
    z = q.double() @ keys.double().repeat_interleave(group, 0).transpose(1, 2) * scaling
    if softcap is not None:
        z = softcap * (z / softcap).tanh()
    lse = z.logsumexp(-1)
    return (z - lse[..., None]).exp() @ values.double().repeat_interleave(group, 0), lse


def relative(out: Tensor, truth: Tensor) -> Tensor:
    """Relative L2 error of each row."""
    return (out.double() - truth).norm(dim=-1) / truth.norm(dim=-1)


@dataclass
class Data:
    keys: Tensor
    values: Tensor
    queries: Tensor
    q: Tensor
    scaling: float


def made(
    n: int,
    d: int = 64,
    heads: int = 2,
    group: int = 3,
    t: int = 2,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Data:
    """Keys around a few centres with a falling spectrum and a large mean, as models have them; queries that
    look for some of them; `q` (heads * group, t, d) is one step."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    spectrum = torch.arange(1, d + 1) ** -0.5 * 2
    centres = normal(heads, 12, d) * spectrum
    pick = torch.randint(12, (heads, n), generator=random)
    mean = normal(heads, 1, d) * 3
    keys = mean + centres.gather(1, pick[..., None].expand(-1, -1, d)) + normal(heads, n, d) * spectrum * 0.7
    values = normal(heads, 1, d) + normal(heads, n, d) + centres.gather(1, pick[..., None].expand(-1, -1, d))

    def queries(m: int) -> Tensor:
        wanted = torch.randint(n, (heads, m), generator=random)
        towards = (keys - mean).gather(1, wanted[..., None].expand(-1, -1, d))[:, None]
        return (towards * 1.5 + normal(heads, group, m, d)).reshape(heads * group, m, d)

    few = min(n, 400)
    return Data(
        keys.to(dtype), values.to(dtype), queries(few).to(dtype), queries(t).to(dtype), float(d) ** -0.5
    )


FINE = {"tolerance": 1e-6, "cap": 1.0}
"""Everything is attended exactly, but by the whole machinery of the index."""


def index_of(keys: Tensor, values: Tensor, queries: Tensor | None = None, **knobs: Any) -> SketchIndex:
    index = sakuin.build_index("sketch", keys, values, queries=queries, **knobs)
    assert isinstance(index, SketchIndex)
    return index


def of(data: Data, **knobs: Any) -> SketchIndex:
    return index_of(data.keys, data.values, data.queries, **{"segment": 256, **knobs})
