"""Tokens that come one after another, as text. Each costs the same, however much was said before.

Called by `sakuin.context.saying`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BEFORE = 4
_HALF = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """text : what the tokens say so far, but for half a character at its end. ids : the tokens."""

    def __init__(self, decode: Callable[[Sequence[int]], str], before: Sequence[int] = ()) -> None:
        """before : tokens that they go on from, a few of which may decide whether a blank comes first."""
        self._before = list(before[-_BEFORE:])
        self.ids: list[int] = []
        self.text = ""
        self._decode = decode
        # What a token says may depend on the one before it, so each is decoded behind those that came last.
        self._first = self._said = 0

    def add(self, token: int) -> None:
        """Take a token."""
        self.ids.append(token)
        self._go_on()

    def finish(self) -> None:
        """No more come: half a character stays one that cannot be shown."""
        self._go_on(last=True)

    def _go_on(self, *, last: bool = False) -> None:
        if self._said == len(self.ids):
            return
        context = self._before if self._first == 0 else []
        before = self._decode([*context, *self.ids[self._first : self._said]])
        now = self._decode([*context, *self.ids[self._first :]])
        if len(now) > len(before) and (last or not now.endswith(_HALF)):
            self.text += now[len(before) :]
            self._first, self._said = self._said, len(self.ids)
