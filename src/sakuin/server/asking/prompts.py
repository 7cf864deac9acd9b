"""From messages, or a text, to the tokens of a prompt, over a context or over nothing.

What users write never becomes a special token. A text that is far too long is not made into tokens. Called by
`sakuin.server.asking.running`, in a thread that may wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sakuin.backends.base import Backend
from sakuin.context.answer import with_question
from sakuin.context.checks import TooLongError, check_characters, joined
from sakuin.context.conversation import messages_read
from sakuin.context.spoken_of import Question
from sakuin.errors import SakuinError
from sakuin.prompts.reading import Reading
from sakuin.prompts.template import Prompt
from sakuin.prompts.vocabulary import Encoded
from sakuin.server.problems import Problem


@dataclass(frozen=True)
class Asked:
    """A prompt as tokens.

    reading : the text that stands for them. n_text : so many first tokens are of texts that evidence may
    name. based : so many of them are those of `before`, of which it is measured what any question draws.
    question : the last question, where it is told apart from the text, and `asked_at` the tokens before it.
    """

    prompt: Prompt
    ids: list[int]
    reading: Reading = field(default_factory=Reading)
    n_text: int = 0
    based: int = 0
    before: Reading = field(default_factory=Reading)
    question: Question | None = None
    asked_at: int = 0


def of_messages(backend: Backend, messages: Sequence[dict[str, str]]) -> Asked:
    """A conversation that the user's message ends."""
    with length_of(backend, "messages"):
        prompt = Prompt.of(backend.vocabulary)
        if prompt.one_line:
            return _of_base(backend, prompt, messages)
        read = messages_read(prompt, Reading(lead=prompt.head), messages, backend.shape.window)
        return _asked(backend, prompt, read, None)


def of_context(
    backend: Backend, prompt: Prompt, held: Reading, system: str, messages: Sequence[dict[str, str]]
) -> Asked:
    """Questions about a context, and the answers before the last one. held : what the context holds.

    A system message that the context was not read with goes before the first question.
    """
    turns = _turns(messages, system)
    reading, questions, n_text = held, turns[::2], None
    with length_of(backend, "messages"):
        check_characters(backend.vocabulary, "".join(turns), backend.shape.window, len(held.ids))
        for question, answer in zip(questions[:-1], turns[1::2], strict=True):
            rest = reading.waiting.rstrip()
            asked = prompt.question(rest, question, reading.lead)
            n_text = _of_text(reading, asked, rest) if n_text is None else n_text
            reading = with_question(reading, asked, len(rest))
            kept, end = prompt.encode(answer).ids, len(reading.body)
            reading = reading.with_tokens(kept, [end] * len(kept), [end] * len(kept), end, prompt.between)
        return _asked(backend, prompt, reading, questions[-1], held, n_text)


def of_text(backend: Backend, prompt: str | Sequence[int]) -> Asked:
    """A text that is to be gone on with, or its tokens."""
    vocabulary = backend.vocabulary
    form = Prompt(vocabulary, vocabulary.beginning, "", "", one_line=True)
    with length_of(backend, "prompt"):
        if isinstance(prompt, str):
            check_characters(vocabulary, prompt, backend.shape.window)
            ids = [*vocabulary.beginning, *vocabulary.encode(prompt).ids]
        else:
            ids = list(prompt)
        if not ids:
            raise Problem(400, "The prompt is empty: give a text to go on with.", "prompt")
        check_window(backend, len(ids), "prompt")
    return Asked(form, ids)


def check_window(backend: Backend, n: int, param: str) -> None:
    """Refuse a prompt after which there is no room for an answer."""
    window = backend.shape.window
    if window is not None and n >= window:
        raise too_long(n, window, param)


def too_long(n: int, window: int, param: str, about: bool = False) -> Problem:
    """What is said of a prompt that is longer than the model reads."""
    return Problem(
        400,
        # Clients tell by these words that a longer window would do.
        f"The prompt is {'about ' * about}{n:,} tokens long. This model's maximum context length is "
        f"{window:,} tokens, answer included: shorten it.",
        param,
        "context_length_exceeded",
        n_prompt_tokens=n,
        n_ctx=window,
    )


class length_of:
    """Within, a text that is too long is said in the server's form."""

    def __init__(self, backend: Backend, param: str) -> None:
        self._backend, self._param = backend, param

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, TooLongError):
            raise too_long(error.tokens, error.window, self._param, about=True) from None
        if isinstance(error, SakuinError) and not isinstance(error, Problem):
            raise Problem(400, str(error), self._param) from None


def _of_text(reading: Reading, asked: Encoded, rest: str) -> int:
    """So many first tokens are of the text; its last ones are read with the question."""
    return len(reading.ids) + sum(end <= len(rest) for end in asked.ends)


def _asked(
    backend: Backend,
    prompt: Prompt,
    reading: Reading,
    question: str | None,
    before: Reading | None = None,
    n_text: int | None = None,
) -> Asked:
    rest = reading.waiting.rstrip()
    asked = prompt.question(rest, question, reading.lead)
    ids = [*reading.ids, *asked.ids]
    check_window(backend, len(ids), "messages")
    before = reading if before is None else before
    n_text = _of_text(reading, asked, rest) if n_text is None else n_text
    return Asked(
        prompt,
        ids,
        with_question(reading, asked, len(rest)),
        n_text,
        len(before.ids),
        before,
        Question.of(prompt, reading, question, asked),
        len(reading.ids),
    )


def _of_base(backend: Backend, prompt: Prompt, messages: Sequence[dict[str, str]]) -> Asked:
    """Of a model that knows no conversations: one question, what the system says before it."""
    turns = _turns(messages, "")
    if len(turns) > 1:
        raise Problem(
            400,
            "This model has no chat template and answers one message at a time: send the last one alone, or "
            "take a model that is made for chat.",
            "messages",
        )
    check_characters(backend.vocabulary, joined(messages), backend.shape.window)
    return _asked(backend, prompt, Reading(lead=prompt.head), turns[0].strip())


def _turns(messages: Sequence[dict[str, str]], system: str) -> list[str]:
    """Questions and answers in turn, a question last. Of several messages of one role one is made."""
    turns: list[str] = []
    told: list[str] = []
    for i, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role in ("system", "developer"):
            if content.strip() and content.strip() != system.strip():
                told.append(content.strip())
        elif (role == "assistant") == (len(turns) % 2 == 1):
            turns.append(content)
        elif turns:
            turns[-1] += f"\n\n{content}"
        else:
            raise Problem(400, "The first message must be the user's.", f"messages.{i}.role")
    if len(turns) % 2 == 0:
        raise Problem(400, "The last message must be the user's: it is what is answered.", "messages")
    turns[0] = "\n\n".join([*told, turns[0].strip()])
    if not turns[-1].strip():
        raise Problem(400, "The question is empty: ask something.", "messages")
    return turns
