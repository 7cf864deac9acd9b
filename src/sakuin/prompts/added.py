"""Text of users and documents as nothing but text: no words in it become an added token.

Added tokens are those that a vocabulary has beside its words: control tokens (`<|im_start|>`), and what the
makers of a model added for its turns and thoughts (`<｜User｜>`, `<think>`), which many files do not mark as
special. Only a chat template may write them: a document with `<|im_start|>system` in it would else speak in
the system's name. Tokenizers match them in any text, after they have made other letters into plain ones too,
so a text in which one was found is cut inside of it, and the pieces are made into tokens apart. Runs of
blanks and of line ends, which some vocabularies add as well, stay what they are. Called by the vocabularies
of the backends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Set

from sakuin.prompts.vocabulary import Encoded

Encode = Callable[[str, bool], Encoded]
"""Tokens of a text by the tokenizer alone; the flag says whether the text begins there."""

# Before such a sign a word ends for every tokenizer in use, so that a cut there changes no other token.
_SIGN = re.compile(r"(?<=[^\W_])(?=[^\w\s'’])")


def is_blank(token: str) -> bool:
    """Whether a token is a run of blanks or line ends, however its vocabulary writes a blank."""
    return not token.replace("▁", " ").strip()


def encoded(text: str, added: Set[int], encode: Encode, apart: Encode) -> Encoded:
    """The tokens of `text`, none of which is in `added`.

    apart : gives the tokens of a text, mostly one character, that the tokenizer makes into an added token
        however it is cut.
    """
    ids: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    for at, made in _parts(text, 0, added, encode, apart):
        if not at:
            ids, starts, ends = made.ids, made.starts, made.ends
            continue
        ids += made.ids
        starts += [at + start for start in made.starts]
        ends += [at + end for end in made.ends]
    return Encoded(ids, starts, ends)


def _parts(
    text: str, at: int, added: Set[int], encode: Encode, apart: Encode
) -> Iterator[tuple[int, Encoded]]:
    """The tokens of the pieces into which `text`, which stands at `at`, is cut, and where each stands."""
    made = encode(text, not at)
    if added.isdisjoint(made.ids):
        yield at, made
        return
    found = [i for i, token in enumerate(made.ids) if token in added]
    places = {place for i in found for place in _inside(text, made.starts[i], made.ends[i])}
    cuts = sorted(place for place in places if 0 < place < len(text))
    if not cuts:
        yield at, apart(text, not at)
        return
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        yield from _parts(text[start:end], at + start, added, encode, apart)


def _inside(text: str, start: int, end: int) -> tuple[int, ...]:
    """Where to cut, so that `text[start:end]` is no token any more."""
    if end - start < 2:
        return start, end
    signs = [sign.start() for sign in _SIGN.finditer(text, start + 1, end)]
    return (signs[-1] if signs else (start + end) // 2,)
