"""What every backend is: who runs a model's weights, and how the rooms above speak to it.

A backend is one model, loaded, with its vocabulary. Its caches are its own objects: others hold them, hand
them back, and reach what is common to all through `retrieval`. What only one backend needs stays in its
folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from sakuin.backends.fingerprint import Fingerprint
from sakuin.backends.hooks import AttentionHook
from sakuin.backends.shape import ModelShape
from sakuin.cache.whole import WholeCache
from sakuin.config import RetrievalConfig
from sakuin.prompts.vocabulary import Vocabulary


class Description(Protocol):
    """A model before its weights are read."""

    @property
    def backend(self) -> str:
        """Who will run it: a name of `sakuin.backends.open.BACKENDS`."""

    @property
    def name(self) -> str:
        """What it was named."""

    @property
    def shape(self) -> ModelShape:
        """Its layers, heads and sizes."""

    @property
    def tokenizer(self) -> Any:
        """As `load` hands it to the user."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Text to its tokens and back."""

    @property
    def n_weights(self) -> int:
        """Parameters, tied ones once."""

    def weights_nbytes(self, dtype: torch.dtype, gpu_layers: int | str = 0) -> int:
        """Bytes of its weights in host memory, where it is loaded so."""


class Backend(ABC):
    """A loaded model and its vocabulary.

    model, tokenizer : as the user has them, to be handed back to the user.
    vocabulary : text to tokens and back.
    dtype, device : of what attention sees: queries, keys and values.
    source : the name by which the model can be loaded again, or "".
    name : of the backend, in `sakuin.backends.open.BACKENDS`.
    """

    name: ClassVar[str]
    model: Any
    tokenizer: Any
    vocabulary: Vocabulary
    dtype: torch.dtype
    device: torch.device
    source: str

    @property
    @abstractmethod
    def shape(self) -> ModelShape:
        """Layers, heads and sizes."""

    @abstractmethod
    def check(self) -> None:
        """Raise `SakuinError` where the model cannot attend through a cache with an index."""

    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """What a context computed with this model belongs to; the first call reads all weights. Of a model
        of a GGUF file it is the file's, whichever backend runs it."""

    def former_fingerprint(self) -> Fingerprint | None:
        """By which earlier releases knew this model, where that was another; None where they did not know it.
        Costs as much as `fingerprint`."""
        return None

    def misfit(self, stored: Fingerprint) -> str | None:
        """Why what was computed with the model of `stored` is of no use to this one, or None. All that
        compares stored fingerprints with a model asks here."""
        own = self.fingerprint()
        if own.is_of_file and not stored.is_of_file and stored.dtype == own.dtype:
            former = self.former_fingerprint()
            return stored.differences(former or own)
        return stored.differences(own)

    @abstractmethod
    def new_cache(self, config: RetrievalConfig | None) -> Any:
        """An empty cache for one sequence; None is full attention, with the backend's own cache."""

    @abstractmethod
    def forward(self, cache: Any, ids: Sequence[int], *, every: bool = False) -> Tensor:
        """Add `ids` to the cache; logits `(vocabulary,)` after the last, or `(len(ids), vocabulary)` after
        `every` one. Threads take turns, pass by pass."""

    def forward_together(
        self, caches: Sequence[Any], ids: Sequence[Sequence[int]], *, every: bool = False
    ) -> list[Tensor]:
        """As `forward` of each cache with its own `ids`; a backend that can reads the weights once for all.
        No cache may be there twice. Of those of one of `groups`, all take their tokens or none."""
        return [self.forward(cache, each, every=every) for cache, each in zip(caches, ids, strict=True)]

    def groups(self, caches: Sequence[Any], ids: Sequence[Sequence[int]]) -> list[list[int]]:
        """Which of them, by their number, `forward_together` computes in one pass of the weights."""
        return [[i] for i in range(len(caches))]

    def steady(self) -> AbstractContextManager[None]:
        """Within, what a token gives does not depend on how many are computed beside it, for comparisons that
        would else see rounding. Slower where that takes other kernels."""
        return nullcontext()

    @abstractmethod
    def chunk(self, cache: Any) -> int:
        """Tokens of one pass of a prefill."""

    @abstractmethod
    def fork(self, cache: Any, config: RetrievalConfig | None = None) -> Any:
        """A second cache with the same tokens; neither sees what the other takes from now on.

        config : other settings for the fork of a cache with an index. Only settings that each step reads may
            differ.
        """

    @abstractmethod
    def filled(self, config: RetrievalConfig, source: Any, queries: Mapping[int, Tensor]) -> Any:
        """A cache with an index that holds what the model has read through `source`, one of full attention:
        as after a prefill of its own.

        queries : of each full-attention layer those of the positions that are multiples of
            `sakuin.cache.sequence.QUERY_STEP`, after RoPE, `(n_query_heads, m, head_dim)`.
        """

    @abstractmethod
    def attention_hook(self, hook: AttentionHook) -> AbstractContextManager[None]:
        """Within, `hook` is called after each layer's attention in each pass of the model."""

    @abstractmethod
    def retrieval(self, cache: Any) -> WholeCache | None:
        """The layers of a cache that have an index; None with full attention."""

    @abstractmethod
    def nbytes(self, cache: Any) -> dict[str, int]:
        """Bytes that a cache holds, by where: `device`, `host`, and where some lie there `disk`."""

    @abstractmethod
    def window_state(self, cache: Any) -> dict[str, Tensor]:
        """The state of the layers without an index, by names of the backend's own, to go on from here."""

    @abstractmethod
    def restore_windows(self, cache: Any, tensors: Mapping[str, Tensor], n_tokens: int) -> None:
        """Let the layers without an index of a fresh cache hold what `window_state` gave after `n_tokens`
        tokens. Raises `SakuinError` where the tensors are not those."""
