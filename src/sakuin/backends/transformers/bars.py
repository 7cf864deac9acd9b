"""transformers' bars while it loads weights that are here: they come to nobody's bidding.

Those of a download stay, which may take long. Called by `sakuin.backends.transformers.load`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, wraps
from importlib import import_module
from typing import Any

from sakuin.machine.forks import lock

_DRAWERS = ("transformers.modeling_gguf_pytorch_utils", "transformers.core_model_loading")
"""Modules that draw them, each by its own `tqdm`."""


class _Here(threading.local):
    """Whether this thread draws none."""

    quiet = False


_here = _Here()
_once = lock()


@contextmanager
def without_bars() -> Iterator[None]:
    """Within, and in this thread alone, no bar is drawn of the weights that are loaded."""
    with _once:
        _install()
    before, _here.quiet = _here.quiet, True
    try:
        yield
    finally:
        _here.quiet = before


@cache
def _install() -> None:
    """Put the choice into transformers, for good: what a thread is doing decides. Where another version does
    not have these modules, its bars are drawn as ever."""
    for name in _DRAWERS:
        with suppress(ImportError):
            module: Any = import_module(name)
            if hasattr(module, "tqdm"):
                module.tqdm = _drawn(module.tqdm)


def _drawn(usual: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(usual, updated=())
    def tqdm(*given: Any, **how: Any) -> Any:
        return usual(*given, **(how | {"disable": True} if _here.quiet else how))

    return tqdm
