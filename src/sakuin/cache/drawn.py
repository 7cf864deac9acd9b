"""What a neutral question draws from a text, as it is kept with a context. Importing this needs no torch.

`sakuin.context.lookup` makes it, `sakuin.snapshot` stores it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

_MOST = 1e12


@dataclass(frozen=True)
class Drawn:
    """The attention that tokens receive whatever is asked.

    text : SHA-256 of the text that it was measured on, in hex; of another text it says nothing.
    positions, values : the tokens that receive any, and how much in a decode step, summed over layers and
        heads.
    """

    text: str
    positions: list[int] = field(repr=False)
    values: list[float] = field(repr=False)

    @property
    def is_sound(self) -> bool:
        """Whether all of it are numbers that a question can draw; not so where a model gives none."""
        return all(0 <= value < _MOST for value in self.values)

    def fits(self, text: str) -> bool:
        """Whether it was measured on `text`."""
        return self.text == digest(text)


def digest(text: str) -> str:
    """SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
