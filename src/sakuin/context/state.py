"""What a context is at a moment, and how it comes from one moment to the next.

A question begins from a fork of the cache; what grows takes the place of what was there, all at once. Who
asks and who grows is the business of `sakuin.context.context`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

from sakuin.cache.drawn import Drawn
from sakuin.config import RetrievalConfig
from sakuin.context import checks
from sakuin.context.generate import Passes
from sakuin.context.growth import Growth, Progress, Read, let_fail, read_on, started
from sakuin.context.support import Draws
from sakuin.copies import CopiedByFork, twin
from sakuin.documents import Document
from sakuin.machine.forks import lock, recursive_lock
from sakuin.prompts.holding import Change
from sakuin.prompts.reading import Reading
from sakuin.prompts.template import Prompt
from sakuin.prompts.turns import turns
from sakuin.snapshot.part import Part
from sakuin.snapshot.part_files import Origin
from sakuin.snapshot.parts import Keeper


class State(CopiedByFork):
    """What was read, the cache that holds it, and what reading took."""

    _instead = "keep it by context.save(path), and take it up by Context.load(path, model, tokenizer)"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        config: RetrievalConfig | Literal["full"] | None = None,
        system: str | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.config = checks.settings_meant(config)
        self.backend = checks.ready_backend(model, tokenizer)
        self.cache: Any = self.backend.new_cache(self.config)
        self.prefill_s = 0.0
        self.reused_tokens = 0
        self._prompt = Prompt.of(self.backend.vocabulary, checks.system_meant(self.backend, system))
        self._reading = Reading(lead=self._prompt.head, system=self._prompt.system)
        self._windows: list[Part] = []
        self._index_s = 0.0
        self._before_s = 0.0, 0.0  # prefill and index, of who wrote the snapshot
        self._origin: Origin | None = None
        self._draws = Draws()
        self._lock = lock()  # held for a moment, to take or set what goes together
        self._growing = recursive_lock()  # held while the context grows

    def fork(self) -> Self:
        """A second context that has read the same, shares its memory, and goes its own way."""
        with self._lock:
            other = twin(self)
            other.cache = self.backend.fork(self.cache)
        other._lock, other._growing = lock(), recursive_lock()
        return other

    @property
    def prompt(self) -> Prompt:
        """How questions are put to the model."""
        return self._prompt

    @property
    def reading(self) -> Reading:
        """What was read, as it is now."""
        return self._reading

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def documents(self) -> list[Document]:
        """The documents in it, in order."""
        return list(self._reading.documents)

    @property
    def system(self) -> str:
        """What the model was told before everything else, or ""."""
        return self._reading.system

    @property
    def turns(self) -> list[tuple[str, str]]:
        """Messages and answers that `chat` added, the oldest first."""
        return turns(self._prompt, self._reading)

    @property
    def tokens(self) -> int:
        """Tokens that have been prefilled, the template's start included."""
        return len(self._reading.ids)

    @property
    def index_s(self) -> float:
        """Seconds spent sealing the index: whole segments beside the prefill, the rest after it."""
        return self._index_s

    def kv_bytes(self) -> dict[str, int]:
        """Bytes of keys, values and index: `device` and `host`."""
        return self.backend.nbytes(self.cache)

    def begun(self) -> tuple[Reading, Any, Callable[[], Passes[Drawn | None]]]:
        """What a question begins with: what was read, a fork of its cache, and what any question draws.
        For whoever runs the passes himself, as a server does."""
        with self._lock:
            reading, cache = self._reading, self.backend.fork(self.cache)
        let_fail(self.backend, cache)
        return reading, cache, self._draws.of(self.backend, self._prompt, reading, cache)

    def held(self) -> tuple[Reading, Any, list[Part]]:
        """What was read, the cache that holds it, to be forked only, and the windows kept on the way."""
        with self._lock:
            return self._reading, self.cache, list(self._windows)

    # -- inside ----------------------------------------------------------------------------------------------

    def _read(self, reading: Reading, changes: Sequence[Change], progress: Progress | None) -> Growth:
        read = self._grow(checks.grown(reading, self._prompt, self.backend), progress)
        return Growth(tuple(changes), len(read.reading.ids) - read.first)

    def _grow(self, reading: Reading, progress: Progress | None, keeper: Keeper | None = None) -> Read:
        """Prefill the tokens that `reading` has more or other, and hold it."""
        with self._lock:
            held, cache, windows = self._reading, self.cache, list(self._windows)
        begin = started(self.backend, self.config, cache, windows, held, reading)
        read = read_on(self.backend, self.config, begin, reading, progress, keeper)
        self._take(read.reading, read.cache, read.windows)
        self.reused_tokens = read.reused or min(self.reused_tokens, read.first)
        self.prefill_s += read.seconds
        self._index_s += read.index_s
        return read

    def _fork_to_fail(self) -> Any:
        with self._lock:
            cache = self.backend.fork(self.cache)
        let_fail(self.backend, cache)
        return cache

    def _take(self, reading: Reading, cache: Any, windows: list[Part]) -> None:
        """Hold what was read: the last thing that growing does, all of it or nothing."""
        let_fail(self.backend, cache, False)
        with self._lock:
            # In one line, which no interrupt parts: tokens, cache and windows belong together.
            self._reading, self.cache, self._windows = reading, cache, windows

    def _hold(self, found: tuple[list[Document], list[Change]], progress: Progress | None) -> Growth:
        documents, changes = found
        if all(change.what == "same" for change in changes):
            return Growth(tuple(changes))
        return self._read(self._reading.holding(documents, self._prompt), changes, progress)
