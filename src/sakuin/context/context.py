"""A context: documents prefilled once, asked many times.

`Context` holds the cache of a prefilled text and what the text is (`sakuin.prompts.reading`). `ask` works on
a fork of the cache, so that a question leaves nothing behind; `append` and `chat` grow a fork and take it in
the place of the old one when all went well. How prompts are put together is in `sakuin.prompts.template`, how
an answer comes about in `sakuin.context.answer`, what a context holds in `sakuin.context.state`, what it is
on disk in `sakuin.snapshot`. Called by users and by the command line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from sakuin import arguments, documents
from sakuin.config import RetrievalConfig
from sakuin.context import checks
from sakuin.context.answer import Answer, Asking, answering
from sakuin.context.checks import check_length
from sakuin.context.conversation import messages_read
from sakuin.context.generate import run
from sakuin.context.growth import Growth, Progress
from sakuin.context.sampling import Sampling
from sakuin.context.state import State
from sakuin.context.support import Draws
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.prompts.holding import Change, Edited, with_added, with_beside, without
from sakuin.prompts.vocabulary import Encoded
from sakuin.snapshot import store
from sakuin.snapshot.parts import Keeper

__all__ = ["Answer", "Context", "Growth", "Keeper", "Progress", "check_length"]


class Context(State):
    """Documents that a model has read. Made by `from_text`, `from_files`, `from_documents`, `from_messages`
    or `load`.

    May be asked from several threads at once; each gets what it would get alone.

    prefill_s : seconds that reading took in this process.
    reused_tokens : tokens that were not prefilled by this context but found: in the snapshot that it was
        loaded from, or in one with the same beginning.
    """

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

    # -- asking ----------------------------------------------------------------------------------------------

    def ask(
        self,
        question: str,
        max_new_tokens: int = 256,
        stream: Callable[[str], None] | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        *,
        repeat_penalty: float = 1.0,
        stop: str | Sequence[str] = (),
        end_loops: bool = True,
        cancelled: Callable[[], bool] | None = None,
    ) -> Answer:
        """Answer a question of the context, which stays as it is.

        stream : is given the answer piece by piece.
        temperature, top_p, seed : 0 takes the likeliest token each time (the default); above, tokens are
            drawn.
        repeat_penalty : by which the last 64 tokens are made less likely, as llama.cpp does; 1 for not.
        stop : strings before which the answer ends. end_loops : end an answer that repeats itself.
        cancelled : asked between passes; True ends the answer. `Answer.ended` says why an answer ended.

        Raises `SakuinError` where the question is empty or does not fit into the model's window.
        """
        if not arguments.text("question", question).strip():
            raise SakuinError("the question is empty; ask something.")
        sampling = Sampling(temperature, top_p, seed, repeat_penalty)
        asking = Asking(max_new_tokens, sampling, stream, stop, end_loops, cancelled)
        reading, cache, drawn = self.begun()
        passes = answering(self.backend, cache, self._prompt, reading, question.strip(), asking, drawn)
        return run(self.backend, passes)[0]

    def chat(
        self,
        message: str | None = None,
        max_new_tokens: int = 256,
        stream: Callable[[str], None] | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        *,
        repeat_penalty: float = 1.0,
        stop: str | Sequence[str] = (),
        end_loops: bool = True,
        cancelled: Callable[[], bool] | None = None,
    ) -> Answer:
        """Answer a message as `ask` does; message and answer become a part of the context.

        message : None answers what the user said last (of `from_messages`).
        An answer that was cut or cancelled stays as far as its text goes; what was cancelled before anything
        was said leaves the context as it was.
        """
        sampling = Sampling(temperature, top_p, seed, repeat_penalty)
        asking = Asking(max_new_tokens, sampling, stream, stop, end_loops, cancelled)
        message = None if message is None else arguments.text("message", message).strip()
        with self._growing:
            reading, cache, drawn = self.begun()
            if message is None and (reading.lead or not reading.documents):
                raise SakuinError("there is no message to answer; give one.")
            if message == "":
                raise SakuinError("the message is empty; say something.")
            passes = answering(
                self.backend, cache, self._prompt, reading, message, asking, drawn, again=self._fork_to_fail
            )
            said, grown, cache = run(self.backend, passes)
            if grown is reading:
                return said
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
            *_, measure = self.begun()
            drawn = run(self.backend, measure())
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
