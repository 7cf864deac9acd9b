"""An answer as it grows: tokens become text, which is handed on piece by piece until it ends.

Why it ended is one of `ENDED`. What may still turn out to be half a character, the beginning of a stop string
or a repetition waits and is not handed on. Called by `sakuin.context.answer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from sakuin.arguments import shown
from sakuin.context.loops import Repetition
from sakuin.errors import SakuinError
from sakuin.prompts.detokenizer import Detokenizer
from sakuin.prompts.template import Prompt

Ended = Literal["stop", "stop string", "length", "window", "loop", "interrupted"]
"""The model ended its answer (or a base model its line); a string of `stop` came; `max_new_tokens` were
said; the model's window was full; the answer repeated itself; the caller wanted no more."""

WHOLE: tuple[Ended, ...] = ("stop", "stop string")
"""The ends of answers that lack nothing."""


def stop_strings(stop: str | Sequence[str]) -> tuple[str, ...]:
    """The strings before which an answer ends; one alone needs no list."""
    found = (stop,) if isinstance(stop, str) else stop
    if not isinstance(found, Iterable) or isinstance(found, bytes):
        raise TypeError(f"stop must be a text or a list of texts, got {shown(stop)}.")
    found = tuple(found)
    for one in found:
        if not isinstance(one, str):
            raise TypeError(f"stop must be a text or a list of texts, got {shown(one)} in it.")
        if not one:
            raise SakuinError("a stop string is empty: the answer would end before it began; leave it out.")
    return found


class Saying:
    """One answer.

    raw : whether its blanks are its own, and a base model's answer goes on after its first line: a text that
    is gone on with, no answer. before : the tokens that it goes on from.

    ids : its tokens, without the one that ended it. text : what they say, cut where it ended. ended : why;
    right when it has ended.
    """

    def __init__(
        self,
        prompt: Prompt,
        stream: Callable[[str], None] | None,
        stop: tuple[str, ...] = (),
        end_loops: bool = True,
        *,
        raw: bool = False,
        before: Sequence[int] = (),
    ) -> None:
        self.text = ""
        self._words, self._raw = Detokenizer(prompt.decode, before), raw
        self.ended: Ended = "stop"
        self._prompt, self._stream, self._stop = prompt, stream, stop
        self._repetition = Repetition() if end_loops else None
        self._ends = prompt.vocabulary.end_tokens
        self._streamed = 0
        self._over = self._cut = False

    @property
    def ids(self) -> list[int]:
        return self._words.ids

    def add(self, token: int) -> bool:
        """Take a token; True where the answer ends with it."""
        if token in self._ends:
            self._over = True
            return True
        self._words.add(token)
        self._take()
        cuts: list[tuple[int, Ended]] = [
            (at, "stop string") for stop in self._stop if (at := self.text.find(stop)) >= 0
        ]
        if self._prompt.one_line and not self._raw and (at := self.text.find("\n")) >= 0:
            cuts.append((at, "stop"))
        if cuts:
            self._end(*min(cuts))
        elif self._repetition is not None and (loop := self._repetition.feed(self.text)) is not None:
            self._end(loop, "loop")
        else:
            # Blanks at the end wait: if the answer ends there, they are no part of it.
            self._hand_on(min(self._before_stop(), self._shown()))
        return self._over

    def finish(self, ended: Ended) -> None:
        """There are no more tokens: hand on what waits. ended : why, where the answer did not end itself."""
        if not self._over:
            self.ended = ended
        if not self._cut:
            self._words.finish()
            self._take()
        self._hand_on(len(self.text))

    def _take(self) -> None:
        self.text = self._words.text if self._raw else self._words.text.lstrip()

    def kept(self) -> tuple[list[int], list[int], int]:
        """What a conversation keeps of it: tokens that were said, tokens for the rest of the text where it
        was cut within one, and how many more than the first were said."""
        if not self._cut:
            return self.ids, [], 0
        for n in range(len(self.ids) - 1, -1, -1):
            said = self._prompt.decode(self.ids[:n]).lstrip() if n else ""
            if self.text.startswith(said):
                break
        rest = self._prompt.encode(self.text[len(said) :]).ids if self.text[len(said) :].strip() else []
        return self.ids[:n], rest, len(self.ids) - n

    def _end(self, at: int, ended: Ended) -> None:
        self.text, self.ended = self.text[:at], ended
        self._over = self._cut = True

    def _shown(self) -> int:
        return len(self.text) if self._repetition is None else self._repetition.shown

    def _before_stop(self) -> int:
        """Where the text ends that is not the beginning of a stop string."""
        starts = (
            len(self.text) - n
            for stop in self._stop
            for n in range(1, min(len(stop), len(self.text) + 1))
            if self.text.endswith(stop[:n])
        )
        return min(starts, default=len(self.text))

    def _hand_on(self, until: int) -> None:
        until = until if self._raw else len(self.text[:until].rstrip())
        if self._stream and until > self._streamed:
            self._stream(self.text[self._streamed : until])
        self._streamed = max(self._streamed, until)
