"""The indexes: one protocol (`base`), one file each; `build` makes one from keys and values."""

from sakuin.index.auto import AutoIndex
from sakuin.index.base import Index, Static, decode_by_parts, new_index
from sakuin.index.build import build_index
from sakuin.index.flat import FlatIndex
from sakuin.index.graph import GraphIndex
from sakuin.index.ivf import IvfIndex
from sakuin.index.kind import register
from sakuin.index.peers import PagesIndex, StreamingIndex, TopKIndex
from sakuin.index.sketch import SketchIndex

__all__ = [
    "AutoIndex",
    "FlatIndex",
    "GraphIndex",
    "Index",
    "IvfIndex",
    "PagesIndex",
    "SketchIndex",
    "Static",
    "StreamingIndex",
    "TopKIndex",
    "build_index",
    "decode_by_parts",
    "new_index",
    "register",
]
