"""Which bytes of a text its tokens stand for where they do not spell it: tokenizers that change the text
first (other forms of letters, blanks that are merged or added), or have no token for a character."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_AHEAD = 64
"""Bytes beyond a token's place in which it is looked for."""
_CHARACTER = 4
"""The same for tokens of one byte, which are found everywhere."""


def align(raw: bytes, pieces: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First byte, and the one after the last, of each token's piece.

    A piece that is found close behind the one before it has its own place. Those between two that are found
    share the bytes between the two. Starts never fall, and nothing lies past the end.
    """
    starts = np.zeros(len(pieces), np.int64)
    ends = np.zeros(len(pieces), np.int64)
    position, waiting = 0, 0
    for i, piece in enumerate(pieces):
        at, size = _find(raw, piece, position, i > waiting)
        if at < 0:
            continue
        starts[waiting:i], ends[waiting:i] = position, at
        starts[i], ends[i] = at, at + size
        position, waiting = at + size, i + 1
    starts[waiting:], ends[waiting:] = position, len(raw)
    return starts, ends


def _find(raw: bytes, piece: bytes, position: int, ahead: bool) -> tuple[int, int]:
    """Where `piece` begins, and how many bytes of the text it is; -1 where it is not found.

    ahead : whether tokens before it have no place yet, so that it may lie further on.
    """
    bare = piece.lstrip(b" ")
    forms = [form for form in (piece, bare) if form]
    for form in forms:
        if raw.startswith(form, position):
            return position, len(form)
    if not bare:
        return (position, 0) if piece and not ahead else (-1, 0)
    window = raw[position : position + _AHEAD]
    behind = position + len(window) - len(window.lstrip())  # blanks that were merged into one
    if raw.startswith(bare, behind):
        return behind, len(bare)
    for form in forms if ahead else ():
        reach = _AHEAD if len(form) > 1 else _CHARACTER
        at = raw.find(form, position, position + reach + len(form))
        if at >= 0:
            return at, len(form)
    return -1, 0
