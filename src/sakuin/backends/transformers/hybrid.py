"""A layer that attends to all tokens and keeps a recurrent state beside (Falcon-H1, Zamba): transformers' own
state, and the face of a layer with an index.

Made by `sakuin.backends.transformers.cache`, called by transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import LinearAttentionLayer

from sakuin.backends.transformers.layer import RetrievalLayer


class HybridRetrievalLayer(LinearAttentionLayer, RetrievalLayer):  # type: ignore[override]
    """As `RetrievalLayer`, with the convolutions and recurrent states of transformers' layer."""

    is_compileable = False

    def __init__(self, *face: Any, number_of_states: int = 1) -> None:
        RetrievalLayer.__init__(self, *face)
        LinearAttentionLayer.__init__(self, number_of_states=number_of_states)  # type: ignore[no-untyped-call]

    def take_states(self, layer: LinearAttentionLayer) -> None:
        """Hold copies of the states of another layer that has as many."""
        for name, value in vars(layer).items():
            if isinstance(value, dict):
                setattr(
                    self,
                    name,
                    {i: x.detach().clone() if isinstance(x, Tensor) else x for i, x in value.items()},
                )
        self.device, self.dtype = getattr(layer, "device", None), getattr(layer, "dtype", None)

    def reset(self) -> None:
        LinearAttentionLayer.reset(self)
        RetrievalLayer.reset(self)

    def crop(self, tokens_to_remove: int) -> None:
        LinearAttentionLayer.crop(self, tokens_to_remove)
        RetrievalLayer.crop(self, tokens_to_remove)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._choose_states(beam_idx)
        RetrievalLayer.reorder_cache(self, beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        rows = len(self.inner.rows)
        self._choose_states(torch.arange(rows).repeat_interleave(repeats))
        RetrievalLayer.batch_repeat_interleave(self, repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        rows = len(self.inner.rows)
        self._choose_states(torch.arange(rows)[torch.as_tensor(indices).cpu()])
        RetrievalLayer.batch_select_indices(self, indices)

    def _choose_states(self, rows: Tensor) -> None:
        for states in (self.conv_states, self.recurrent_states):
            for i, state in states.items():
                if state is not None:
                    states[i] = state.index_select(0, rows.to(state.device))
