"""The same model in transformers, with its own full attention, as the benchmark drives it."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

import sakuin

CHUNK = 2048
QUESTION = 16


class Hub:
    """The runner. name : of the model. offloaded : whether layers' keys and values are kept offloaded
    (`OffloadedCache`), else in a `DynamicCache`."""

    def __init__(self, name: str, ids: str, offloaded: bool, threads: int | None = None) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.name, self.offloaded = name, offloaded
        self.ids = torch.from_numpy(np.load(ids))[None]

    def load(self) -> dict[str, Any]:
        """Seconds of loading."""
        start = perf_counter()
        self.model, _ = sakuin.load(self.name, backend="transformers")
        self.model.set_attn_implementation("sdpa")
        self.cache = DynamicCache(config=self.model.config, offloading=self.offloaded)
        self.past = 0
        dtype = str(self.model.dtype).removeprefix("torch.")
        return {"load_s": perf_counter() - start, "dtype": dtype}

    @torch.inference_mode()
    def _feed(self, to: int) -> None:
        ids = self.ids[:, self.past : to]
        self.model(ids, past_key_values=self.cache, logits_to_keep=1)
        self.past = to

    def prefill(self, to: int) -> dict[str, float]:
        """Read up to so many tokens: seconds."""
        start = perf_counter()
        while self.past < to:
            self._feed(min(self.past + CHUNK, to))
        return {"s": perf_counter() - start}

    def question(self) -> float:
        """Seconds until the first token of an answer, the text being read; the question stays."""
        start = perf_counter()
        self._feed(self.past + QUESTION)
        return perf_counter() - start

    def decode(self, steps: int, warm: int) -> dict[str, Any]:
        """Milliseconds of each step."""
        times = []
        for _ in range(warm + steps):
            start = perf_counter()
            self._feed(self.past + 1)
            times.append(1e3 * (perf_counter() - start))
        return {"ms": times[warm:]}
