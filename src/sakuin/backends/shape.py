"""The shape of a model: all that the rooms above need to know of it, whichever library runs it.

A backend says it (`sakuin.backends.base.Backend.shape`); nobody else reads a model's own configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sakuin.index.choice import HeadShape

LayerKind = Literal["full", "sliding", "recurrent", "none"]
"""What a layer keeps of the past: all of it, a window, a state of fixed size, or nothing of its own (or
nothing that is known)."""


@dataclass(frozen=True)
class ModelShape:
    """Layers, heads and sizes of a model.

    layers : what each layer keeps of the past, in order.
    n_query_heads, n_kv_heads, head_dim : of its full-attention layers. value_dim : dimensions of their
        values; without it those of keys.
    sliding_window : tokens that a sliding layer sees; 0 where there is none.
    window : most tokens that the model was made for, or None where it does not say.
    trained_window : the window from which its positions are scaled; `window` where none are.
    hidden, intermediate, vocabulary : widths of a state, of the feed-forward layers and of the logits.
    family : what its library calls the architecture, for people to read.
    mixed : whether layers that attend to everything keep a recurrent state beside.
    """

    layers: tuple[LayerKind, ...]
    n_query_heads: int
    n_kv_heads: int
    head_dim: int
    sliding_window: int
    window: int | None
    trained_window: int | None
    hidden: int
    intermediate: int
    vocabulary: int
    family: str = ""
    mixed: bool = False
    value_dim: int = 0

    def __post_init__(self) -> None:
        if not self.value_dim:
            object.__setattr__(self, "value_dim", self.head_dim)

    @property
    def scaled_window(self) -> int | None:
        """The window, where positions are scaled for it; else None."""
        return self.window if self.window != self.trained_window else None

    @property
    def full_layers(self) -> int:
        """Layers that attend to all of the past: those that get an index."""
        return self.layers.count("full")

    @property
    def sliding_layers(self) -> int:
        """Layers that attend to a window."""
        return self.layers.count("sliding")

    @property
    def has_windows(self) -> bool:
        """Whether some layers hold a state that a sequence cannot do without: going on from a cut in the past
        then needs that state as it was there."""
        return self.mixed or any(kind in ("sliding", "recurrent") for kind in self.layers)

    @property
    def heads(self) -> HeadShape:
        """The heads of a full-attention layer."""
        group = self.n_query_heads // self.n_kv_heads
        return HeadShape(self.head_dim, group, self.n_kv_heads, self.value_dim)
