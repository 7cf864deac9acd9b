"""A context: documents prefilled once, asked many times.

`Context` holds the cache of a prefilled text, where each token lies in the text, and how this model is asked.
`ask` works on a fork of the cache, so that a question leaves nothing behind. How prompts are put together is
in `sakuin.prompt`, the decode loop in `sakuin.decoding`, passages in `sakuin.evidence`. Called by users and
by the command line.
"""

from __future__ import annotations

import copy
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import DynamicCache

from sakuin import documents, evidence, memory, models
from sakuin.cache import RetrievalCache
from sakuin.config import RetrievalConfig
from sakuin.decoding import Runner, Sampling
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.evidence import Span
from sakuin.prompt import Encoded, Prompt, stable_length

_FOR_QUESTION = 512
"""Tokens left to question and answer where it is said how much of a document fits."""

Progress = Callable[[int, int, str], None]
"""Given tokens done, tokens in all, and the phase: "prefill" or "index"."""


@dataclass(frozen=True)
class Answer:
    """What the model said, and what it took.

    evidence : the passages that the answer attended to, most attended first; empty with full attention, which
        does not tell.
    tokens, new_tokens : tokens of the whole prompt and of the answer.
    prefill_s, decode_s : seconds for the question (the document was prefilled before) and for the answer.
    decode_ms_per_token : mean time of a decode step.
    stats : of the cache, as `RetrievalCache.stats` says; empty with full attention.
    finished : whether the answer ended by itself rather than at `max_new_tokens` or at the model's window.
    """

    text: str
    evidence: list[Span]
    tokens: int
    new_tokens: int
    prefill_s: float
    decode_s: float
    decode_ms_per_token: float
    stats: dict[str, Any] = field(repr=False)
    finished: bool = True


