"""How far each head's attention output is from exact attention at the same inputs, while a model runs.

Called by `sakuin.evaluate.fidelity`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sakuin.backends.transformers.cache import RetrievalCache
from sakuin.evaluate.seeing import hearing
from sakuin.index import decode_by_parts


class Audit:
    """Relative L2 errors of attention outputs, by layer and query head, over all positions heard.

    exact : a cache with index `"flat"` of the same tokens as the one that is audited; it grows with it.
    """

    def __init__(self, exact: RetrievalCache) -> None:
        self._rows = {number: layer.rows[0] for number, layer in exact.whole.layers.items()}
        self._errors: dict[int, list[Tensor]] = {number: [] for number in self._rows}

    @contextmanager
    def of(self, model: Any) -> Iterator[None]:
        """Within, every pass of `model` (at most `exact_above` positions, one sequence) is audited."""
        with hearing(model, self._hear):
            yield

    def _hear(
        self,
        number: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        scaling: float,
        softcap: float | None,
        s_aux: Tensor | None,
    ) -> None:
        row = self._rows.get(number)
        if row is None:  # a sliding layer, or one that shares another's keys
            return
        row.before_decode()
        row.append(k[0], v[0], q[0])
        static = row.static(q.shape[2], None if s_aux is None else s_aux.float())
        if q.device.type == "cpu":
            truth = row.index.decode(q[0], static, scaling=scaling, softcap=softcap).out
        else:
            truth = decode_by_parts(row.index, q[0], static, scaling=scaling, softcap=softcap).out
        found = out[0].transpose(0, 1).float()
        error = (found - truth).norm(dim=-1) / truth.norm(dim=-1).clamp(min=1e-30)
        self._errors[number].append(error.cpu())

    @property
    def layers(self) -> list[int]:
        """Numbers of the audited layers."""
        return list(self._errors)

    def errors(self) -> Tensor:
        """fp32 `(layers, n_query_heads, positions)`."""
        return torch.stack([torch.cat(parts, 1) for parts in self._errors.values()])
