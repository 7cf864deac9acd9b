"""Texts that a model has read once, with its own full attention, to be attended in any number of ways.

Reading is what takes long. A `Prefilled` keeps what any cache with an index is made of: keys, values and
every fourth query of each layer. So caches of all configurations come from one reading. It is never changed:
`extend` makes another that shares what was read, so that one reading serves several lengths and several
continuations as well.

Called by the evaluations beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sakuin.backends.hooks import AttentionCall
from sakuin.backends.open import backend_of
from sakuin.cache.sequence import QUERY_STEP
from sakuin.cache.whole import WholeCache
from sakuin.config import RetrievalConfig
from sakuin.context.generate import forced, prefill
from sakuin.errors import SakuinError
from sakuin.evaluate.configurations import Configuration, calibrated
from sakuin.evaluate.configurations import configuration as named
from sakuin.evaluate.decode import decode_answer
from sakuin.index.kind import differences, kind_of

CHUNK = 512
"""Positions of one pass of reading: layers with a window attend what a chunk has of masked-out keys too, so
that longer ones take a fifth longer with Gemma 3."""
STEP = 16
"""Positions of one pass of a teacher-forced continuation. Up to `exact_above` of them go through an index
each by itself, as in decoding, and the model's weights are read once for all. Full attention takes no more:
sliding windows are llama.cpp's own, whose rounding differs with the length of a pass."""
_TRIED = 32


