"""sakuin: retrieval attention for the language models of Hugging Face transformers.

Importing this package makes `attn_implementation="sakuin"` known to transformers and loads nothing heavy:
torch and transformers are imported when a name that needs them is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sakuin import _register

__version__ = "0.1.0"

# name -> module that holds it; resolved on first use (PEP 562), so that `import sakuin` stays fast.
_WHERE = {
    "Answer": "sakuin.context",
    "Context": "sakuin.context",
    "Library": "sakuin.library",
    "PartialAttention": "sakuin.partial",
    "RetrievalCache": "sakuin.cache",
    "RetrievalConfig": "sakuin.config",
    "Span": "sakuin.evidence",
    "Stats": "sakuin.partial",
    "build_index": "sakuin.index",
    "load": "sakuin.models",
    "merge": "sakuin.partial",
}

__all__ = [
    "Answer",
    "Context",
    "Library",
    "PartialAttention",
    "RetrievalCache",
    "RetrievalConfig",
    "Span",
    "Stats",
    "__version__",
    "build_index",
    "load",
    "merge",
]

if TYPE_CHECKING:
    from sakuin.cache import RetrievalCache
    from sakuin.config import RetrievalConfig
    from sakuin.context import Answer, Context
    from sakuin.evidence import Span
    from sakuin.index import build_index
    from sakuin.library import Library
    from sakuin.models import load
    from sakuin.partial import PartialAttention, Stats, merge


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'sakuin' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


_register.when_transformers_loads()
