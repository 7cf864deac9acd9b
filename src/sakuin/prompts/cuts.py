"""Where a long text can be cut before it is made into tokens, so that the tokens are those of the whole.

llama.cpp needs a time that grows with the square of a long text's length where a vocabulary has tokens of its
own for lines and blanks, and transformers' tokenizers take a hundred times a text's bytes in memory.

A cut is right where no token of the vocabulary crosses it, whatever is merged on both sides. Between the end
of a word and the blank before the next, and between a line's end and the next word, hardly a vocabulary has
tokens that cross; those that do are found by looking at every token once.

And where a text must be cut: some of llama.cpp's byte-level tokenizers take words apart by a recursion that
goes as deep as a word is long, and end the process where one has some 20,000 characters, as a line of
genetic code has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LONG = 100_000
"""Characters from which cutting a text pays: it needs a look at all tokens."""
_PART = 16_000
"""Characters of a part; where there is no place for a cut a part is longer."""

_WORD = 4_000
"""Most characters without a blank, or of blanks alone, that are given to a byte-level tokenizer at once."""
_ENDLESS = re.compile(rf"\S{{{_WORD + 1},}}|\s{{{_WORD + 1},}}")
# Before these a word ends for every tokenizer in use.
_SIGN = re.compile(r"(?<=\w)(?=[!-&(-/:-@\[-^`{-~、。，．！？；：「」『』（）《》…—])")

_BLANK = re.compile(r"(?<=[^\W_])(?= [^\W_])")
_LINE = re.compile(r"(?<=\S\n)(?=[^\W_])")
# A token may end with the blank: the next word then begins behind it.
_BLANK_INSIDE = re.compile(r"([^\W_])(?= (?:[^\W_]|$))")
_LINE_INSIDE = re.compile(r"\n([^\W_])")


@dataclass(frozen=True)
class Cuts:
    """Places for cuts in texts of one vocabulary.

    lines : whether a text may also be cut after a line's end. no_blank_after, no_line_before : characters
        after which a blank, or before which a line's end, may lie inside a token.
    """

    lines: bool
    no_blank_after: frozenset[str]
    no_line_before: frozenset[str]

    @classmethod
    def of(cls, pieces: Iterable[bytes], lines: bool) -> Cuts:
        """Those of a vocabulary with these tokens."""
        blanks: set[str] = set()
        ends: set[str] = set()
        for piece in pieces:
            if b" " in piece or b"\n" in piece:
                text = piece.decode("utf-8", "ignore")
                blanks.update(_BLANK_INSIDE.findall(text))
                ends.update(_LINE_INSIDE.findall(text))
        return cls(lines, frozenset(blanks), frozenset(ends))

    def parts(self, text: str) -> Iterator[str]:
        """`text` in parts that can be made into tokens one by one."""
        start = 0
        while True:
            cut = self._next(text, start + _PART)
            yield text[start:cut]
            if cut == len(text):
                return
            start = cut

    def _next(self, text: str, position: int) -> int:
        """The first place for a cut at `position` or behind."""
        found = [len(text)]
        for allowed, pattern, side, crossing in (
            (True, _BLANK, -1, self.no_blank_after),
            (self.lines, _LINE, 0, self.no_line_before),
        ):
            if not allowed:
                continue
            for match in pattern.finditer(text, position, min(found) + 2):
                if text[match.start() + side] not in crossing:
                    found.append(match.start())
                    break
        return min(found)


def bounded(text: str) -> Iterator[str]:
    """`text` in parts without words that are too long to be taken apart; nearly always in one.

    Such a word is cut before a sign where it has some, else anywhere, which may change the tokens there.
    """
    start = 0
    for word in _ENDLESS.finditer(text):
        at = word.start()
        while word.end() - at > _WORD:
            signs = [sign.start() for sign in _SIGN.finditer(text, at + _WORD // 2, at + _WORD)]
            at = signs[-1] if signs else at + _WORD
            yield text[start:at]
            start = at
    yield text[start:]
