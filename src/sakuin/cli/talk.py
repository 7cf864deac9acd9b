"""A conversation as it goes on: messages and commands in, answers out.

At a terminal Ctrl-C ends the answer and not the conversation: the pass that runs is finished, what was said
so far stays, and the context holds it whole. Elsewhere it ends the command.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sakuin.cli import answering
from sakuin.cli.answering import Manner, as_object, typed
from sakuin.cli.contexts.grown import warn_if_full
from sakuin.cli.errors import Patience, sentence
from sakuin.cli.messages import Messages
from sakuin.cli.printable import printable
from sakuin.cli.show import Written, complain, say_json, tell
from sakuin.errors import SakuinError
from sakuin.quantities import counted, listed, meant

if TYPE_CHECKING:
    from sakuin import Answer, Context

MOST_REFUSED = 1000
"""Messages in a row that are refused before a conversation is given up: standard input may be `yes`."""

_ENDLESS = 1 << 30
_LONG, _FEW = 8, 32
"""Characters a token that hardly any text has; tokens of a chat template and of a word of answer."""
_COMMANDS = {
    "/why": "the passages that the last answer attended to",
    "/figures": "what the last answer took",
    "/clear": "begin anew, from the documents alone",
    "/help": "this",
    "/bye": "leave; so do /exit, /quit and Ctrl-D",
}
_LEAVE = ("/bye", "/exit", "/quit")


class _Interrupts:
    """What Ctrl-C means at a terminal: at the prompt an interrupt; while an answer comes the first is noted
    and the second an interrupt; between the two it comes too late and means nothing."""

    def __init__(self) -> None:
        self._answering: bool | None = None
        self._times = 0

    def noted(self) -> bool:
        return self._times > 0

    @contextmanager
    def during(self, *, answering: bool) -> Iterator[None]:
        """Within, an answer comes, or the prompt waits."""
        self._answering, self._times = answering, 0
        try:
            yield
        finally:
            self._answering = None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Within, Ctrl-C comes here."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._come)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _come(self, *_: object) -> None:
        self._times += 1
        if self._answering is not None and self._times > self._answering:
            raise KeyboardInterrupt


class Talk:
    """context : as it is now. name : of the model. patience : is told what Ctrl-C may do."""

    def __init__(
        self,
        context: Context,
        name: str,
        manner: Manner,
        messages: Messages,
        patience: Patience,
        *,
        json: bool = False,
        figures: bool = False,
    ) -> None:
        self.context = context
        self._begin = context.fork()
        self._name, self._manner, self._messages, self._patience = name, manner, messages, patience
        self._json, self._figures = json, figures
        self._last: Answer | None = None
        self._earlier = False  # whether something was said before it
        self._refused = 0
        self._interrupts = _Interrupts()

    def run(self) -> None:
        """Until the end of the messages or a word that leaves."""
        if not self._messages.interactive:
            self._go_on()
            return
        self._patience.times = _ENDLESS
        with self._interrupts.handled():
            self._greet()
            self._go_on()

    def _go_on(self) -> None:
        while True:
            message = self._read()
            if message is None:
                return
            word = message.split()[0] if message.split() else ""
            # A path such as /etc/hosts is a message; so is what begins with a blank.
            if message.startswith("/") and "/" not in word[1:]:
                if word in _LEAVE:
                    return
                self._obey(word)
            elif word:
                self._answer(message.strip())

    def _read(self) -> str | None:
        """The next message."""
        while True:
            if not self._messages.interactive:
                return self._messages.read()
            try:
                with self._interrupts.during(answering=False):
                    return self._messages.read()
            except KeyboardInterrupt:
                complain("")
                tell("(/bye or Ctrl-D leaves.)")

    def _greet(self) -> None:
        names = [document.name or "a text" for document in self.context.documents]
        about = f" about {listed(names)} ({counted(self.context.tokens, 'token')})" if names else ""
        tell(f"Talking with {self._name}{about}. /help says what else can be typed; /bye or Ctrl-D leaves.")
        if not self._messages.editing:
            tell(
                "Nothing is lacking but the arrow keys and the history of what was typed; "
                "`pip install 'sakuin[chat]'` brings them."
            )
        if names:
            warn_if_full("this talk", self.context)
        if before := self.context.turns:
            asked, said = before[-1]
            tell(f"It stopped here, after {counted(len(before), 'answer')}:")
            complain(printable(f"> {asked}\n{said}"))

    def _obey(self, word: str) -> None:
        if word not in _COMMANDS:
            hint = meant(word, [*_COMMANDS, *_LEAVE])
            complain(
                f"sakuin: there is no command {printable(word)}{hint}; /help lists what there is, and a "
                "blank before it makes it a message."
            )
        elif self._json and word != "/clear":
            complain(f"sakuin: {word} is for people; with --json each answer has its passages and figures.")
        elif word == "/help":
            self._help()
        elif word == "/clear":
            self.context, self._last = self._begin.fork(), None
            tell("(Begun anew; what was said is forgotten.)")
        elif self._last is None:
            complain(f"sakuin: there is no answer yet for {word}; ask something first.")
        elif word == "/figures":
            answering.print_figures(self.context, self._last)
        else:
            self._say_why(self._last)

    def _say_why(self, answer: Answer) -> None:
        if said := answering.doubt(answer, earlier=self._earlier):
            tell(said)
        if answer.evidence:
            answering.print_passages(answer)
        else:
            tell("(The last answer attended to no passage of a document.)")

    def _help(self) -> None:
        for word, meaning in _COMMANDS.items():
            complain(f"{word:<10}{meaning}")
        if self._messages.interactive:
            alt = "Alt-Enter begins a new line; so does Enter" if self._messages.editing else "Enter does so"
            complain(f'{alt} between """ and """. Ctrl-C ends an answer.')

    def _answer(self, message: str) -> None:
        written, earlier = Written(), bool(self.context.turns)
        try:
            answer = self._chat(typed(message, "the message"), None if self._json else written)
        except SakuinError as error:
            # A message that does not fit must not end the conversation, unless they come without end.
            written.end()
            self._refused += 1
            if self._refused == MOST_REFUSED:
                raise
            complain(f"sakuin: {sentence(error)}")
            self._offer_clear(message)
            return
        if answer is None:
            written.end()
            tell("(Interrupted; the message and what was said of an answer are forgotten.)")
            return
        self._refused = 0
        if answer.new_tokens:
            self._last, self._earlier = answer, earlier
        if self._json:
            said = as_object(self.context, answer, self._name) | {"reused_tokens": answer.reused_tokens}
            say_json(said)
            return
        written.end()
        for remark in answering.remarks(self.context, answer):
            tell(remark)
        if answer.ended == "window":
            self._offer_clear()
        if self._figures:
            answering.print_figures(self.context, answer)

    def _offer_clear(self, message: str = "") -> None:
        """Where the window is full of what was said, and the message would fit without it, tell how to go
        on."""
        window, first = self.context.backend.shape.window, self._begin.tokens
        if window is None or self.context.tokens == first or len(message) > _LONG * window:
            return
        tokens = len(self.context.backend.vocabulary.encode(message).ids)
        if self.context.tokens + tokens + _FEW >= window > first + tokens + _FEW:
            tell("(/clear forgets what was said, and makes room.)")

    def _chat(self, message: str, stream: Written | None) -> Answer | None:
        """The answer; None where a second Ctrl-C did not wait for the end of a pass."""
        if not self._messages.interactive:
            return self._manner.ask(self.context.chat, message, stream)
        self._patience.times = 2
        try:
            with self._interrupts.during(answering=True):
                noted = self._interrupts.noted
                return self._manner.ask(self.context.chat, message, stream, cancelled=noted)
        except KeyboardInterrupt:
            return None
        finally:
            self._patience.times = _ENDLESS