class Context:
    """Documents that a model has read. Made by `from_text`, `from_files` or `from_documents`.

    tokens : of the context. prefill_s, index_s : seconds that reading took, and of them and beside them,
        sealing the index.
    """

    def __init__(
        self, model: Any, tokenizer: Any, config: RetrievalConfig | Literal["full"] | None = None
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.config = _settings(config)
        _check_model(model)
        self.cache: Any = (
            DynamicCache(config=model.config)
            if self.config is None
            else RetrievalCache(model.config, self.config)
        )
        self.documents: list[Document] = []
        self.prefill_s = 0.0
        self._prompt = Prompt.of(tokenizer)
        self._body = ""
        self._places: list[int] = []
        self._tokens = Encoded([], [], [])
        self._done = 0

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
        config : settings of the retrieval; `"full"` is full attention with transformers' own cache, to
            compare with.
        progress : called with tokens done, tokens in all and the phase, "prefill" or "index".

        Raises `SakuinError` where the text is empty, longer than the model's window, or takes more memory
        than there is.
        """
        return cls.from_documents(model, tokenizer, [Document("", text)], config, progress)

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
        return cls.from_documents(
            model, tokenizer, [documents.read(path, encoding) for path in paths], config, progress
        )

    @classmethod
    def from_documents(
        cls,
        model: Any,
        tokenizer: Any,
        texts: Sequence[Document],
        config: RetrievalConfig | Literal["full"] | None = None,
        progress: Progress | None = None,
    ) -> Context:
        """Prefill documents, one after another. Else as `from_text`."""
        if not texts or not any(document.text.strip() for document in texts):
            raise SakuinError("the document is empty; there is nothing to ask about.")
        context = cls(model, tokenizer, config)
        for document in texts:
            if len(texts) > 1:
                context._body += f"\n\n{document.name}:\n\n" if context._body else f"{document.name}:\n\n"
            context.documents.append(document)
            context._places.append(len(context._body))
            context._body += document.text
        context._read(progress)
        return context

    def append(self, text: str, progress: Progress | None = None) -> None:
        """Go on with the last document: `text` is read after it, and offsets go on where they ended."""
        if not text:
            return
        last = self.documents[-1]
        self.documents[-1] = last.extended(text)
        self._body += text
        try:
            self._read(progress)
        except SakuinError:
            self.documents[-1] = last
            self._body = self._body[: len(self._body) - len(text)]
            raise

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
        if not question.strip():
            raise SakuinError("the question is empty; ask something.")
        if max_new_tokens < 1:
            raise SakuinError(f"max_new_tokens must be at least 1, got {max_new_tokens}.")
        sampling = Sampling(temperature, top_p, seed)
        rest = self._body[self._at :].rstrip()
        asked = self._prompt.question(rest, question.strip())
        total = self.tokens + len(asked.ids)
        most = min(max_new_tokens, self._room_for(total))
        cache = self._fork()
        runner = self._runner(cache)
        start = time.perf_counter()
        runner.prefill(asked.ids[:-1])
        prefill_s = time.perf_counter() - start
        if self.config is not None:
            cache.track_mass(True, above=evidence.ABOVE)
        seconds: list[float] = []
        said, ended = self._say(runner, asked.ids[-1], most, sampling, seconds, stream)
        return Answer(
            text=said.text.strip(),
            evidence=self._evidence(cache, rest, asked),
            tokens=total,
            new_tokens=len(said.ids),
            prefill_s=prefill_s,
            decode_s=sum(seconds),
            decode_ms_per_token=1e3 * sum(seconds) / len(seconds),
            stats={} if self.config is None else cache.stats(),
            finished=ended,
        )

    @property
    def tokens(self) -> int:
        """Tokens that have been prefilled, the template's start included."""
        return (len(self._prompt.head) if self._done else 0) + self._done

    @property
    def index_s(self) -> float:
        """Seconds spent sealing the index: whole segments beside the prefill, the rest after it."""
        return 0.0 if self.config is None else float(self.cache.index_seconds)

    def kv_bytes(self) -> dict[str, int]:
        """Bytes of keys, values and index: `device` and `host`."""
        if self.config is not None:
            return dict(self.cache.kv_bytes())
        held = [t for layer in self.cache.layers for t in (layer.keys, layer.values) if t is not None]
        return {"device": sum(t.nbytes for t in held), "host": 0}

    # -- inside ----------------------------------------------------------------------------------------------

    @property
    def _at(self) -> int:
        """Where in the body the part that is not prefilled yet begins."""
        return self._tokens.starts[self._done] if self._done < len(self._tokens.ids) else len(self._body)

    def _read(self, progress: Progress | None) -> None:
        """Prefill the body's tokens up to where what follows cannot change them."""
        at = self._at if self._tokens.ids else 0
        new = self._prompt.encode(self._body[at:])
        keep = stable_length(self._body[at:], new)
        ids = new.ids[:keep] if self._done else self._prompt.head + new.ids[:keep]
        self._check_fits(len(ids))
        say = progress or (lambda *_: None)
        start = time.perf_counter()
        say(0, len(ids), "prefill")
        self._runner(self.cache).prefill(ids, lambda done: say(done, len(ids), "prefill"))
        if self.config is not None:
            say(0, 1, "index")
            self.cache.seal()
            say(1, 1, "index")
        self.prefill_s += time.perf_counter() - start
        done = self._done
        self._tokens = Encoded(
            self._tokens.ids[:done] + new.ids,
            self._tokens.starts[:done] + [at + start for start in new.starts],
            self._tokens.ends[:done] + [at + end for end in new.ends],
        )
        self._done = done + keep

    def _check_fits(self, added: int) -> None:
        total = self.tokens + added
        check_length(self.model.config, total, len(self._body))
        need = memory.estimate(self.model.config, total, self.model.dtype, self.config, weights=0)
        memory.check(need, f"a context of {total:,} tokens")

    def _room_for(self, total: int) -> int:
        """Tokens that an answer may have after a prompt of `total`."""
        window = models.window(self.model.config)
        if window is None:
            return total + (1 << 30)
        if total >= window:
            raise SakuinError(
                f"document and question are {total:,} tokens long and this model reads at most {window:,}; "
                "ask a shorter question or shorten the document."
            )
        return window - total

    def _runner(self, cache: Any) -> Runner:
        return Runner(self.model, cache, 0 if self.config is None else self.config.exact_above)

    def _fork(self) -> Any:
        if self.config is not None:
            return self.cache.fork()
        # transformers' layers never write into the tensors that they hold, so copies of the layers are
        # enough.
        other = copy.copy(self.cache)
        other.layers = [copy.copy(layer) for layer in self.cache.layers]
        return other

    def _say(
        self,
        runner: Runner,
        first: int,
        most: int,
        sampling: Sampling,
        seconds: list[float],
        stream: Callable[[str], None] | None,
    ) -> tuple[_Said, bool]:
        said = _Said(self.tokenizer, stream, self._prompt.one_line)
        ends = runner.end_tokens(self.tokenizer)
        ended = False
        for token in runner.tokens(first, most, sampling, seconds):
            ended = token in ends or said.add(token)
            if ended:
                break
        said.finish()
        return said, ended

    def _evidence(self, cache: Any, rest: str, asked: Encoded) -> list[Span]:
        if self.config is None:
            return []
        mass = cache.mass()
        held = sum(
            end <= len(rest) for end in asked.ends
        )  # the document's last tokens, prefilled with the question
        n = self._done + held
        head = len(self._prompt.head)
        starts = self._tokens.starts[: self._done] + [self._at + start for start in asked.starts[:held]]
        ends = self._tokens.ends[: self._done] + [self._at + end for end in asked.ends[:held]]
        breaks = {
            place + at
            for place, document in zip(self._places, self.documents, strict=True)
            for at in (0, *document.breaks())
        }
        found = evidence.passages(mass[:, head : head + n], starts, ends, self._body, sorted(breaks))
        return [self._span(start, end, weight) for start, end, weight in found]

    def _span(self, start: int, end: int, weight: float) -> Span:
        which = bisect_right(self._places, start) - 1
        document, place = self.documents[which], self._places[which]
        start, end = start - place, min(end - place, len(document.text))
        mark = document.mark(start)
        return Span(
            start=start,
            end=end,
            weight=weight,
            file=document.name,
            line_start=document.line(start),
            line_end=document.line(max(end - 1, start)),
            text=document.text[start:end],
            page=mark.page,
            heading=mark.heading,
        )


class _Said:
    """An answer as it grows: tokens to text, handed on piece by piece, never half a character."""

    def __init__(self, tokenizer: Any, stream: Callable[[str], None] | None, one_line: bool) -> None:
        self.ids: list[int] = []
        self.text = ""
        self._tokenizer, self._stream, self._one_line = tokenizer, stream, one_line
        self._streamed = 0

    def add(self, token: int) -> bool:
        """Take a token; True where it ends the answer's only line."""
        self.ids.append(token)
        self.text = self._tokenizer.decode(self.ids, skip_special_tokens=True).lstrip()
        line, newline, _ = self.text.partition("\n")
        if newline and self._one_line:
            self.text = line
            return True
        # Half a character waits for its other half, and blanks at the end wait: if the answer ends there,
        # they are no part of it.
        if not self.text.endswith("\N{REPLACEMENT CHARACTER}"):
            self.finish()
        return False

    def finish(self) -> None:
        """Hand on what has not been."""
        until = len(self.text.rstrip())
        if self._stream and until > self._streamed:
            self._stream(self.text[self._streamed : until])
        self._streamed = max(self._streamed, until)


def check_length(config: Any, tokens: int, characters: int) -> None:
    """Raise `SakuinError` where a context of so many tokens and characters is longer than the model reads."""
    window = models.window(config)
    if window is None or tokens < window:
        return
    share = max(window - _FOR_QUESTION, 0) / tokens
    raise SakuinError(
        f"the document is {tokens:,} tokens long and this model reads at most {window:,}, question and "
        f"answer included; about the first {share:.0%} of it ({int(share * characters):,} characters) fit: "
        "shorten it, take a model with a longer window, or make this one's longer (`window`, by YaRN)."
    )


def _settings(config: RetrievalConfig | Literal["full"] | None) -> RetrievalConfig | None:
    """The settings that a `config` argument means; None is full attention."""
    if config is None:
        return RetrievalConfig()
    if config == "full":
        return None
    if not isinstance(config, RetrievalConfig):
        raise TypeError(f"config must be a RetrievalConfig or 'full', got {config!r}")
    return config


def _check_model(model: Any) -> None:
    name = getattr(model.config, "_attn_implementation", None)
    if name != "sakuin":
        raise SakuinError(
            f"the model was loaded with attn_implementation={name!r}; load it with sakuin.load, or with "
            "attn_implementation='sakuin'."
        )
