"""What the tests of `graph` share: indexes, exact answers, and whether every key is reached."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reference.exact import Data
from sakuin.index import GraphIndex, build_index


def graph(keys: Tensor, values: Tensor, queries: Tensor | None = None, **knobs: Any) -> GraphIndex:
    index = build_index("graph", keys, values, queries=queries, **knobs)
    assert isinstance(index, GraphIndex)
    return index


def of(data: Data, **knobs: Any) -> GraphIndex:
    return graph(data.keys, data.values, data.queries, **{"segment": 256, **knobs})


def best(q: Tensor, keys: Tensor, k: int) -> Tensor:
    return (
        (q.double() @ keys.double().repeat_interleave(len(q) // len(keys), 0).transpose(1, 2)).topk(k).indices
    )


def recall(found: Tensor, true: Tensor) -> float:
    return float((found[..., :, None] == true[..., None, :]).any(-2).double().mean())


def links(index: GraphIndex) -> list[tuple[Tensor, int]]:
    return [index._graph.links(head) for head in range(index.n_kv_heads)]


def check_reached(index: GraphIndex) -> None:
    """Every key is reached from the first; a link leads to another key, and to none twice."""
    for rows, entry in links(index):
        n = len(rows)
        assert 0 <= entry < n
        assert int(rows.max()) < n
        assert not (rows == torch.arange(n)[:, None]).any()
        for row in rows.tolist():
            there = [i for i in row if i >= 0]
            assert len(set(there)) == len(there)
        reached = torch.zeros(n, dtype=torch.bool)
        front = torch.tensor([0])
        while len(front):
            reached[front] = True
            ahead = rows[front].flatten()
            ahead = ahead[ahead >= 0].unique()
            front = ahead[~reached[ahead]]
        assert reached.all()
