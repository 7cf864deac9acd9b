"""What any question draws from a text, as a manifest tells of it. Called by `sakuin.snapshot.manifest`."""

from __future__ import annotations

import re
from typing import Any

from sakuin.cache.drawn import Drawn
from sakuin.snapshot.numbers import packed, unpacked

_HEX = re.compile(r"[0-9a-f]{64}")


def said_of(drawn: Drawn) -> dict[str, Any]:
    """It as JSON."""
    return {
        "text": drawn.text,
        "positions": packed(drawn.positions),
        "values": packed(drawn.values, "f"),
    }


def read(said: Any, n: int, waiting: int) -> Drawn:
    """It from JSON: what is drawn from the n tokens of a text, and from at most so many that wait. Raises
    `ValueError` where it is damaged."""
    if not isinstance(said, dict) or set(said) != {"text", "positions", "values"}:
        raise ValueError(f"as what is drawn: {str(said)[:40]}")
    positions, values = unpacked(said["positions"]), unpacked(said["values"], "f")
    if not (isinstance(said["text"], str) and _HEX.fullmatch(said["text"])):
        raise ValueError("what is drawn is of no text")
    # The text that waits was read with the question: its tokens come after those that are kept.
    if len(positions) != len(values) or not all(0 <= at < n + waiting for at in positions):
        raise ValueError("what is drawn lies outside the tokens")
    drawn = Drawn(said["text"], [int(at) for at in positions], values)
    if not drawn.is_sound:
        raise ValueError("what is drawn is no number")
    return drawn
