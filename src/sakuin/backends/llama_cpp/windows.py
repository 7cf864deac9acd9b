"""The state that llama.cpp keeps of a sequence: the window of sliding layers, and that of recurrent layers.

llama.cpp has a number of places for sequences (its "sequence ids"). A cache has one while it is used; else
its state is kept as bytes, which forks share. A model whose layers all attend to everything has no such
state, and its store is emptied before each pass. Called by `sakuin.backends.llama_cpp.backend`.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence

from sakuin.backends.llama_cpp.cache import LlamaCache
from sakuin.backends.llama_cpp.loaded import Loaded
from sakuin.cache.undo import GoBack
from sakuin.errors import SakuinError

_PARTIAL = 1
"""llama.cpp's flag for what is not the full layers' keys and values."""
_ALL = -1


class Windows:
    """Who has which place in the store of a loaded model."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.has_state = bool(loaded.sliding or loaded.recurrent)
        self._owners: list[weakref.ref[LlamaCache] | None] = []
        self._used: list[int] = []  # places, the longest unused first

    def prepare(self, caches: Sequence[LlamaCache]) -> list[int]:
        """Make the store ready for a pass of these caches; their places, in order."""
        loaded = self.loaded
        if not self.has_state:
            loaded.library.llama_memory_clear(loaded.memory, False)
            return list(range(len(caches)))
        if len(self._owners) != loaded.n_sequences:
            self._owners = [None] * loaded.n_sequences
            self._used = list(range(loaded.n_sequences))
        for cache in caches:
            self._check(cache)
            if cache.slot is None:
                self._give_place(cache, caches)
            assert cache.slot is not None
            self._used = [*(slot for slot in self._used if slot != cache.slot), cache.slot]
            self._forget_old(cache)
            cache.window = None  # what follows makes the kept bytes old
        return [cache.slot for cache in caches if cache.slot is not None]

    def save(self, cache: LlamaCache) -> bytes:
        """The cache's state now, which it shares with forks."""
        if not self.has_state or not cache.n_tokens:
            return b""
        self._check(cache)
        if cache.window is None:
            assert cache.slot is not None
            self._forget_old(cache)
            library, context = self.loaded.library, self.loaded.context
            size = library.llama_state_seq_get_size_ext(context, cache.slot, _PARTIAL)
            memory = ctypes.create_string_buffer(size)
            if library.llama_state_seq_get_data_ext(context, memory, size, cache.slot, _PARTIAL) != size:
                raise SakuinError(f"llama.cpp cannot save the state of a sequence: {library.said()}.")
            cache.window = memory.raw
        return cache.window

    def restorer(self, cache: LlamaCache, before: bytes | None) -> GoBack:
        """A function that puts back the state of a cache after a pass that failed; made right before
        llama.cpp runs it. before : the state as it is, where it was saved."""
        n = cache.n_tokens

        def back() -> None:
            if not self.has_state:
                return
            if before is not None:  # wherever the state is now: a later pass may have taken the place
                cache.window = before
                self._release(cache)
            elif cache.slot is None:
                return
            elif self.loaded.recurrent:
                cache.lost = True
            else:
                # The cells that the pass wrote were free: older ones had been given up before it.
                self.loaded.library.llama_memory_seq_rm(self.loaded.memory, cache.slot, n, _ALL)

        return back

    @staticmethod
    def _check(cache: LlamaCache) -> None:
        if cache.lost:
            raise SakuinError(
                "the state of this context's recurrent layers was lost when a step was stopped: open the "
                "context again, or fork it before such a step."
            )

    def release_all(self) -> None:
        """Save the state of all sequences: before the context is closed."""
        for owner in self._owners:
            cache = owner() if owner is not None else None
            if cache is not None:
                if not cache.lost:
                    self.save(cache)
                self._release(cache)
        self._owners = []

    def _give_place(self, cache: LlamaCache, busy: Sequence[LlamaCache]) -> None:
        library, memory = self.loaded.library, self.loaded.memory
        slot = next(slot for slot in self._used if not any(other.slot == slot for other in busy))
        owner = self._owners[slot]
        other = owner() if owner is not None else None
        if other is not None:
            if not other.lost:
                self.save(other)
            self._release(other)
        library.llama_memory_seq_rm(memory, slot, _ALL, _ALL)
        if cache.window:
            held = ctypes.create_string_buffer(cache.window, len(cache.window))
            if not library.llama_state_seq_set_data_ext(
                self.loaded.context, held, len(cache.window), slot, _PARTIAL
            ):
                raise SakuinError(
                    f"this llama.cpp ({self.loaded.library.found}) cannot take the stored state of the "
                    f"model's windows ({library.said()}); open the context with the version that wrote it, "
                    "or read the document again."
                )
        self._owners[slot], cache.slot = weakref.ref(cache), slot

    def _release(self, cache: LlamaCache) -> None:
        if cache.slot is not None:
            self._owners[cache.slot] = None
            cache.slot = None

    def _forget_old(self, cache: LlamaCache) -> None:
        """Give up the cells that no later token sees."""
        kept = max(self.loaded.sliding, 1 if self.loaded.recurrent else 0)
        library = self.loaded.library
        if cache.n_tokens > kept:
            library.llama_memory_seq_rm(self.loaded.memory, cache.slot, 0, cache.n_tokens - kept)
