"""sakuin with llama.cpp's weights, as the benchmark drives it."""

from __future__ import annotations

from statistics import fmean
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sakuin
from benchmarks.speed.end_to_end_parts.process import peak_bytes
from benchmarks.speed.end_to_end_parts.rate import flops
from sakuin.backends.hooks import AttentionCall
from sakuin.backends.llama_cpp.library import library
from sakuin.cache.sequence import QUERY_STEP
from sakuin.context.generate import prefill
from sakuin.evaluate import Layer, Trace, longer, technical_english

QUESTION = 16
"""Tokens of a question."""
TOGETHER = 8


class Ours:
    """The runner. file : of the model. ids : of the tokens, as numpy keeps them; None where none are read."""

    def __init__(self, file: str, ids: str | None = None, threads: int | None = None) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.file, self.ids = file, [] if ids is None else np.load(ids).tolist()
        self.before = peak_bytes()
        self.cache: Any = None

    # -- loading ---------------------------------------------------------------------------------------------

    def load(self) -> dict[str, Any]:
        """Seconds of `sakuin.load`, the library's included."""
        start = perf_counter()
        self.backend, self.tokenizer = sakuin.load(self.file, backend="llama.cpp")
        seconds = perf_counter() - start
        self.cache = self.backend.new_cache(sakuin.RetrievalConfig())
        options = self.backend.loaded.options
        return {
            "load_s": seconds,
            "ggml": library().version,
            "dtype": str(options.dtype).removeprefix("torch."),
            "repack": options.repack,
            "window": self.backend.shape.window,
            "sliding": self.backend.shape.sliding_layers,
            "file_bytes": self.backend.header.nbytes,
        }

    def write_ids(self, file: str, n: int) -> None:
        """Write the first n tokens of technical English, again and again."""
        text = technical_english()
        ids = np.array(self.backend.vocabulary.encode(text).ids, np.int64)
        np.save(file, np.resize(ids, n))

    # -- reading ---------------------------------------------------------------------------------------------

    def fresh(self, n: int) -> dict[str, float]:
        """As `prefill` of a text by itself, which is forgotten."""
        kept, self.cache = self.cache, self.backend.new_cache(sakuin.RetrievalConfig())
        found = self.prefill(n)
        self.cache = kept
        return found

    def prefill(self, to: int) -> dict[str, float]:
        """Read up to so many tokens: seconds, with those of attention and of products in sakuin, and of
        sealing what is not yet."""
        before, start = self.backend.loaded.session.seconds, perf_counter()
        prefill(self.backend, self.cache, self.ids[self.cache.n_tokens : to])
        read = perf_counter()
        self.cache.whole.seal()
        attention, products = np.subtract(self.backend.loaded.session.seconds, before).tolist()
        seal = perf_counter() - read
        return {"s": read - start + seal, "seal_s": seal, "attention_s": attention, "products_s": products}

    def flops(self, tokens: int) -> dict[str, float]:
        """Floating-point operations of reading so many tokens."""
        return flops(self.backend.header, self.backend.shape, tokens)

    def question(self) -> float:
        """Seconds until the first token of an answer, the text being read."""
        fork = self.backend.fork(self.cache)
        at, start = fork.n_tokens, perf_counter()
        int(self.backend.forward(fork, self.ids[at : at + QUESTION]).argmax())
        return perf_counter() - start

    # -- decoding --------------------------------------------------------------------------------------------

    def decode(self, steps: int, warm: int) -> dict[str, Any]:
        """Milliseconds of each step, and the share of the time that attention took in sakuin."""
        fork, times = self.backend.fork(self.cache), []
        attention = 0.0
        for i in range(warm + steps):
            token, before = self.ids[fork.n_tokens], self.backend.loaded.session.seconds[0]
            start = perf_counter()
            self.backend.forward(fork, [token])
            if i >= warm:
                times.append(perf_counter() - start)
                attention += self.backend.loaded.session.seconds[0] - before
        stats = fork.whole.stats()
        return {
            "ms": [1e3 * each for each in times],
            "attention_share": attention / sum(times),
            "touched_share": stats["touched_share"],
        }

    def together(self, steps: int) -> dict[str, float]:
        """Tokens a second of eight forks, one by one and in one pass."""
        forks = [self.backend.fork(self.cache) for _ in range(TOGETHER)]

        def one_by_one(token: int) -> None:
            for fork in forks:
                self.backend.forward(fork, [token])

        def in_one(token: int) -> None:
            self.backend.forward_together(forks, [[token]] * TOGETHER)

        # One by one first: a pass of several leaves the backend with a larger context.
        alone = self._rounds(one_by_one, steps)
        return {
            "sequences": TOGETHER,
            "alone_per_s": TOGETHER / alone,
            "together_per_s": TOGETHER / self._rounds(in_one, steps),
        }

    def _rounds(self, run: Any, steps: int) -> float:
        times = []
        for token in self.ids[: steps + 2]:
            start = perf_counter()
            run(token)
            times.append(perf_counter() - start)
        return float(np.median(times[2:]))

    # -- longer than what is read ----------------------------------------------------------------------------

    def fill(self, captured: int, to: int) -> dict[str, float]:
        """Hold `to` tokens: the keys, values and queries of a real pass over `captured`, made longer.

        Decoding goes on at position `captured`: a step's queries and keys then are as in the real pass, and
        the same work as at the end of a real text.
        """
        calls, queries, full = self._captured(captured)
        start = perf_counter()
        cache = self.backend.new_cache(sakuin.RetrievalConfig())
        for number, inner in cache.whole.layers.items():
            found = full.full.pop(number)
            layer = _longer(number, found.keys, found.values, queries.pop(number), calls[number], to)
            repeated = layer.queries.repeat(1, -(-to // captured), 1)[:, : -(-to // QUERY_STEP)]
            dtype = self.backend.dtype
            inner.fill(layer.keys.to(dtype), layer.values.to(dtype), repeated.to(dtype))
        cache.whole.seal()
        cache.n_tokens, cache.window = captured, full.window
        self.cache = cache
        lengths = [inner.length for inner in cache.whole.layers.values()]
        return {"s": perf_counter() - start, "held": fmean(lengths)}

    def _captured(self, n: int) -> tuple[dict[int, float], dict[int, Tensor], Any]:
        """Of each layer its scaling and every `QUERY_STEP`th query, and the cache of full attention."""
        queries: dict[int, list[Tensor]] = {}
        scaling: dict[int, float] = {}
        read = 0

        def keep(call: AttentionCall) -> None:
            queries.setdefault(call.layer, []).append(call.q[0, :, -read % QUERY_STEP :: QUERY_STEP].clone())
            scaling[call.layer] = call.softmax.scaling

        cache = self.backend.new_cache(None)
        chunk = self.backend.chunk(cache)
        with self.backend.attention_hook(keep):
            for read in range(0, n, chunk):
                self.backend.forward(cache, self.ids[read : min(read + chunk, n)])
        return scaling, {number: torch.cat(found, 1) for number, found in queries.items()}, cache

    def memory(self) -> dict[str, int]:
        """Bytes: the process's peak, what it had before the load, and what the cache holds."""
        held = self.backend.nbytes(self.cache)
        return {"peak": peak_bytes(), "before": self.before, "cache": sum(held.values())}


def _longer(number: int, keys: Tensor, values: Tensor, queries: Tensor, scaling: float, to: int) -> Layer:
    """A layer with `to` tokens: keys and values `(n_kv_heads, n, head_dim)`, and the queries of every
    `QUERY_STEP`th position, which stay as they are."""
    nothing = torch.stack([keys[:, :0], values[:, :0]]).bfloat16()
    layer = Layer(
        keys=keys.bfloat16(),
        values=values.bfloat16(),
        queries=queries,
        query_positions=torch.arange(0, keys.shape[1], QUERY_STEP),
        sink=nothing,
        recent=nothing,
        asked=queries[:, :0],
        retrieval=0,
        scaling=scaling,
    )
    return longer(Trace({number: layer}, {}), to).layers[number]
