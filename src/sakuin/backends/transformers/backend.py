"""The backend of Hugging Face transformers: passes of a model through its caches.

The caches are transformers' own (`DynamicCache`, for full attention) or `RetrievalCache`. Called through
`sakuin.backends.base.Backend`.
"""

from __future__ import annotations

import copy
import inspect
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.utils import logging

from sakuin.backends.base import Backend
from sakuin.backends.fingerprint import Fingerprint
from sakuin.backends.hooks import AttentionHook
from sakuin.backends.shape import ModelShape
from sakuin.backends.transformers import together
from sakuin.backends.transformers.cache import RetrievalCache
from sakuin.backends.transformers.fingerprint import fingerprint, fingerprint_in_memory
from sakuin.backends.transformers.hooks import attention_hook
from sakuin.backends.transformers.load import Description, describe, load
from sakuin.backends.transformers.other_layers import (
    copy_layer,
    has_state,
    held_tensors,
    layer_tensors,
    restore_layer,
)
from sakuin.backends.transformers.shape import shape_of
from sakuin.backends.transformers.vocabulary import TransformersVocabulary
from sakuin.cache.whole import WholeCache
from sakuin.config import RetrievalConfig
from sakuin.errors import SakuinError
from sakuin.machine.forks import lock

__all__ = ["Description", "TransformersBackend", "TransformersVocabulary", "describe", "load", "quiet"]

CHUNK = 2048
"""Tokens of one forward pass in prefill."""
WINDOWED_CHUNK = 1024
"""The same on a CPU for models of which some layers have a window: these compute a chunk's scores with all of
the chunk and throw away what the window leaves out (Gemma 3 270M: 14 % less time for 8,192 tokens)."""


