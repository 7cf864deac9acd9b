"""Running a model over a cache: prefill in chunks, and one token after another.

transformers' `generate` wants the whole prompt each time and cannot be asked for progress; this loop
continues from a cache that holds a document. Called by `sakuin.context.context` and `sakuin.context.answer`,
and by `sakuin.evaluate`.
"""

from __future__ import annotations

import copy
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from sakuin.backends.transformers.cache import RetrievalCache, copy_layer
from sakuin.backends.transformers.load import cache_keyword

CHUNK = 2048
"""Tokens of one forward pass in prefill."""
WINDOWED_CHUNK = 1024
"""The same on a CPU for models of which some layers have a window: these compute a chunk's scores with all of
the chunk and throw away what the window leaves out (Gemma 3 270M: 14 % less time for 8,192 tokens)."""


_locks: weakref.WeakKeyDictionary[Any, threading.Lock] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def _passing(model: Any) -> threading.Lock:
    """The lock of a model: threads take turns, pass by pass, rather than fight over the cores (and some
    rotary embeddings keep numbers of the running pass)."""
    with _making:
        return _locks.setdefault(model, threading.Lock())


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the likeliest at `temperature` 0, else drawn from the most likely `top_p`
    of the mass."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be a finite number of at least 0, got {self.temperature!r}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p!r}")

    def chooser(self) -> Callable[[Tensor], int]:
        """A function from logits `(vocabulary,)` to a token."""
        if self.temperature == 0:
            return lambda logits: int(logits.argmax())
        generator = torch.Generator()
        generator.seed() if self.seed is None else generator.manual_seed(self.seed)

        def draw(logits: Tensor) -> int:
            shares, order = (logits.float().cpu() / self.temperature).softmax(-1).sort(descending=True)
            shares[shares.cumsum(-1) - shares > self.top_p] = 0.0
            return int(order[torch.multinomial(shares, 1, generator=generator)])

        return draw


class Runner:
    """One model over one cache."""

    def __init__(self, model: Any, cache: Any, exact_above: int) -> None:
        self.model, self.cache = model, cache
        self._keyword = cache_keyword(model)
        self._exact_above = exact_above

    def prefill(self, ids: Sequence[int]) -> None:
        """Add `ids` to the cache."""
        for _ in self.steps(ids):
            pass

    def steps(self, ids: Sequence[int]) -> Iterator[int]:
        """Add `ids` to the cache, chunk by chunk; yields the number of tokens done after each.

        No chunk but an only one is so short that it would be taken for decoding, which is not exact.
        """
        windowed = any(getattr(layer, "is_sliding", False) for layer in self.cache.layers)
        chunk = WINDOWED_CHUNK if windowed and self.model.device.type == "cpu" else CHUNK
        done = 0
        while done < len(ids):
            end = done + chunk
            if len(ids) - end <= self._exact_above:
                end = len(ids)
            self._forward(ids[done:end])
            done = min(end, len(ids))
            yield done

    def tokens(self, first: int, most: int, sampling: Sampling, seconds: list[float]) -> Iterator[int]:
        """Up to `most` tokens after `first`, the prompt's last; the time of each forward pass is appended to
        `seconds`."""
        choose, last = sampling.chooser(), first
        for _ in range(most):
            start = time.perf_counter()
            logits = self._forward([last])
            seconds.append(time.perf_counter() - start)
            last = choose(logits)
            yield last

    def end_tokens(self, tokenizer: Any) -> frozenset[int]:
        """Tokens that end an answer."""
        stated = getattr(self.model.generation_config, "eos_token_id", None)
        ends = set(stated) if isinstance(stated, list | tuple) else {stated}
        ends.add(tokenizer.eos_token_id)
        return frozenset(int(token) for token in ends if token is not None)

    @torch.no_grad()
    def _forward(self, ids: Sequence[int]) -> Tensor:
        """Logits `(vocabulary,)` after the last of `ids`."""
        rows = torch.tensor([ids], device=self.model.device)
        with _passing(self.model):
            out = self.model(input_ids=rows, use_cache=True, logits_to_keep=1, **{self._keyword: self.cache})
        return out.logits[0, -1]  # type: ignore[no-any-return]


def forked(cache: Any) -> Any:
    """A second cache with the same tokens, a `RetrievalCache` or transformers' own; neither sees what the
    other takes from now on."""
    if isinstance(cache, RetrievalCache):
        return cache.fork()
    other = copy.copy(cache)
    # A full-attention layer never writes into its tensors, which are large; others may, as linear ones do.
    other.layers = [
        copy.copy(layer) if type(layer) is DynamicLayer else copy_layer(layer) for layer in cache.layers
    ]
    return other
