"""The indexes: one protocol (`base`), one file each; `build` makes one from keys and values.

A name is imported when it is first used: the native core and what `auto` chooses are asked for without torch,
which every index needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_WHERE = {
    "AutoIndex": "auto",
    "FlatIndex": "flat",
    "GraphIndex": "graph",
    "Index": "base",
    "IvfIndex": "ivf",
    "PagesIndex": "peers",
    "SketchIndex": "sketch",
    "Static": "base",
    "StreamingIndex": "peers",
    "TopKIndex": "peers",
    "build_index": "build",
    "decode_by_parts": "base",
    "new_index": "base",
    "register": "kind",
}
"""name -> module of this folder that holds it (PEP 562)."""

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

if TYPE_CHECKING:
    from sakuin.index.auto import AutoIndex
    from sakuin.index.base import Index, Static, decode_by_parts, new_index
    from sakuin.index.build import build_index
    from sakuin.index.flat import FlatIndex
    from sakuin.index.graph import GraphIndex
    from sakuin.index.ivf import IvfIndex
    from sakuin.index.kind import register
    from sakuin.index.peers import PagesIndex, StreamingIndex, TopKIndex
    from sakuin.index.sketch import SketchIndex


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"sakuin.index.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'sakuin.index' has no attribute {name!r}")
