"""A context: documents prefilled once, asked many times.

`Context` holds the cache of a prefilled text and what the text is (`sakuin.prompts.reading`). `ask` works on
a fork of the cache, so that a question leaves nothing behind; `append` and `chat` grow a fork and take it in
the place of the old one when all went well. How prompts are put together is in `sakuin.prompts.template`, how
an answer comes about in `sakuin.context.answer`, what a context is on disk in `sakuin.snapshot`. Called by
users and by the command line.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from sakuin import arguments, documents
from sakuin.cache.drawn import Drawn
from sakuin.config import RetrievalConfig
from sakuin.context import checks
from sakuin.context.answer import Answer, Asking, answer
from sakuin.context.checks import check_fits, check_length
from sakuin.context.generate import Sampling, prefill_steps
from sakuin.context.support import Draws
from sakuin.copies import CopiedByFork, twin
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.machine.forks import lock, recursive_lock
from sakuin.prompts.reading import Reading
from sakuin.prompts.template import Prompt
from sakuin.prompts.vocabulary import Encoded
from sakuin.snapshot import parts, store
from sakuin.snapshot.part import Part
from sakuin.snapshot.part_files import Origin
from sakuin.snapshot.parts import Keeper

__all__ = ["Answer", "Context", "Keeper", "Progress", "check_length"]

Progress = Callable[[int, int, str], None]
"""Given tokens done, tokens in all, and the phase: "prefill" or "index"."""


class Context(CopiedByFork):
    """Documents that a model has read. Made by `from_text`, `from_files`, `from_documents`, `from_messages`
    or `load`.

    May be asked from several threads at once; each gets what it would get alone.

    prefill_s : seconds that reading took in this process.
    reused_tokens : tokens that were not prefilled by this context but found: those of the snapshot that it
        was loaded from, or of one with the same beginning.
    """

    _instead = "keep it by context.save(path), and take it up by Context.load(path, model, tokenizer)"

    def __init__(
        self, model: Any, tokenizer: Any, config: RetrievalConfig | Literal["full"] | None = None
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.config = checks.settings_meant(config)
        self.backend = checks.ready_backend(model, tokenizer)
        self.cache: Any = self.backend.new_cache(self.config)
        self.prefill_s = 0.0
        self.reused_tokens = 0
        self._prompt = Prompt.of(self.backend.vocabulary)
        self._reading = Reading(lead=self._prompt.head)
        self._windows: list[Part] = []
        self._index_s = 0.0
        self._before_s = 0.0, 0.0  # prefill and index, of who wrote the snapshot
        self._origin: Origin | None = None
        self._draws = Draws()
        self._lock = lock()  # held for a moment, to take or set what goes together
        self._growing = recursive_lock()  # held while the context grows

    # -- making one ------------------------------------------------------------------------------------------

    @classmethod
    def from_text(
        cls,
        model: Any,
        tokenizer: Any,
        text: str,
        config: RetrievalConfig | Literal["full"] | None = None,
        progress: Progress | None = None,
    ) -> Context:
        """Prefill `text`.

        model, tokenizer : as `sakuin.load` returns them.
        config : settings of the retrieval; `"full"` is full attention with the backend's own cache, to
            compare with.
        progress : called with tokens done, tokens in all and the phase, "prefill" or "index".

        Raises `SakuinError` where the text is empty, longer than the model's window, or takes more memory
        than there is.
        """
        whole = Document("", arguments.text("text", text, "from_files reads files"))
        return cls.from_documents(model, tokenizer, [whole], config, progress)

    @classmethod
    def from_files(
        cls,
        model: Any,
        tokenizer: Any,
        paths: Iterable[str | os.PathLike[str]],
        config: RetrievalConfig | Literal["full"] | None = None,
        progress: Progress | None = None,
        encoding: str | None = None,
    ) -> Context:
        """Prefill the texts in files, one after another, as `sakuin.documents.read` reads them; `-` is
        standard input. Else as `from_text`.
        """
        files = checks.listed_paths(paths)
        checks.check_before_reading(model, tokenizer, config, progress, encoding)
        texts = [documents.read(path, encoding) for path in files]
        return cls.from_documents(model, tokenizer, texts, config, progress)

    @classmethod
    def from_documents(
        cls,
        model: Any,
        tokenizer: Any,
        texts: Sequence[Document],
        config: RetrievalConfig | Literal["full"] | None = None,
        progress: Progress | None = None,
        keeper: Keeper | None = None,
        encoded: Encoded | None = None,
    ) -> Context:
        """Prefill documents, one after another. Else as `from_text`.

        keeper : is shown the cache as it grows, and may know how it begins (`sakuin.library` has one).
        encoded : the tokens of `Reading().with_documents(texts).body`, from callers that have measured it.
        """
        texts = checks.listed_documents(texts, progress)
        checks.check_keeper(keeper)
        context = cls(model, tokenizer, config)
        reading = context._reading.with_documents(texts)
        context._grow(checks.grown(reading, context._prompt, context.backend, encoded), progress, keeper)
        return context

    @classmethod
    def from_messages(
        cls,
        model: Any,
        tokenizer: Any,
        messages: Sequence[Mapping[str, Any]],
        config: RetrievalConfig | Literal["full"] | None = None,
        progress: Progress | None = None,
    ) -> Context:
        """Prefill a conversation: `messages` as chat templates take them, `{"role": …, "content": …}`.

        Where the last message is the user's, `chat()` answers it; `ask` puts its question under it. Evidence
        names a message by its number and role. Else as `from_text`.
        """
        checked = checks.listed_messages(messages, progress)
        context = cls(model, tokenizer, config)
        prompt = context._prompt
        checks.check_characters(prompt.vocabulary, checks.joined(checked), context.backend.shape.window)
        reading = context._reading.with_messages(prompt, checked)
        context._grow(reading, progress)
        return context

    def append(self, text: str | Document, progress: Progress | None = None) -> None:
        """Read more, after what was read; nothing of that is read again.

        text : goes on with the last document, whose offsets go on where they ended; a `Document` begins
            another one, or goes on with the last if that has the same name.

        Where the text does not fit, the context stays as it was.
        """
        checks.check_more(text, progress)
        with self._growing:
            reading = self._reading
            if isinstance(text, Document):
                last = reading.documents[-1].name if reading.documents else None
                if text.name == last:
                    text = text.text
                elif text.text:
                    title = f"\n\n{text.name}:\n\n" if reading.body else ""
                    self._grow(
                        checks.grown(reading.with_document(text, title), self._prompt, self.backend), progress
                    )
                    return
            if text:
                assert isinstance(text, str)
                self._grow(checks.grown(reading.with_more(text), self._prompt, self.backend), progress)

    def fork(self) -> Context:
        """A second context that has read the same, shares its memory, and goes its own way."""
        with self._lock:
            other = twin(self)
            other.cache = self.backend.fork(self.cache)
        other._lock, other._growing = lock(), recursive_lock()
        return other

    # -- asking ----------------------------------------------------------------------------------------------

    def ask(
        self,
        question: str,
        max_new_tokens: int = 256,
        stream: Callable[[str], None] | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Answer:
        """Answer a question of the context, which stays as it is.

        stream : is given the answer piece by piece.
        temperature, top_p, seed : 0 takes the likeliest token each time (the default); above, tokens are
            drawn.

        Raises `SakuinError` where the question is empty or does not fit into the model's window.
        """
        if not arguments.text("question", question).strip():
            raise SakuinError("the question is empty; ask something.")
        asking = Asking(max_new_tokens, Sampling(temperature, top_p, seed), stream)
        reading, cache, drawn = self._begun()
        return answer(self.backend, cache, self._prompt, reading, question.strip(), asking, drawn)[0]

    def chat(
        self,
        message: str | None = None,
        max_new_tokens: int = 256,
        stream: Callable[[str], None] | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Answer:
        """Answer a message as `ask` does; message and answer become a part of the context.

        message : None answers what the user said last (of `from_messages`).
        """
        asking = Asking(max_new_tokens, Sampling(temperature, top_p, seed), stream)
        message = None if message is None else arguments.text("message", message).strip()
        with self._growing:
            reading, cache, drawn = self._begun()
            if message is None and (reading.lead or not reading.documents):
                raise SakuinError("there is no message to answer; give one.")
            if message == "":
                raise SakuinError("the message is empty; say something.")
            said, grown = answer(
                self.backend, cache, self._prompt, reading, message, asking, drawn, keep=True
            )
            exact, index_s = reading.exact, 0.0
            if (retrieval := self.backend.retrieval(cache)) is not None:
                retrieval.track_mass(False)
                retrieval.flush()
                index_s = retrieval.index_seconds
                asked = said.tokens - len(reading.ids) - 1
                if exact == len(reading.ids) and asked > retrieval.config.exact_above:
                    exact += asked
            self._take(replace(grown, exact=exact), cache, self._windows)
            self._index_s += index_s
        return said

    # -- keeping ---------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the context into the folder `path`: files that are not there yet, and the manifest last.

        A process that is killed meanwhile leaves what was there before. Raises `SakuinError` where the folder
        holds something else, the disk is full, or the kind of index cannot be stored.
        """
        store.save(arguments.path("path", path), self.snapshot())

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], model: Any, tokenizer: Any, config: RetrievalConfig | None = None
    ) -> Context:
        """The context that `save` wrote. Its files are mapped, and read where they are touched.

        config : other settings of how tokens are retrieved, or another `offload`; what is stored must fit.

        Raises `SakuinError` where the files are missing or damaged, or belong to another model, tokenizer,
        chat template, dtype or version; nothing is made then.
        """
        where = arguments.path("path", path)
        checks.check_stored(config)
        return cls.of_snapshot(store.load(where, checks.ready_backend(model, tokenizer), config))

    def snapshot(self) -> store.Snapshot:
        """All that there is to store."""
        if self.config is None:
            raise SakuinError("a context with full attention cannot be stored; read it with index='flat'.")
        with self._growing:
            *_, measure = self._begun()
            drawn = measure()
        with self._growing, self._lock:
            return store.Snapshot(
                self.backend,
                self.backend.fork(self.cache),
                self._reading,
                self.config,
                list(self._windows),
                self._before_s[0] + self.prefill_s,
                self._before_s[1] + self.index_s,
                self._origin,
                drawn,
            )

    @classmethod
    def of_snapshot(cls, found: store.Snapshot) -> Context:
        """The context of a snapshot that was read."""
        checks.check_snapshot(found)
        context = cls(found.backend.model, found.backend.tokenizer, found.config)
        context._take(found.reading, found.cache, found.windows)
        context._before_s = found.prefill_s, found.index_s
        context._origin, context._draws = found.origin, Draws(found.drawn)
        context.reused_tokens = len(found.reading.ids)
        return context

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def documents(self) -> list[Document]:
        """The documents in it, in order."""
        return list(self._reading.documents)

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

    # -- inside ----------------------------------------------------------------------------------------------

    def _begun(self) -> tuple[Reading, Any, Callable[[], Drawn | None]]:
        """What a question begins with: what was read, a fork of its cache, and what any question draws."""
        with self._lock:
            reading, cache = self._reading, self.backend.fork(self.cache)
        self._let_fail(cache)
        return reading, cache, self._draws.of(self.backend, self._prompt, reading, cache)

    def _grow(self, reading: Reading, progress: Progress | None, keeper: Keeper | None = None) -> None:
        """Prefill the tokens that `reading` has more, and hold it."""
        done, ids = self.tokens, reading.ids
        check_fits(self.backend, self.config, len(ids), len(reading.body))
        with self._lock:
            cache, windows, reused = self.backend.fork(self.cache), list(self._windows), self.reused_tokens
        if keeper is not None and not done and (found := keeper.begin(ids)) is not None:
            cache, done, windows = found
            reused = done
        self._let_fail(cache)
        first, start = done, time.perf_counter()
        say = progress or (lambda *_: None)
        self._prefill(cache, ids, first, windows, say, keeper)
        index_s = 0.0
        if (retrieval := self.backend.retrieval(cache)) is not None:
            say(0, 1, "index")
            retrieval.seal()
            say(1, 1, "index")
            index_s = retrieval.index_seconds  # a fork counts anew
            exact = self._reading.exact
            if exact == self.tokens and len(ids) - max(first, self.tokens) > retrieval.config.exact_above:
                exact = len(ids)
            reading = replace(reading, exact=exact)
        seconds = time.perf_counter() - start
        self._take(reading, cache, windows)
        self.reused_tokens, self.prefill_s = reused, self.prefill_s + seconds
        self._index_s += index_s

    def _prefill(
        self,
        cache: Any,
        ids: Sequence[int],
        first: int,
        windows: list[Part],
        say: Progress,
        keeper: Keeper | None,
    ) -> None:
        """Add `ids` from `first` on to the cache; windows on the way are added to `windows`."""
        new, done = len(ids) - first, first
        say(0, new, "prefill")
        for stop, keep in parts.stops(self.backend, cache, done, len(ids)):
            for at in prefill_steps(self.backend, cache, ids[done:stop]):
                say(done + at - first, new, "prefill")
                if keeper is not None and done + at < stop:
                    keeper.step(cache, done + at, windows)
            done = stop
            if keep:
                windows.append(parts.window_part(self.backend, cache, done))
            if keeper is not None:
                keeper.step(cache, done, windows)

    def _let_fail(self, cache: Any, on: bool = True) -> None:
        """Whether `cache` is thrown away if anything fails, and need not be able to go back."""
        if (retrieval := self.backend.retrieval(cache)) is not None:
            retrieval.let_fail(on)

    def _take(self, reading: Reading, cache: Any, windows: list[Part]) -> None:
        """Hold what was read: the last thing that growing does, all of it or nothing."""
        self._let_fail(cache, False)
        with self._lock:
            # In one line, which no interrupt parts: tokens, cache and windows belong together.
            self._reading, self.cache, self._windows = reading, cache, windows
