"""A context: documents prefilled once, asked many times.

`Context` holds the cache of a prefilled text and what the text is (`sakuin.prompts.reading`). `ask` works on
a fork of the cache, so that a question leaves nothing behind; `append` and `chat` grow a fork and take it in
the place of the old one when all went well. How prompts are put together is in `sakuin.prompts.template`, how
an answer comes about in `sakuin.context.answer`, what a context is on disk in `sakuin.snapshot`. Called by
users and by the command line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from sakuin import arguments, documents
from sakuin.cache.drawn import Drawn
from sakuin.config import RetrievalConfig
from sakuin.context import checks
from sakuin.context.answer import Answer, Asking, answer
from sakuin.context.checks import check_length
from sakuin.context.conversation import messages_read
from sakuin.context.generate import Sampling
from sakuin.context.growth import Growth, Progress, Read, let_fail, read_on, started
from sakuin.context.support import Draws
from sakuin.copies import CopiedByFork, twin
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.machine.forks import lock, recursive_lock
from sakuin.prompts.holding import Change, Edited, with_added, with_beside, without
from sakuin.prompts.reading import Reading
from sakuin.prompts.template import Prompt
from sakuin.prompts.vocabulary import Encoded
from sakuin.snapshot import store
from sakuin.snapshot.part import Part
from sakuin.snapshot.part_files import Origin
from sakuin.snapshot.parts import Keeper

__all__ = ["Answer", "Context", "Growth", "Keeper", "Progress", "check_length"]


class Context(CopiedByFork):
    """Documents that a model has read. Made by `from_text`, `from_files`, `from_documents`, `from_messages`
    or `load`.

    May be asked from several threads at once; each gets what it would get alone.

    prefill_s : seconds that reading took in this process.
    reused_tokens : tokens that were not prefilled by this context but found: in the snapshot that it was
        loaded from, or in one with the same beginning.
    """

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

    # -- making one ------------------------------------------------------------------------------------------

    @classmethod
    def from_text(
        cls,
        model: Any,
        tokenizer: Any,
        text: str,
        config: RetrievalConfig | Literal["full"] | None = None,
        progress: Progress | None = None,
        system: str | None = None,
    ) -> Context:
        """Prefill `text`.

        model, tokenizer : as `sakuin.load` returns them.
        config : settings of the retrieval; `"full"` is full attention with the backend's own cache, to
            compare with.
        progress : called with tokens done, tokens in all and the phase, "prefill" or "index".
        system : a system prompt, what the model is told before everything else. It belongs to the context.

        Raises `SakuinError` where the text is empty, longer than the model's window, or takes more memory
        than there is, and where the model's chat template has no place for a system prompt.
        """
        whole = Document("", arguments.text("text", text, "from_files reads files"))
        return cls.from_documents(model, tokenizer, [whole], config, progress, system=system)

    @classmethod
    def from_files(
        cls,
        model: Any,
        tokenizer: Any,
        paths: Iterable[str | os.PathLike[str]],
        config: RetrievalConfig | Literal["full"] | None = None,
        progress: Progress | None = None,
        encoding: str | None = None,
        system: str | None = None,
    ) -> Context:
        """Prefill the texts in files, one after another, as `sakuin.documents.read_all` reads them: folders
        and patterns too; `-` is standard input. Else as `from_text`.
        """
        files = checks.listed_paths(paths)
        checks.check_before_reading(model, tokenizer, config, progress, encoding)
        texts = documents.read_all(files, encoding)
        return cls.from_documents(model, tokenizer, texts, config, progress, system=system)

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
        system: str | None = None,
    ) -> Context:
        """Prefill documents, one after another. Else as `from_text`.

        keeper : is shown the cache as it grows, and may know how it begins (`sakuin.library` has one).
        encoded : the tokens of `Reading().with_documents(texts).body`, from callers that have measured it.
        """
        texts = checks.listed_documents(texts, progress)
        checks.check_keeper(keeper)
        context = cls(model, tokenizer, config, system)
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
        system: str | None = None,
    ) -> Context:
        """Prefill a conversation: `messages` as chat templates take them, `{"role": …, "content": …}`.

        Where the last message is the user's, `chat()` answers it; `ask` puts its question under it. Evidence
        names a message by its number and role. Else as `from_text`.
        """
        checked = checks.listed_messages(messages, progress)
        context = cls(model, tokenizer, config, system)
        reading = messages_read(context._prompt, context._reading, checked, context.backend.shape.window)
        context._grow(reading, progress)
        return context

    def append(
        self,
        text: str | Document | Sequence[Document],
        progress: Progress | None = None,
        *,
        replace: bool = False,
    ) -> Growth:
        """Read more, after what was read; nothing of that is read again.

        text : a text goes on with the last document, whose offsets go on where they ended. A `Document`, or a
            list of them, is the whole text of one: where it is new it comes after a break; of one that is
            there (by its `path`, or without one by its name) only what is new at its end is read, and nothing
            where nothing is.
        replace : a document whose old text is not the beginning of the new one takes the place of the old
            one; all from where they differ on is read anew, or for a model with sliding windows or recurrent
            layers from the nearest place before at which their state was kept. Without it such a document
            raises `SakuinError`.

        Where the text does not fit, the context stays as it was.
        """
        more = checks.listed_more(text, progress)
        arguments.flag("replace", replace)
        with self._growing:
            if isinstance(more, str):
                reading = self._reading.with_more(more)
                grown = [Change(reading.documents[-1].name, "grown")]
                return self._read(reading, grown, progress) if more else Growth()
            more = [one for one in more if one.text]
            edited: Edited = "replace" if replace else "refuse"
            return self._hold(with_added(self.documents, more, edited), progress)

    def append_beside(self, document: Document, progress: Progress | None = None) -> Growth:
        """As `append` of a document that is new, whatever the context holds of its path and name: the next
        file of a log."""
        checks.listed_more(document, progress)
        with self._growing:
            return self._hold(with_beside(self.documents, document), progress)

    def remove(self, *documents: str, progress: Progress | None = None) -> Growth:
        """Let go of documents, by their names in the context or the paths of their files. What stands after
        the first of them is read anew, as by `append` with `replace`.

        Raises `SakuinError` where there is no such document, where no other would be left, or where the
        context holds a conversation.
        """
        names = [arguments.text(f"documents[{i}]", name) for i, name in enumerate(documents)]
        checks.check_progress(progress)
        with self._growing:
            return self._hold(without(self.documents, names), progress)

    def _hold(self, found: tuple[list[Document], list[Change]], progress: Progress | None) -> Growth:
        documents, changes = found
        if all(change.what == "same" for change in changes):
            return Growth(tuple(changes))
        return self._read(self._reading.holding(documents, self._prompt), changes, progress)

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
        system = found.reading.system or None
        context = cls(found.backend.model, found.backend.tokenizer, found.config, system)
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
    def system(self) -> str:
        """What the model was told before everything else, or ""."""
        return self._reading.system

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
        let_fail(self.backend, cache)
        return reading, cache, self._draws.of(self.backend, self._prompt, reading, cache)

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

    def _take(self, reading: Reading, cache: Any, windows: list[Part]) -> None:
        """Hold what was read: the last thing that growing does, all of it or nothing."""
        let_fail(self.backend, cache, False)
        with self._lock:
            # In one line, which no interrupt parts: tokens, cache and windows belong together.
            self._reading, self.cache, self._windows = reading, cache, windows
