"""The indexes: one protocol (`base`), one file each."""

from sakuin.index.base import Index, Static, new_index, register
from sakuin.index.flat import FlatIndex

__all__ = ["FlatIndex", "Index", "Static", "new_index", "register"]
