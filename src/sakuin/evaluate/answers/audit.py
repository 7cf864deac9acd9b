"""How far each head's attention output is from exact attention at the same inputs, while a model runs.

Called by `sakuin.evaluate.answers.fidelity`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from sakuin.backends.base import Backend
from sakuin.backends.hooks import AttentionCall
from sakuin.cache.layer import in_one_call
from sakuin.cache.whole import WholeCache
from sakuin.index import decode_by_parts


class Audit:
    """Relative L2 errors of attention outputs, by layer and query head, over all positions audited.

    exact : layers with index `"flat"` of the same tokens as those that are audited; they grow with them.
    """

    def __init__(self, exact: WholeCache) -> None:
        self._rows = {number: layer.rows[0] for number, layer in exact.layers.items()}
        self._errors: dict[int, list[Tensor]] = {number: [] for number in self._rows}

    @contextmanager
    def of(self, backend: Backend) -> Iterator[None]:
        """Within, every pass of the model (at most `exact_above` positions, one sequence) is audited."""
        with backend.attention_hook(self._compare):
            yield

    def _compare(self, call: AttentionCall) -> None:
        row = self._rows.get(call.layer)
        if row is None:  # a sliding layer, or one that shares another's keys
            return
        row.before_decode()
        q = call.q[0]
        row.append(call.keys[0], call.values[0], q)
        static = row.static(q.shape[1], call.softmax.sinks)
        decode = row.index.decode if in_one_call(q) else partial(decode_by_parts, row.index)
        truth = decode(q, static, scaling=call.softmax.scaling, softcap=call.softmax.softcap).out
        found = call.out[0].transpose(0, 1).float()
        error = (found - truth).norm(dim=-1) / truth.norm(dim=-1).clamp(min=1e-30)
        self._errors[call.layer].append(error.cpu())

    @property
    def layers(self) -> list[int]:
        """Numbers of the audited layers."""
        return list(self._errors)

    def errors(self) -> Tensor:
        """fp32 `(layers, n_query_heads, positions)`."""
        return torch.stack([torch.cat(parts, 1) for parts in self._errors.values()])