def quiet() -> None:
    """Let transformers keep its progress bars and remarks to itself."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


_turns: weakref.WeakKeyDictionary[Any, threading.Lock] = weakref.WeakKeyDictionary()
_making = lock()


def _turn(model: Any) -> threading.Lock:
    """The lock of a model. Threads take turns, pass by pass, rather than fight over the cores; and some
    rotary embeddings keep numbers of the running pass."""
    with _making:
        return _turns.setdefault(model, lock())


def _stated_ends(model: Any) -> list[int | None]:
    """The tokens that end an answer as the model states them now."""
    stated = getattr(model.generation_config, "eos_token_id", None)
    return list(stated) if isinstance(stated, list | tuple) else [stated]


def _tokens_of(cache: Any) -> int:
    """Tokens that a cache holds; 0 where its layers have states alone, which count none."""
    return 0 if all(cache.is_linear) else cache.get_seq_length()


def _check_read(family: str, cache: Any, before: int, n: int) -> None:
    """Refuse a model that took a cache and did not use it: it would answer without the document."""
    used = cache.has_previous_state() if all(cache.is_linear) else cache.get_seq_length() == before + n
    if not used:
        raise SakuinError(
            f"the model ({family}) was given a cache and did not put the pass's {n:,} tokens into it, so it "
            "cannot go on from what it has read; take a model that uses transformers' caches."
        )


class TransformersBackend(Backend):
    """A model of transformers and its tokenizer."""

    name = "transformers"

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.dtype, self.device = model.dtype, model.device
        self.source = str(getattr(model, "sakuin_name", ""))
        self.vocabulary = TransformersVocabulary(tokenizer, partial(_stated_ends, model))

    def check(self) -> None:
        implementation = getattr(self.model.config, "_attn_implementation", None)
        if implementation != "sakuin":
            raise SakuinError(
                f"the model was loaded with attn_implementation={implementation!r}; load it with "
                "sakuin.load, or with attn_implementation='sakuin'."
            )

    @cached_property
    def shape(self) -> ModelShape:
        return shape_of(self.model.config)

    def fingerprint(self) -> Fingerprint:
        return fingerprint(self.model, self.tokenizer)

    def former_fingerprint(self) -> Fingerprint:
        return fingerprint_in_memory(self.model, self.tokenizer)

    def new_cache(self, config: RetrievalConfig | None) -> Any:
        if config is None:
            return DynamicCache(config=self.model.config)
        return RetrievalCache(self.model.config, config)

    @torch.no_grad()
    def forward(self, cache: Any, ids: Sequence[int], *, every: bool = False) -> Tensor:
        rows = torch.tensor([list(ids)], device=self.model.device)
        given = {self._keyword: cache, "use_cache": True, "logits_to_keep": 0 if every else 1}
        whole = cache.one_pass() if isinstance(cache, RetrievalCache) else nullcontext()
        with _turn(self.model), whole:
            before = _tokens_of(cache)
            logits: Tensor = self.model(input_ids=rows, **given).logits[0]
            _check_read(self.shape.family, cache, before, len(ids))
        return logits if every else logits[-1]

    @torch.no_grad()
    def forward_together(
        self, caches: Sequence[Any], ids: Sequence[Sequence[int]], *, every: bool = False
    ) -> list[Tensor]:
        if len({id(cache) for cache in caches}) < len(caches):
            raise ValueError("a cache is there twice: fork it, or give it one run of tokens")
        found: dict[int, Tensor] = {}
        for group in self.groups(caches, ids):
            if len(group) == 1:
                (i,) = group
                found[i] = self.forward(caches[i], ids[i], every=every)
                continue
            with _turn(self.model):
                own = [caches[i] for i in group], [ids[i][0] for i in group]
                logits = together.next_logits(self.model, self._keyword, *own)
            found |= {i: row[None] if every else row for i, row in zip(group, logits, strict=True)}
        return [found[i] for i in range(len(caches))]

    @torch.no_grad()
    def groups(self, caches: Sequence[Any], ids: Sequence[Sequence[int]]) -> list[list[int]]:
        steps = [
            i
            for i, (cache, each) in enumerate(zip(caches, ids, strict=True))
            if len(each) == 1 and together.fits(self.model, cache) and cache.get_seq_length()
        ]
        if len(steps) > 1:
            own = [caches[i] for i in steps], [ids[i][0] for i in steps]
            with _turn(self.model):
                if not together.goes_by_positions(self.model, self._keyword, *own):
                    steps = []
        return [steps] * bool(steps) + [[i] for i in range(len(caches)) if i not in steps]

    @cached_property
    def _keyword(self) -> str:
        """What the model's forward calls its cache: `past_key_values` in older code, which a model may
        bring."""
        return "cache" if "cache" in inspect.signature(self.model.forward).parameters else "past_key_values"

    def chunk(self, cache: Any) -> int:
        windowed = any(getattr(layer, "is_sliding", False) for layer in cache.layers)
        return WINDOWED_CHUNK if windowed and self.model.device.type == "cpu" else CHUNK

    def filled(self, config: RetrievalConfig, source: Any, queries: Mapping[int, Tensor]) -> Any:
        cache = RetrievalCache(self.model.config, config)
        cache.fill(source, queries)
        return cache

    def attention_hook(self, hook: AttentionHook) -> AbstractContextManager[None]:
        return attention_hook(self.model, hook)

    def fork(self, cache: Any, config: RetrievalConfig | None = None) -> Any:
        if isinstance(cache, RetrievalCache):
            return cache.fork(config)
        other = copy.copy(cache)
        # A full-attention layer never writes into its tensors, which are large; linear ones do.
        other.layers = [
            copy.copy(layer) if type(layer) is DynamicLayer else copy_layer(layer) for layer in cache.layers
        ]
        return other

    def retrieval(self, cache: Any) -> WholeCache | None:
        return cache.whole if isinstance(cache, RetrievalCache) else None

    def nbytes(self, cache: Any) -> dict[str, int]:
        if isinstance(cache, RetrievalCache):
            return cache.kv_bytes()
        held = sum(x.nbytes for layer in cache.layers for x in held_tensors(layer))
        return {"device": held, "host": 0}

    def window_state(self, cache: Any) -> dict[str, Tensor]:
        return {
            f"{number}.{name}": x
            for number, layer in enumerate(cache.layers)
            for name, x in layer_tensors(layer).items()
        }

    def restore_windows(self, cache: Any, tensors: Mapping[str, Tensor], n_tokens: int) -> None:
        if others := [name for name in tensors if not name.partition(".")[0].isdigit()]:
            raise SakuinError(
                f"the state of the context's windows or recurrent layers ({others[0]}) is another backend's, "
                "which transformers cannot take; load the model with the backend that read the context."
            )
        for number, layer in enumerate(cache.layers):
            if has_state(layer):
                head = f"{number}."
                own = {name.removeprefix(head): x for name, x in tensors.items() if name.startswith(head)}
                restore_layer(layer, own, n_tokens, self.device)
