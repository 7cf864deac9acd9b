"""Registers `attn_implementation="sakuin"` with transformers as soon as transformers' model code is loaded.

Registering needs `transformers.modeling_utils`, which takes seconds to import (it brings torch). So that
`import sakuin` does not cost that, a finder on `sys.meta_path` waits for that one module and registers right
after it ran.

One method of transformers is wrapped, the one in which a model says which implementation it takes for the one
that was asked for (`PreTrainedModel.get_correct_attn_implementation`): models that do not ask the attention
interface by name would fail with a name that they do not know, or attend without a mask.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_MODULE = "transformers.modeling_utils"


def when_transformers_loads() -> None:
    """Register now if transformers' model code is loaded, else when it is."""
    if _MODULE in sys.modules:
        _register()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _register() -> None:
    from transformers.modeling_utils import PreTrainedModel

    from sakuin.backends.transformers.attention import register
    from sakuin.backends.transformers.own import resolved

    register()
    theirs: Any = PreTrainedModel.get_correct_attn_implementation
    if hasattr(theirs, "__wrapped__"):
        return

    @functools.wraps(theirs)
    def get_correct_attn_implementation(
        self: Any, requested_attention: str | None, *given: Any, **named: Any
    ) -> Any:
        return theirs(self, resolved(self, requested_attention), *given, **named)

    PreTrainedModel.get_correct_attn_implementation = get_correct_attn_implementation  # type: ignore[method-assign]


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            sys.meta_path.remove(self)
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, inner: Loader) -> None:
        self._inner = inner

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        _register()
