"""From a document and a question to tokens: the chat template cut in two, so that the document is prefilled
once.

A prompt is head + document + separator + question + tail. Head and tail come from the model's chat template,
rendered with placeholders; a model without one is asked as a base model: `Question: …` and `Answer:` after
the document, the answer ending with its line. Text of the user never becomes a special token, whatever is
written in it. Running the model is the business of `sakuin.context.generate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from sakuin.errors import SakuinError
from sakuin.prompts.vocabulary import Encoded, Vocabulary

_DOCUMENT, _QUESTION = "SAKUINPLACEOFDOCUMENT", "SAKUINPLACEOFQUESTION"
_ANSWER, _SYSTEM = "SAKUINPLACEOFANSWER", "SAKUINPLACEOFSYSTEM"
_SEPARATOR = "\n\n"
_HELD_BACK = 64
"""Among so many last tokens of a document a place is sought where what follows cannot change the tokens
before."""


@dataclass(frozen=True)
class Prompt:
    """How documents and questions are put to one model.

    head : tokens before the document, those of `system` among them: what the model is told before everything
        else, or "". before, after : the text around the question. one_line : the answer
        ends with its line.
    """

    vocabulary: Vocabulary
    head: list[int]
    before: str
    after: str
    one_line: bool
    system: str = ""

    @classmethod
    def of(cls, vocabulary: Vocabulary, system: str = "") -> Prompt:
        """The form that the model's chat template asks for, or that of a base model where it has none.

        system : a system prompt. Raises `SakuinError` where the template has no place for one.
        """
        if not vocabulary.has_template:
            if system:
                raise SakuinError(
                    "this model has no chat template, and so no place for a system prompt; leave it out, or "
                    "take a model that is made for chat."
                )
            return cls(
                vocabulary,
                vocabulary.beginning,
                f"{_SEPARATOR}Question: ",
                "\nAnswer:",
                one_line=True,
            )
        message = {"role": "user", "content": f"{_DOCUMENT}{_SEPARATOR}{_QUESTION}"}
        told = [{"role": "system", "content": _SYSTEM}] if system else []
        try:
            whole = vocabulary.render([*told, message], answer=True)
        except SakuinError as error:
            raise (_no_system() if system else error) from None
        head, found, rest = whole.partition(_DOCUMENT)
        before, asked, after = rest.partition(_QUESTION)
        if not found or not asked:
            raise SakuinError(
                "the model's chat template drops or changes what the user wrote, so sakuin cannot use it."
            )
        tokens = _with_system(vocabulary, head, system)
        return cls(vocabulary, tokens, before, after, one_line=False, system=system)

    def encode(self, text: str) -> Encoded:
        """Tokens of a piece of the user's text; words in it that look like special tokens are not made into
        them."""
        return self.vocabulary.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer's tokens, special ones left out."""
        return self.vocabulary.decode(ids)

    def question(self, rest: str, question: str | None, lead: Sequence[int] | None = None) -> Encoded:
        """Tokens of what follows the prefilled part: the document's `rest`, the question and the template's
        end.

        question : None where the user's message ends with `rest`.
        lead : tokens that begin the user's message where nothing is in it yet; None where a document is.
        Offsets count from the start of `rest`; tokens that lie in `rest` alone end at `len(rest)` or before.
        """
        before, lead = self.before, lead or ()
        if question is None:
            before = question = ""
        elif lead and not rest:
            before = before.removeprefix(_SEPARATOR)
        if self.one_line:
            asked, tail = self.encode(rest + before + question + self.after), []
        else:
            asked, tail = self.encode(rest + before + question), self.vocabulary.special(self.after)
        end = len(rest) + len(before) + len(question)
        return Encoded(
            [*lead, *asked.ids, *tail],
            [0] * len(lead) + asked.starts + [end] * len(tail),
            [0] * len(lead) + asked.ends + [end + 1] * len(tail),
        )

    @cached_property
    def between(self) -> list[int]:
        """Tokens between an answer and the user's next message."""
        if self.one_line:
            return self.encode(_SEPARATOR).ids
        return self.pieces(
            [
                {"role": "user", "content": _DOCUMENT},
                {"role": "assistant", "content": _ANSWER},
                {"role": "user", "content": _QUESTION},
            ]
        )[2]

    def opening(self, messages: Sequence[dict[str, str]]) -> list[list[int]]:
        """As `pieces`, with the system prompt before the first message."""
        if not self.system:
            return self.pieces(messages)
        if any(message["role"] == "system" for message in messages):
            raise SakuinError(
                "the messages hold a system message, and system was given beside them; leave one of them out."
            )
        try:
            before, after, *rest = self.pieces([{"role": "system", "content": ""}, *messages])
        except SakuinError:
            raise _no_system() from None
        return [[*before, *self.encode(self.system).ids, *after], *rest]

    def pieces(self, messages: Sequence[dict[str, str]]) -> list[list[int]]:
        """Tokens of the template before each of `messages`, whose contents are left out."""
        if self.one_line:
            raise SakuinError(
                "this model has no chat template, so it takes no messages; give it a text, or take a model "
                "that is made for chat."
            )
        marked = [{**message, "content": f"{_DOCUMENT}{i}END"} for i, message in enumerate(messages)]
        rest, found = self.vocabulary.render(marked, answer=False), []
        for message in marked:
            piece, here, rest = rest.partition(message["content"])
            if not here:
                raise SakuinError(
                    "the model's chat template leaves out or changes the message of role "
                    f"{message['role']!r}, so sakuin cannot use it."
                )
            found.append(self.vocabulary.special(piece))
        return found


def _with_system(vocabulary: Vocabulary, head: str, system: str) -> list[int]:
    """The tokens of the template before the document, the system prompt at its place among them. It is text:
    no words in it become special tokens."""
    if not system:
        return vocabulary.special(head)
    before, here, after = head.partition(_SYSTEM)
    if not here:
        raise _no_system()
    return [*vocabulary.special(before), *vocabulary.encode(system).ids, *vocabulary.special(after)]


def _no_system() -> SakuinError:
    return SakuinError(
        "this model's chat template has no place for a system prompt; leave it out and put it before the "
        "question, or take another model."
    )


def stable_length(text: str, encoded: Encoded) -> int:
    """How many first tokens of `encoded` stay the same when more text follows: up to the last word that
    begins after a blank."""
    n = len(encoded.ids)
    for keep in range(n - 1, max(n - _HELD_BACK, 0), -1):
        start = encoded.starts[keep]
        # A token that begins with its blank, or right after one, begins a word for every tokenizer in use.
        if (
            start < len(text)
            and text[start] == " "
            and text[start + 1 : start + 2].isalnum()
            and text[start - 1].isalnum()
        ):
            return keep
    return max(n - 1, 0)