class Prefilled:
    """A model after reading `ids`. Made by `read` and `extend`.

    model : as `sakuin.load` gives it. ids : the tokens read.
    """

    def __init__(self, model: Any, ids: tuple[int, ...], cache: Any, queries: dict[int, Tensor]) -> None:
        self.model, self.ids = model, ids
        self.backend = backend_of(model)
        self._cache, self._queries = cache, queries
        # Caches with an index, and the settings that they were built with.
        self._built: tuple[Any, RetrievalConfig] | None = None
        self._exact: tuple[Any, RetrievalConfig] | None = None

    @classmethod
    def read(cls, model: Any, ids: Sequence[int], progress: Callable[[int], None] | None = None) -> Prefilled:
        """Read tokens; `progress` is given how many are done."""
        return cls(model, (), backend_of(model).new_cache(None), {}).extend(ids, progress)

    def extend(self, ids: Sequence[int], progress: Callable[[int], None] | None = None) -> Prefilled:
        """This and then `ids`; this one stays as it is."""
        cache, before = self.full_cache(), len(self.ids)
        queries = {number: [seen] for number, seen in self._queries.items()}

        def keep(call: AttentionCall) -> None:
            # The sequence's length here is the layer's own, which this pass has grown already.
            first = -position % QUERY_STEP
            queries.setdefault(call.layer, []).append(call.q[0, :, first::QUERY_STEP].clone())

        with self.backend.attention_hook(keep):
            for at in range(0, len(ids), CHUNK):
                position = before + at
                self.backend.forward(cache, ids[at : at + CHUNK])
                if progress:
                    progress(position + len(ids[at : at + CHUNK]))
        kept = {number: torch.cat(parts, 1) for number, parts in queries.items()}
        return Prefilled(self.model, (*self.ids, *ids), cache, kept)

    def full_cache(self) -> Any:
        """A cache of full attention with these tokens, free to be used."""
        return self.backend.fork(self._cache)

    def retrieval_cache(self, config: RetrievalConfig) -> Any:
        """A cache with an index and these tokens, all outside the recent window sealed, free to be used.

        The one that was built last is kept, and forked where only settings that each step reads differ.
        """
        built = self._built
        if built is None or differences(built[1], config):
            self._built = None  # before the next takes memory
            built = self._built = self._new(config), config
        return self.backend.fork(built[0], config)

    def exact_cache(self, config: RetrievalConfig) -> Any:
        """As `retrieval_cache`, for a configuration that stays the same while others change beside it."""
        if self._exact is None or self._exact[1] != config:
            self._exact = self._new(config), config
        return self.backend.fork(self._exact[0])

    def _new(self, config: RetrievalConfig) -> Any:
        cache = self.backend.filled(config, self._cache, self._queries)
        self.retrieval(cache).seal()
        return cache

    def retrieval(self, cache: Any) -> WholeCache:
        """The layers of a cache that have an index; a `ValueError` where it is one of full attention."""
        found = self.backend.retrieval(cache)
        if found is None:
            raise ValueError("a cache of full attention has no index")
        return found

    def cache(
        self, configuration: Configuration, tried: Sequence[int] = (), share: float | None = None
    ) -> Any:
        """A cache of a configuration, free to be used.

        tried : tokens that follow, on which a configuration at a share is turned to it (the first 32 are
            taken); may be left out where the configuration has no share.
        share : the share of the configuration that it is to be like, where that is known.

        A configuration at a share that its kind cannot have is a `SakuinError`; one that is to be like
        another touches as little as it can then.
        """
        if configuration.config is None:
            return self.full_cache()
        if configuration.share is None and configuration.like is None:
            return self.retrieval_cache(configuration.config)
        if not tried:
            raise ValueError(f"{configuration.name!r} is at a share, which takes tokens to be tried on")
        nearest = configuration.like is not None
        if configuration.like is not None:
            if share is None:
                other = self.cache(named(configuration.like))
                self.continued(other, tried[:_TRIED])
                share = touched_share(self.retrieval(other))
            configuration = configuration.at(share)
        assert configuration.config is not None
        n = max(1, len(self.ids) - configuration.config.sink - configuration.config.recent)

        def measure(config: RetrievalConfig) -> float:
            cache = self.retrieval_cache(config)
            self.continued(cache, tried[:_TRIED])
            return touched_share(self.retrieval(cache))

        return self.retrieval_cache(calibrated(configuration, n, measure, nearest=nearest))

    def continued(self, cache: Any, ids: Sequence[int], each: Callable[[Tensor], None] | None = None) -> None:
        """Feed `ids` to a cache of these tokens, in passes through its indexes; `each` is given the logits of
        each pass, fp32 `(t, vocabulary)`."""
        retrieval = self.backend.retrieval(cache)
        step = STEP if retrieval is None else min(STEP, retrieval.config.exact_above)
        for _, logits in forced(self.backend, cache, ids, step):
            if each:
                each(logits.float())

    def log_probabilities(self, cache: Any, ids: Sequence[int]) -> Tensor:
        """Of the token after each of `ids`, fp32 `(len(ids), vocabulary)` on the CPU; fed as `continued`
        does."""
        rows: list[Tensor] = []
        self.continued(cache, ids, lambda logits: rows.append(logits.log_softmax(-1).cpu()))
        return torch.cat(rows)

    def answer(
        self, cache: Any, ids: Sequence[int], tokenizer: Any, most: int, *, one_line: bool = False
    ) -> str:
        """What the model says after `ids`, taking the likeliest token each time, until it ends or `most`
        tokens are said; `one_line`: or until its line ends. The cache is one of these tokens."""
        backend = backend_of(self.model, tokenizer)
        prefill(backend, cache, ids[:-1])

        def line_ends(text: str) -> bool:
            return one_line and "\n" in text.lstrip()

        text = decode_answer(backend, cache, ids[-1], most, line_ends).text.strip()
        return text.partition("\n")[0] if one_line else text


def check_offloaded(retrieval: WholeCache | None, length: int) -> None:
    """`SakuinError` where none of `length` tokens is left to an index: then everything is attended exactly,
    whatever the configuration."""
    if retrieval is not None and not next(retrieval.rows()).index.n_tokens:
        raise SakuinError(
            f"a length of {length:,} tokens leaves nothing to an index beside {retrieval.config.sink} "
            f"sink tokens and a recent window of {retrieval.config.recent}; take a larger one."
        )


def touched_share(retrieval: WholeCache) -> float:
    """What the steps of a cache touched, as a share of the offloaded keys and values at 2 bytes a number.

    Peers are counted in their favour. All that they read counts as if a number took 2 bytes, as it would in
    use, also where keys and values are kept in fp32 to be measured (`sketch` is counted as it is stored). And
    `topk`, which is there as the best that any search for single tokens could reach, counts as if its search
    were free: what it attends, and no more.
    """
    stats = retrieval.stats()
    kind = kind_of(retrieval.config.index)
    if kind.free_search:
        return float(stats["exact"])
    share = float(stats["touched_share"])
    if not kind.peer:
        return share
    index = next(retrieval.rows()).index
    return share * index.offloaded_bytes(1) / max(index.kv_bytes, 1)
