"""What a context checks of its settings, messages and length before any work begins.

Each function raises one sentence that names the value and the remedy. Called by `sakuin.context.context` and
the command line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sakuin import arguments
from sakuin.arguments import shown
from sakuin.backends.open import backend_with_vocabulary
from sakuin.capacity import need
from sakuin.config import RetrievalConfig
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.prompts.reading import Reading
from sakuin.prompts.template import Prompt
from sakuin.prompts.vocabulary import Encoded, Vocabulary
from sakuin.quantities import counted
from sakuin.snapshot.store import Snapshot

if TYPE_CHECKING:
    from sakuin.backends.base import Backend

_ROLE = re.compile(r"[A-Za-z][\w-]{0,63}", re.ASCII)
_MANY = 8
"""Characters a token that hardly any text has; shorter ones are measured exactly."""
_PIECE = 1 << 16
"""Characters that are made into tokens at once to measure a text that is likely too long."""
_FEW = 1024
_FOR_QUESTION = 512
"""Tokens left to question and answer where it is said how much of a document fits."""


class TooLongError(SakuinError):
    """A document does not fit into the model's window.

    what : that, and what fits. helps : what to do. tokens, window : its length, and the most that fit.
    """

    def __init__(self, what: str, helps: str, tokens: int = 0, window: int = 0) -> None:
        super().__init__(f"{what}: {helps}.")
        self.what, self.tokens, self.window = what, tokens, window


def check_length(
    window: int | None, tokens: int, characters: int, about: bool = False, held: int = 0
) -> None:
    """Raise `SakuinError` where a context of so many tokens and characters is longer than a model reads.

    window : most tokens that the model was made for, or None where it does not say. about : the tokens are
    reckoned from a part of them. held : so many of them are in a context already.
    """
    if window is None or tokens < window:
        return
    if held:
        raise TooLongError(
            f"the context would be {'about ' * about}{counted(tokens, 'token')} long, {held:,} of which it "
            f"holds already, and this model reads at most {window:,}, question and answer included",
            "append less, begin another context with it, or take a model with a longer window",
            tokens,
            window,
        )
    share = max(window - _FOR_QUESTION, 0) / tokens
    raise TooLongError(
        f"the document is {'about ' * about}{tokens:,} tokens long and this model reads at most {window:,}, "
        "question and "
        f"answer included; about the first {share:.0%} of it ({int(share * characters):,} characters) fit",
        "shorten it, take a model with a longer window, or make this one's longer (`window`, by YaRN)",
        tokens,
        window,
    )


def reckoned(vocabulary: Vocabulary, text: str, left: int) -> int | None:
    """Tokens of a text that has far more than `left`, reckoned from its beginning; None where it has hardly
    more, or fewer. To be asked before a text is made into tokens: for 40 MB that takes gigabytes."""
    if len(text) <= _MANY * left + _FEW:
        return None
    made = 0
    for at in range(0, len(text), _PIECE):
        # A cut inside a word changes a token or two, so that a little more than the window is waited for.
        made += len(vocabulary.encode(text[at : at + _PIECE]).ids)
        if made > left + left // 100 + _FEW:
            return made * len(text) // min(at + _PIECE, len(text))
    return None


def check_characters(vocabulary: Vocabulary, text: str, window: int | None, held: int = 0) -> None:
    """As `check_length`, from the beginning of a text that is far too long to be made into tokens.

    held : tokens that are in the window already.
    """
    if window is not None and (tokens := reckoned(vocabulary, text, max(window - held, 0))) is not None:
        check_length(window, held + tokens, len(text), about=True, held=held)


def grown(reading: Reading, prompt: Prompt, backend: Backend, encoded: Encoded | None = None) -> Reading:
    """With the tokens of the text that waits, which are `encoded` where it is given; a text that is far too
    long is not made into tokens."""
    if encoded is None:
        check_characters(backend.vocabulary, reading.waiting, backend.shape.window, len(reading.ids))
    return reading.grown(prompt, encoded=encoded)


def ready_backend(model: Any, tokenizer: Any) -> Backend:
    """The backend of a model that can attend through an index, and its vocabulary."""
    backend = backend_with_vocabulary(model, tokenizer)
    backend.check()
    return backend


def check_before_reading(model: Any, tokenizer: Any, config: Any, progress: Any, encoding: Any) -> None:
    """What is wrong with these is said before files are read."""
    if encoding is not None:
        arguments.text("encoding", encoding)
    settings_meant(config)
    check_progress(progress)
    ready_backend(model, tokenizer)


def check_fits(
    backend: Backend, config: RetrievalConfig | None, tokens: int, characters: int, held: int = 0
) -> None:
    """Raise `SakuinError` where a context of so many tokens and characters is longer than the model reads, or
    takes more memory than there is. held : tokens that are in the context already."""
    check_length(backend.shape.window, tokens, characters, held=held)
    wanted = need.estimate(backend.shape, tokens, backend.dtype, config, weights=0)
    need.check(wanted, f"a context of {tokens:,} tokens")


def checked_message(i: int, message: Mapping[str, Any]) -> dict[str, str]:
    """Role and text of a message; lists of text parts, as some programs write them, are joined."""
    if not isinstance(message, Mapping):
        raise TypeError(
            f'message {i + 1} must be a dict, {{"role": "user", "content": "…"}}, got {shown(message)}.'
        )
    role, content = message.get("role"), message.get("content")
    if isinstance(content, list) and all(isinstance(part, Mapping) and "text" in part for part in content):
        content = "".join(str(part["text"]) for part in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise SakuinError(
            f"message {i + 1} must have a role and a text as content, got {_short(message)}; give "
            '{"role": "user", "content": "…"}.'
        )
    if not _ROLE.fullmatch(role):
        # It becomes a part of the template's own text, where special tokens are made.
        raise SakuinError(
            f"message {i + 1} has the role {shown(role)}; a role is one word of letters, digits, '_' and "
            "'-', like user, assistant or system."
        )
    return {"role": role, "content": content}


def _short(message: Mapping[str, Any]) -> str:
    return f"{{{', '.join(f'{key!r}: {shown(value)}' for key, value in message.items())}}}"[:160]


def check_snapshot(found: object) -> None:
    """What `sakuin.snapshot.store` reads and `Context.snapshot` gives."""
    if not isinstance(found, Snapshot):
        raise TypeError(f"found must be a Snapshot, as Context.snapshot gives it, got {shown(found)}.")


def check_keeper(keeper: object) -> None:
    """What has `begin` and `step`, or None."""
    if keeper is not None and not all(hasattr(keeper, name) for name in ("begin", "step")):
        raise TypeError(f"keeper must have begin and step, as one of a library has, got {shown(keeper)}.")


def settings_meant(config: RetrievalConfig | Literal["full"] | None) -> RetrievalConfig | None:
    """The settings that a `config` argument means; None is full attention."""
    if config is None:
        return RetrievalConfig()
    if isinstance(config, str) and config == "full":
        return None
    if not isinstance(config, RetrievalConfig):
        hint = f"; write RetrievalConfig(index={config!r})" if isinstance(config, str) else ""
        raise TypeError(f"config must be a RetrievalConfig or 'full', got {shown(config)}{hint}")
    return config


def check_stored(config: RetrievalConfig | None) -> None:
    """Settings for a stored context, which full attention cannot be."""
    if config is not None and not isinstance(config, RetrievalConfig):
        raise TypeError(f"config must be a RetrievalConfig or None for a stored context, got {shown(config)}")


def check_progress(progress: Any) -> None:
    """`progress` must be callable, or None."""
    arguments.callback("progress", progress, "tokens done, tokens in all and the phase")


def listed_paths(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """The files that are meant; one alone, in no list, would be taken letter by letter."""
    if isinstance(paths, str | bytes | os.PathLike) or not isinstance(paths, Iterable):
        one = isinstance(paths, str | os.PathLike)
        hint = f"; put the one into a list: [{shown(paths)}]" if one else ""
        raise TypeError(f"paths must be a list of files, got {shown(paths)}{hint}.")
    found = [arguments.path(f"paths[{i}]", each) for i, each in enumerate(paths)]
    if not found:
        raise SakuinError("paths is empty; name at least one file.")
    return found


def listed_documents(texts: Sequence[Document], progress: Any) -> list[Document]:
    """The documents that are meant, one of which must hold something."""
    check_progress(progress)
    if isinstance(texts, str | bytes | Document | Mapping) or not isinstance(texts, Iterable):
        hint = (
            "put the one into a list" if isinstance(texts, Document) else "a text makes Document(name, text)"
        )
        raise TypeError(f"texts must be a list of Documents, got {shown(texts)}; {hint}.")
    found = list(texts)
    for i, each in enumerate(found):
        check_document(f"texts[{i}]", each)
    if not any(each.text.strip() for each in found):
        raise SakuinError("the document is empty; there is nothing to ask about.")
    return found


def check_document(name: str, document: object) -> None:
    """A `Document` with a name and a text, whose marks, notes and path are such."""
    if not isinstance(document, Document):
        raise TypeError(
            f"{name} must be a Document, got {shown(document)}; sakuin.documents.read reads a file, and "
            "Document(name, text) holds a text."
        )
    arguments.text(f"the name of {name}", document.name)
    arguments.text(f"the text of {name}", document.text)
    try:
        Document.from_dict(document.as_dict())
    except (SakuinError, TypeError):
        raise TypeError(
            f"{name} ({shown(document.name)}) has marks, notes, a path or an offset of a wrong type, or "
            "marks that lie outside its text or are out of order; Document(name, text) needs none of them."
        ) from None


def listed_more(text: object, progress: Any) -> str | list[Document]:
    """A text, or the documents to be read after others."""
    check_progress(progress)
    if isinstance(text, Document):
        check_document("text", text)
        return [text]
    if isinstance(text, list | tuple) and all(isinstance(each, Document) for each in text):
        for i, each in enumerate(text):
            check_document(f"text[{i}]", each)
        return list(text)
    return arguments.text("text", text, "append takes a str or a Document")


def system_meant(backend: Backend, system: object) -> str:
    """The system prompt that an argument means, "" for none."""
    if system is None:
        return ""
    told = arguments.text("system", system).strip()
    if not told:
        raise SakuinError("the system prompt is empty; write what the model shall be told, or leave it out.")
    check_characters(backend.vocabulary, told, backend.shape.window)
    return told


def joined(messages: Sequence[Mapping[str, str]]) -> str:
    """All that is said in them."""
    return "".join(message["content"] for message in messages)


def listed_messages(messages: Sequence[Mapping[str, Any]], progress: Any) -> list[dict[str, str]]:
    """The messages that are meant, one at least."""
    check_progress(progress)
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Iterable):
        raise TypeError(
            f'messages must be a list of messages, {{"role": "user", "content": "…"}} each, got '
            f"{shown(messages)}; put one alone into a list."
        )
    found = [checked_message(i, message) for i, message in enumerate(messages)]
    if not found:
        raise SakuinError("there are no messages; give at least one.")
    return found
