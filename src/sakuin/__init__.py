"""sakuin: retrieval attention for the language models of Hugging Face transformers.

Importing this package makes `attn_implementation="sakuin"` known to transformers and loads nothing heavy:
torch and transformers are imported when a name that needs them is first used.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def _is_command() -> bool:
    """Whether the program that runs is the command line: `python -m sakuin`, or a script that begins with an
    import of `sakuin.cli`, as the one that pip writes."""
    if _named_by_m():
        return True
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
    return "sakuin.cli" in frame.f_code.co_names


def _named_by_m() -> bool:
    # While `-m` looks for its module, argv begins with it and ends with the words for the program.
    named = sys.orig_argv[-len(sys.argv)].removeprefix("-m") if sys.argv[:1] == ["-m"] else ""
    return named == "sakuin" or named.startswith("sakuin.")


def _end_interrupted(number: int, frame: FrameType | None) -> None:
    """Ctrl-C before a command has begun, and after it has ended: nothing is under way that could be left
    untidy."""
    try:  # noqa: SIM105  (contextlib is not loaded yet)
        os.write(2, b"sakuin: Interrupted.\n")
    except OSError:  # nobody reads it
        pass
    os._exit(130)


# A command is interrupted quietly from its first line on; `sakuin.cli.errors` takes over when one begins. A
# program that imports sakuin keeps its own way, and who ignores Ctrl-C goes on with that.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler and _is_command():
    signal.signal(signal.SIGINT, _end_interrupted)


def _leave_current_folder() -> None:
    """Take the current folder off the path where `python -m sakuin` has put it there: a `json.py` or
    `torch.py` beside somebody's documents would be run in the place of the library. A program that imports
    sakuin keeps its path."""
    if _named_by_m() and not sys.flags.safe_path:
        try:
            here = os.getcwd()
        except OSError:  # a folder that is gone holds no code
            return
        if sys.path[:1] == [here]:
            del sys.path[0]


_leave_current_folder()  # before anything else is looked for

from importlib import import_module  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

from sakuin.backends.transformers import register  # noqa: E402
from sakuin.version import __version__  # noqa: E402

# name -> module that holds it; resolved on first use (PEP 562), so that `import sakuin` stays fast.
_WHERE = {
    "Answer": "sakuin.context.context",
    "Client": "sakuin.client",
    "Context": "sakuin.context.context",
    "Library": "sakuin.library",
    "PartialAttention": "sakuin.attention.partial",
    "RetrievalCache": "sakuin.backends.transformers.cache",
    "RetrievalConfig": "sakuin.config",
    "Span": "sakuin.context.evidence",
    "Stats": "sakuin.attention.partial",
    "build_index": "sakuin.index",
    "load": "sakuin.backends.open",
    "merge": "sakuin.attention.partial",
}

__all__ = [
    "Answer",
    "Client",
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
    from sakuin.attention.partial import PartialAttention, Stats, merge
    from sakuin.backends.open import load
    from sakuin.backends.transformers.cache import RetrievalCache
    from sakuin.client import Client
    from sakuin.config import RetrievalConfig
    from sakuin.context.context import Answer, Context
    from sakuin.context.evidence import Span
    from sakuin.index import build_index
    from sakuin.library import Library


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'sakuin' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


register.when_transformers_loads()
