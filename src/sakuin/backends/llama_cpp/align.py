"""Which bytes of a text its tokens stand for where they do not spell it: tokenizers that change the text
first (other forms of letters, blanks that are merged or added), or have no token for a character."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_AHEAD = 64
"""Bytes beyond a token's place in which it is looked for."""


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
    for form in (piece, bare):
        if form and raw.startswith(form, position):
            return position, len(form)
    if not bare:
        return (position, 0) if piece and not ahead else (-1, 0)
    # Blanks that were merged into one, or a token that belongs to something that was changed before it.
    skipped = (
        position + len(raw[position : position + _AHEAD]) - len(raw[position : position + _AHEAD].lstrip())
    )
    if raw.startswith(bare, skipped):
        return skipped, len(bare)
    if ahead and len(bare) > 1:
        at = raw.find(bare, position, position + _AHEAD + len(bare))
        return at, len(bare)
    return -1, 0
