"""The indexes: one protocol (`base`), one file each; `build` makes one from keys and values."""

from sakuin.index.base import Index, Static, new_index, register
from sakuin.index.build import build_index
from sakuin.index.flat import FlatIndex

__all__ = ["FlatIndex", "Index", "Static", "build_index", "new_index", "register"]
