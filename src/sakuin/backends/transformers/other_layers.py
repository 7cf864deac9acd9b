"""What transformers' own layers of a cache hold (sliding windows, convolutions, linear attention), as
tensors, and back.

Layers with an index are in `sakuin.backends.transformers.layer`. Called by
`sakuin.backends.transformers.cache` and `backend`.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer

from sakuin.errors import SakuinError


class CrossLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """The keys and values of an image or another text, which no token adds to and none takes away."""

    def crop(self, tokens_to_remove: int) -> None:
        """Nothing of it belongs to the newest tokens."""


def cross_layer() -> CrossLayer:
    """An empty one."""
    return CrossLayer()  # type: ignore[no-untyped-call]


def has_state(layer: Any) -> bool:
    """Whether a layer without an index holds anything that a sequence needs to go on."""
    return isinstance(layer, DynamicSlidingWindowLayer | LinearAttentionLayer)


def layer_tensors(layer: Any) -> dict[str, Tensor]:
    """The layer's tensors by name, independent of what the layer does next."""
    held: dict[str, Tensor] = {}
    if isinstance(layer, DynamicSlidingWindowLayer) and layer.keys is not None:
        # The layer holds views into the whole last pass.
        window = layer.sliding_window - 1
        held |= {name: _own(getattr(layer, name)[:, :, -window:]) for name in ("keys", "values")}
    if isinstance(layer, LinearAttentionLayer):
        for kind in ("conv", "recurrent"):
            for i, state in getattr(layer, f"{kind}_states").items():
                if state is not None:
                    held[f"{kind}.{i}"] = _own(state)
    return held


def restore_layer(layer: Any, tensors: dict[str, Tensor], n_tokens: int, device: torch.device) -> None:
    """Let a fresh `layer` hold what `layer_tensors` gave after `n_tokens` tokens."""
    tensors = {name: _own(x).to(device) for name, x in tensors.items()}
    if isinstance(layer, DynamicSlidingWindowLayer):
        window: dict[str, Tensor] = {
            name: tensors.pop(name) for name in ("keys", "values") if name in tensors
        }
        _restore_window(layer, window, n_tokens)
    if isinstance(layer, LinearAttentionLayer):
        for name, state in tensors.items():
            kind, _, i = name.partition(".")
            if kind not in ("conv", "recurrent") or i not in map(str, range(layer.number_of_states)):
                raise SakuinError(
                    f"a stored layer holds {name!r}, which its kind does not have: the snapshot is damaged."
                )
            if kind == "conv":
                layer.lazy_initialization(conv_states=state, state_idx=int(i))
            else:
                layer.lazy_initialization(recurrent_states=state, state_idx=int(i))
            getattr(layer, f"{kind}_states")[int(i)].copy_(state)
            layer.has_previous_state[int(i)] = True
    elif tensors:
        raise SakuinError(
            f"a stored sliding window holds {next(iter(tensors))!r}, which its kind does not have: the "
            "snapshot is damaged."
        )


def _restore_window(layer: DynamicSlidingWindowLayer, tensors: dict[str, Tensor], n_tokens: int) -> None:
    if set(tensors) != {"keys", "values"}:
        raise SakuinError("a stored sliding window lacks its keys or values: the snapshot is damaged.")
    kept = min(n_tokens, layer.sliding_window - 1)
    if any(x.dim() != 4 or x.shape[0] != 1 or x.shape[2] != kept for x in tensors.values()):
        raise SakuinError(
            f"a stored sliding window has not the {kept:,} tokens that it should: the snapshot is damaged."
        )
    layer.lazy_initialization(tensors["keys"], tensors["values"])
    layer.keys, layer.values = tensors["keys"], tensors["values"]
    layer.cumulative_length = n_tokens


def held_tensors(layer: Any) -> list[Tensor]:
    """The tensors that one of transformers' cache layers holds."""
    held = [layer.keys, layer.values] if hasattr(layer, "keys") else []
    for states in (getattr(layer, "conv_states", {}), getattr(layer, "recurrent_states", {})):
        held += list(states.values())
    return [x for x in held if isinstance(x, Tensor)]


def copy_layer(layer: Any) -> Any:
    """A copy of one of transformers' cache layers that shares no memory with it."""
    # Not deepcopy: it refuses tensors that were made with gradients on.
    other = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, Tensor):
            setattr(other, name, value.detach().clone())
        elif isinstance(value, dict):
            setattr(
                other, name, {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in value.items()}
            )
    return other


def _own(x: Tensor) -> Tensor:
    with torch.inference_mode(False):
        return x.detach().clone(memory_format=torch.contiguous_format)
